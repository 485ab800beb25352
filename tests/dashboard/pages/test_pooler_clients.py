"""Clients with work: who waits for how long, and which backend works for whom."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.collect.rounds import take_now
from monitors.rows import pooler_clients
from tests import poolers
from tests.monitors.probes.consoles import latest, read_full
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db


def test_those_that_wait_come_first_and_each_server_has_its_client(
    pooler, crowd, live, watch_pooler, eventually, browse
):
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind, operator_user="operator")
    live(behind, user="owner", dbname="shop", autocommit=True).execute("SELECT 1")
    crowd(behind, 6, application_name="till")
    read_full(target, eventually)
    target.refresh_from_db()

    page = browse("dba").get(f"/targets/{target.name}/clients/")

    text, rows = page.content.decode(), page.context["rows"]
    assert [row["state"] for row in rows] == ["waiting"] * 4 + ["active"] * 2
    pids = {row["remote_pid"] for row in latest("pooler_servers", target)}
    assert {row["remote_pid"] for row in rows} == {None, *pids}
    assert "4 waiting, 1 more with nothing to do" in " ".join(text.split())
    assert_typed(rows[0], pooler_clients.ClientRow)
    has_numbers = (target.server_version or 0) >= 12400
    assert ("kill_client came with 1.24" in text) is not has_numbers


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_who_is_behind_a_backend_of_a_server(  # noqa: PLR0917 - fixtures
    pooler, crowd, embedded, watch, watch_pooler, eventually, browse
):
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target, server = watch_pooler(behind), watch(embedded)
    crowd(behind, 3, application_name="till")
    read_full(target, eventually, waiting=1)
    take_now(server, ["activity"])

    found = pooler_clients.clients_behind(server)

    assert set(found) == {row["remote_pid"] for row in latest("pooler_servers", target)}
    assert {row["application_name"] for row in found.values()} == {"till"}
    assert {row["pooler"] for row in found.values()} == {target.name}
    assert pooler_clients.clients_behind(server, poolers=[]) == {}
    moment = found[max(found)]["read_at"]
    for began, skew, same in (
        (moment, 0, True),
        (moment + timedelta(microseconds=1), 0, False),
        (moment + timedelta(seconds=5), 5, True),  # by a clock that is ahead
        (None, 0, False),
    ):
        client = found[max(found)]
        assert pooler_clients.is_same_work(client, began, timedelta(seconds=skew)) is same
    text = browse("dba").get(f"/targets/{server.name}/activity/").content.decode()
    said = " ".join(text.split())
    assert said.count(f"For a client behind {target.name}:") == len(found)
    server.port = 1  # another server's
    assert pooler_clients.clients_behind(server) == {}
