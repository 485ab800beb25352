"""Rows as probes read them, with one column changed at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitors.advisor import Rate, Samples
from monitors.probes import PROBES
from monitors.rules.wraparound import Burn

NOW = datetime(2026, 11, 24, 10, 42, 16, 123456, tzinfo=UTC)
SHOP = 7  # database_id


def ago(seconds):
    return NOW - timedelta(seconds=seconds)


def later(hours):
    return NOW + timedelta(hours=hours)


def growing(column, per_hour, *, relid=16400, hours=6.0):
    """Return the measured growth of a column of a table of SHOP."""
    return {(column, SHOP, relid): Rate(per_hour / 3600, hours * 3600)}


def burning(per_hour):
    """Return the burn of transaction ids as it was in the last day."""
    return {"xid": Burn(per_hour / 3600, seconds=86400.0)}


def near(moment):
    """Equal a moment to the millisecond: dates are sums of floats."""
    return pytest.approx(moment, abs=timedelta(milliseconds=1))


def table(**columns):
    row = {
        "database_id": SHOP,
        "relid": 16400,
        "schemaname": "public",
        "relname": "orders",
        "relkind": "r",
        "toastrelid": 0,
        "reloptions": None,
        "reltuples": 100_000.0,
        "relpages": 1000,
        "relallfrozen": 0,
        "n_live_tup": 100_000,
        "n_dead_tup": 0,
        "n_tup_ins": 0,
        "n_tup_upd": 0,
        "n_tup_del": 0,
        "last_vacuum": None,
        "last_autovacuum": None,
        "last_analyze": None,
        "last_autoanalyze": None,
        "n_mod_since_analyze": 0,
        "relallvisible": 0,
        "relfrozenxid": 1000,
    }
    return row | columns


def vacuuming(**columns):
    """Return a running vacuum as the progress probe reads it."""
    row = {
        "pid": 900,
        "command": "VACUUM",
        "datname": "shop",
        "relid": 16400,
        "phase": "scanning heap",
        "done": 0,
        "total": 0,
        "index_vacuum_count": 0,
        "autovacuum": True,
        "wraparound": False,
        "started_at": ago(3600),
    }
    return row | columns


def backend(pid=4321, **columns):
    row = {
        "database_id": 0,
        "pid": pid,
        "backend_start": ago(9000),
        "backend_type": "client backend",
        "datname": "shop",
        "usename": "billing_rw",
        "application_name": "billing-api",
        "state": "active",
        "wait_event_type": None,
        "wait_event": None,
        "xact_start": ago(10),
        "query_start": ago(10),
        "state_change": ago(10),
        "backend_xid": None,
        "backend_xmin": None,
        "query": "SELECT ?",
        "blocked_by": None,
        "waitstart": None,
    }
    return row | columns


def waiting(pid, by, *, seconds=10, **columns):
    return backend(
        pid,
        wait_event_type="Lock",
        wait_event="transactionid",
        blocked_by=by,
        query_start=ago(seconds),
        **columns,
    )


def idle_in_transaction(pid=4321, *, seconds=10, **columns):
    return backend(pid, state="idle in transaction", state_change=ago(seconds), **columns)


def samples(advisor, **facts):
    """Return what an advisor is given: the rows of the probes that it names, and facts."""
    known: dict[str, Any] = {"database_names": {SHOP: "shop"}, "server_version": 180004}
    rows = {probe.name: facts.pop(probe.name, ()) for probe in PROBES if probe.name != "settings"}
    given = Samples(now=NOW, **{**known, **facts}, rows={"settings": (), **rows})
    return given.for_advisor(advisor)


def advise(advisor, *, thresholds=None, **facts):
    limits = {**advisor.defaults, **(thresholds or {})}
    return list(advisor.advise(samples(advisor, **facts), limits))


DUE = table(n_dead_tup=25_000, n_mod_since_analyze=35_000)
TOAST = table(
    relid=16403,
    relkind="t",
    reltuples=10_000_000.0,
    relpages=20_000,
    n_dead_tup=200_000,
    n_live_tup=1_000_000,
)


def pool(**columns):
    """Return a pool of the database shop of which all is well."""
    row = {
        "database_id": 0,
        "database": "shop",
        "user": "till",
        "cl_active": 2,
        "cl_waiting": 0,
        "sv_active": 2,
        "sv_idle": 0,
        "sv_used": 0,
        "sv_tested": 0,
        "sv_login": 0,
        "maxwait_seconds": 0.0,
        "pool_mode": "transaction",
    }
    return row | columns


def pool_database(**columns):
    """Return the pooler's database shop, with pools of two."""
    row = {
        "database_id": 0,
        "name": "shop",
        "current_connections": 2,
        "pool_size": 2,
        "max_connections": 0,
        "paused": False,
        "disabled": False,
        "host": "db1",
        "port": 5432,
        "database": "shop",
    }
    return row | columns


def pool_config(**settings):
    """Return a pooler's settings."""
    return [{"name": name, "setting": value} for name, value in settings.items()]


FULL = {"cl_waiting": 4, "sv_active": 2, "sv_idle": 0}
"""Columns of a pool for whose two servers four clients wait."""
