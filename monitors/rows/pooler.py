"""A pooler's pools and databases as its page and exports show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from monitors.history.counters import read_totals
from monitors.history.window import Window
from monitors.models import Target
from monitors.probe import Reading
from monitors.rows.tables import rows_at

COLUMNS = (
    "database",
    "user",
    "pool_mode",
    "cl_active",
    "cl_waiting",
    "maxwait_seconds",
    "sv_active",
    "sv_idle",
    "sv_used",
    "sv_tested",
    "sv_login",
    "pool_size",
)
"""Keys of the export of pools, in order."""
DATABASE_COLUMNS = (
    "name",
    "host",
    "port",
    "database",
    "force_user",
    "pool_mode",
    "pool_size",
    "min_pool_size",
    "reserve_pool_size",
    "max_connections",
    "current_connections",
    "max_client_connections",
    "current_client_connections",
    "paused",
    "disabled",
    "xact_per_second",
    "query_per_second",
    "mean_xact_ms",
    "mean_query_ms",
    "mean_wait_ms",
)
"""Keys of the export of databases, in order; figures of the window come last."""


class PoolRow(TypedDict):
    """One pair of database and user."""

    database: str
    user: str
    pool_mode: str
    cl_active: int
    cl_waiting: int
    maxwait_seconds: float
    sv_active: int
    sv_idle: int
    sv_used: int
    sv_tested: int
    sv_login: int
    pool_size: int | None  # of its database; None: not read yet


class PoolDatabaseRow(TypedDict):
    """One database of the pooler; what is of the window is None where counters began anew in it."""

    name: str
    host: str | None  # None: a socket on the pooler's machine
    port: int
    database: str
    force_user: str | None
    pool_mode: str | None  # None: as the whole pooler has it
    pool_size: int
    min_pool_size: int | None
    reserve_pool_size: int | None
    max_connections: int
    current_connections: int
    max_client_connections: int | None
    current_client_connections: int | None
    paused: bool
    disabled: bool
    xact_per_second: float | None
    query_per_second: float | None
    mean_xact_ms: float | None  # None too where there was none
    mean_query_ms: float | None
    mean_wait_ms: float | None  # a transaction


def pools_of(target: Target, window: Window) -> list[PoolRow]:
    """Return the pools, those in which clients have waited longest first."""
    sizes = {row["name"]: row["pool_size"] for row in rows_at("pooler_databases", target, window)}
    rows = [pool_row(row, sizes) for row in rows_at("pooler_pools", target, window)]
    return sorted(
        rows, key=lambda row: (-(row["maxwait_seconds"] or 0), row["database"], row["user"])
    )


def pool_row(row: Reading, sizes: Mapping[str, int]) -> PoolRow:
    """Return one pool."""
    return {
        "database": row["database"],
        "user": row["user"],
        "pool_mode": row["pool_mode"],
        "cl_active": row["cl_active"],
        "cl_waiting": row["cl_waiting"],
        "maxwait_seconds": row["maxwait_seconds"],
        "sv_active": row["sv_active"],
        "sv_idle": row["sv_idle"],
        "sv_used": row["sv_used"],
        "sv_tested": row["sv_tested"],
        "sv_login": row["sv_login"],
        "pool_size": sizes.get(row["database"]),
    }


def databases_of(target: Target, window: Window) -> list[PoolDatabaseRow]:
    """Return the databases by name, with what their counters grew by in the window."""
    grown = {row["database"]: row for row in read_totals("pooler_stats", target.pk, window)}
    began = {row["database"]: row for row in rows_at("pooler_stats", target, window)}
    rows = rows_at("pooler_databases", target, window)
    return [
        database_row(row, grown.get(row["name"]), began.get(row["name"]), window)
        for row in sorted(rows, key=lambda row: row["name"])
    ]


def database_row(
    row: Reading, grown: Reading | None, stats: Reading | None, window: Window
) -> PoolDatabaseRow:
    """Return one database."""
    known = stats is not None and (grown is None or grown["complete"])
    found = grown or {}
    seconds = seconds_of(stats, window) if stats is not None else 1.0

    def rate(name: str) -> float | None:
        return (found.get(name) or 0) / seconds if known else None

    def mean_ms(time: str, count: str) -> float | None:
        counted = found.get(count) or 0
        return (found.get(time) or 0) / counted / 1000 if known and counted else None

    return {
        "name": row["name"],
        "host": row["host"],
        "port": row["port"],
        "database": row["database"],
        "force_user": row["force_user"],
        "pool_mode": row["pool_mode"],
        "pool_size": row["pool_size"],
        "min_pool_size": row["min_pool_size"],
        "reserve_pool_size": row["reserve_pool_size"],
        "max_connections": row["max_connections"],
        "current_connections": row["current_connections"],
        "max_client_connections": row["max_client_connections"],
        "current_client_connections": row["current_client_connections"],
        "paused": row["paused"],
        "disabled": row["disabled"],
        "xact_per_second": rate("xact_count"),
        "query_per_second": rate("query_count"),
        "mean_xact_ms": mean_ms("xact_time_us", "xact_count"),
        "mean_query_ms": mean_ms("query_time_us", "query_count"),
        "mean_wait_ms": mean_ms("wait_time_us", "xact_count"),
    }


def seconds_of(stats: Reading, window: Window) -> float:
    """Return for how long a database was counted within a window."""
    start = max(window.start, stats["since_at"])
    return float(max(1.0, (window.end - start).total_seconds()))


def sum_of(rows: Sequence[PoolRow]) -> dict[str, float]:
    """Return clients, waiting clients, servers in use and the longest wait over all pools."""
    return {
        "clients": sum(row["cl_active"] + row["cl_waiting"] for row in rows),
        "waiting": sum(row["cl_waiting"] for row in rows),
        "servers": sum(row["sv_active"] for row in rows),
        "longest": max((row["maxwait_seconds"] for row in rows), default=0.0),
    }
