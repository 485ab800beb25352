"""Connections to servers: the backend's pid, and the client that has it."""

from __future__ import annotations

import pytest

from tests import poolers
from tests.monitors.probes.consoles import latest, read_full


@pytest.mark.django_db
def test_a_server_is_a_backend_and_links_to_its_client(
    pooler, crowd, embedded, watch_pooler, eventually
):
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind)
    crowd(behind, 6)

    read_full(target, eventually)

    servers = latest("pooler_servers", target)
    links = {row["ptr"]: row["link"] for row in latest("pooler_clients", target) if row["link"]}
    assert {row["link"]: row["ptr"] for row in servers} == links
    with embedded.connect() as eye:
        pids = eye.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = 'shop' AND wait_event = 'PgSleep'"
        ).fetchall()
    assert {row["remote_pid"] for row in servers} == {pid for (pid,) in pids}
