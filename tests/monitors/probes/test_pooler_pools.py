"""Pools: two servers for six clients, on each version; the console's own pool is none."""

from __future__ import annotations

import pytest

from monitors.collect.rounds import take_now
from monitors.models import HISTORY
from monitors.probes import probes_of
from tests import poolers
from tests.monitors.probes.consoles import latest, read_full

pytestmark = pytest.mark.django_db


def test_a_pool_of_two_with_six_clients(pooler, crowd, watch_pooler, eventually):
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind)
    crowd(behind, 6)

    pool = read_full(target, eventually)

    assert (pool["database"], pool["user"], pool["pool_mode"]) == ("shop", "owner", "transaction")
    assert (pool["sv_idle"], pool["cl_active"]) == (0, 2)
    assert 0 <= pool["maxwait_seconds"] < 60
    first = pool["maxwait_seconds"]
    eventually(
        lambda: take_now(target) and latest("pooler_pools", target)[0]["maxwait_seconds"] > first
    )
    names = HISTORY["pooler_pools"].latest._default_manager.values_list("database", flat=True)
    assert "pgbouncer" not in names


def test_every_probe_of_a_pooler_fills_every_column_that_its_newest_version_has(
    pooler, crowd, watch_pooler, eventually
):
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind)
    crowd(behind, 6)
    read_full(target, eventually)
    target.refresh_from_db()

    empty = {
        (probe.name, name)
        for probe in probes_of("pgbouncer")
        for name in probe.sample.columns()
        if all(row[name] is None for row in latest(probe.name, target, ""))
    }
    never = {("pooler_databases", name) for name in ("force_user", "pool_mode")}
    newer = {
        ("pooler_stats", "client_login_count"),
        ("pooler_clients", "client_id"),
        ("pooler_databases", "max_client_connections"),
        ("pooler_databases", "current_client_connections"),
    }
    assert empty - never == (newer if target.server_version < 12400 else set())
    assert target.version_text == ".".join(
        str(target.server_version // size % 100) for size in (10000, 100, 1)
    )
