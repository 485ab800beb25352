"""What PgBouncer's figures mean: whether a pool is full and why, and which versions are safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from monitors import words

SAFE_VERSION = 12601
"""1.26.1; older ones have weaknesses that are public."""
Cause = Literal["pool", "database", "transactions", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Behind:
    """The registered server behind a database of a pooler, as its activity was read last."""

    cores: int | None  # None: nobody has said how many
    active: int  # client sessions of the whole server that run something: all use its cores
    backends: int  # of the pool in question, those that a client has
    idle_in_transaction: int  # of these


def outdated(version: int | None) -> str:
    """Return that a version (11800) should be updated, '' where it need not be or is not known."""
    if version is None or version >= SAFE_VERSION:
        return ""
    return (
        f"PgBouncer {spelled(version)} has weaknesses that are known: update to"
        f" {spelled(SAFE_VERSION)} or newer."
    )


def spelled(version: int) -> str:
    """Return 12601 as 1.26.1."""
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"


def servers_of(pool: Mapping[str, Any]) -> int:
    """Return how many connections to servers a pool has, in whatever state."""
    states = ("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login")
    return sum(pool[name] or 0 for name in states)


def is_full(pool: Mapping[str, Any], database: Mapping[str, Any] | None) -> bool:
    """Tell whether clients wait for a pool whose servers are all in use.

    Full is what has as many as pool_size allows, or whose database has as many as
    max_connections does (0: no limit). Without its database nothing is told.
    """
    if not pool["cl_waiting"] or pool["sv_idle"] or database is None:
        return False
    size, most = database["pool_size"], database["max_connections"]
    at_most = bool(most) and (database["current_connections"] or 0) >= most
    return at_most or (size is not None and pool["sv_active"] >= size > 0)


def cause_of(behind: Behind | None, idle_pct: float) -> Cause:
    """Return why a full pool is full.

    `transactions`: the application holds most of them open without running anything;
    `database`: as many sessions run on the server as it has cores, or more; `pool`: fewer do.
    """
    if behind is None:
        return "unknown"
    if behind.backends and 100 * behind.idle_in_transaction / behind.backends >= idle_pct:
        return "transactions"
    if behind.cores is None:
        return "unknown"
    return "pool" if behind.active < behind.cores else "database"


def pool_name(pool: Mapping[str, Any]) -> str:
    """Return a pool as `database of user`."""
    return f"{words.quoted(pool['database'])} of {words.quoted(pool['user'])}"


def place_of(database: Mapping[str, Any]) -> str:
    """Return where a pooler's database is: host:port, or a socket of its own machine."""
    host, port = database["host"], database["port"]
    return f"{host}:{port}" if host else f"port {port} of the pooler's own machine"


def number_of(config: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """Return a setting as a number, None where it is not known or none."""
    found = next((row["setting"] for row in config if row["name"] == name), None)
    try:
        return float(found) if found else None
    except ValueError:
        return None


def query_wait_timeout(config: Iterable[Mapping[str, Any]]) -> float | None:
    """Return after how many seconds a client that waits gets an error; None: never, or not known."""
    return number_of(config, "query_wait_timeout") or None
