"""Databases of a pooler: their sizes, and that one is paused."""

from __future__ import annotations

import pytest

from monitors.collect.rounds import take_now
from tests import poolers
from tests.monitors.probes.consoles import latest


@pytest.mark.django_db
def test_limits_and_a_pause(pooler, live, embedded, watch_pooler):
    behind = pooler(default_pool_size="7", reserve_pool_size="3", **poolers.CONSOLE)
    target = watch_pooler(behind)
    live(behind, user="owner", dbname="shop")
    states = []
    with behind.connect(user="operator", dbname="pgbouncer", autocommit=True) as admin:
        for command in ("SHOW VERSION", "PAUSE shop", "RESUME shop"):
            admin.execute(command)
            take_now(target, ["pooler_databases"])
            [row] = latest("pooler_databases", target, "name")
            states.append(row["paused"])

    assert states == [False, True, False]
    assert (row["pool_size"], row["reserve_pool_size"], row["max_connections"]) == (7, 3, 0)
    assert (row["host"], row["port"]) == (embedded.host, embedded.port)
    assert row["disabled"] is False
