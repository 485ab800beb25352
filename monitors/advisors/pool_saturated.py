"""A pool whose servers are all in use while clients wait, and whether a larger one would help.

Source: https://www.pgbouncer.org/config.html#pool_size
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monitors import words
from monitors.advisor import (
    Advisor,
    Evidence,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    times_of,
)
from monitors.kinds import PGBOUNCER
from monitors.rules import pooler
from monitors.rules.pooler import Behind, Cause

DEFAULTS = {
    "warning_seconds": 1,  # that the first client in the queue has waited
    "critical_seconds": 5,
    "critical_timeout_pct": 50,  # of query_wait_timeout, where that is sooner
    "idle_pct": 50,  # of a pool's servers idle in transaction: the application holds them
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the pools for which clients wait."""
    databases = {row["name"]: row for row in samples.of("pooler_databases")}
    timeout = pooler.query_wait_timeout(samples.of("pooler_config"))
    for pool in samples.of("pooler_pools"):
        database = databases.get(pool["database"])
        if database is None or database["paused"] or not pooler.is_full(pool, database):
            continue
        behind = samples.behind.get((pool["database"], pool["user"]))
        cause = pooler.cause_of(behind, thresholds["idle_pct"])
        yield finding_of(pool, database, behind, cause, timeout, thresholds)


def finding_of(
    pool: Row,
    database: Row,
    behind: Behind | None,
    cause: Cause,
    timeout: float | None,
    thresholds: Thresholds,
) -> Finding:
    """Say how many wait for how long, why, and what helps."""
    waits, name = pool["maxwait_seconds"] or 0.0, pooler.pool_name(pool)
    return Finding(
        advisor="pool_saturated",
        severity=severity_of(waits, timeout, thresholds),
        title=(
            f"The pool {name} is full: {words.count(pool['cl_waiting'], 'client')}"
            f" {'waits' if pool['cl_waiting'] == 1 else 'wait'} for one of its"
            f" {words.count(pool['sv_active'], 'server connection')}{SHORT[cause]}."
        ),
        why=why(database, behind, cause),
        object_name=name,
        hurt=Hurt(then(timeout), already=True),
        evidence=tuple(evidence(pool, database, behind)),
        score=max(times_of(waits, thresholds["warning_seconds"]), 0.01),
    )


SHORT: Mapping[Cause, str] = {
    "pool": ", and the server has cores to spare",
    "database": ", and the server is busy",
    "transactions": ", most of which idle in transaction",
    "unknown": "",
}


def severity_of(waits: float, timeout: float | None, thresholds: Thresholds) -> Severity:
    """Return how bad a wait is: critical also where clients soon get an error."""
    limits = [thresholds["critical_seconds"]]
    if timeout:
        limits.append(timeout * thresholds["critical_timeout_pct"] / 100)
    if waits > min(limits):
        return Severity.CRITICAL
    return Severity.WARNING if waits > thresholds["warning_seconds"] else Severity.NOTICE


def why(database: Row, behind: Behind | None, cause: Cause) -> str:
    """Return what the wait comes from and what to do about it."""
    place = pooler.place_of(database)
    if behind is None:
        return (
            f"Whether the pool is too small or the server too busy can't be told: the server at {place}"
            " is not registered. Register it, and say how many cores its machine has."
        )
    if cause == "transactions":
        return (
            f"{behind.idle_in_transaction:,} of {behind.backends:,} of its servers idle in an open"
            " transaction: the application holds them while it does something else. Shorten its"
            " transactions; a larger pool would be held as well."
        )
    running = f"{words.count(behind.active, 'session')} {'runs' if behind.active == 1 else 'run'}"
    if behind.cores is None:
        return (
            f"{running} on the server at {place}. Whether that is much can't be told: say how many"
            " cores its machine has, on its target's edit page."
        )
    cores = words.count(behind.cores, "core")
    if cause == "pool":
        return (
            f"{running} on the server at {place}, whose machine has {cores}: raise pool_size"
            f" (now {database['pool_size']}), so that more of those that wait can run."
        )
    return (
        f"{running} on the server at {place}, whose machine has {cores}: a larger pool would slow"
        " all of them down. Make what they run faster, or run less at once."
    )


def then(timeout: float | None) -> str:
    """Return what becomes of those that wait."""
    if not timeout:
        return "clients wait for as long as the pool is full"
    return f"clients wait, and get an error after {words.duration(timeout)} (query_wait_timeout)"


def evidence(pool: Row, database: Row, behind: Behind | None) -> Iterator[Evidence]:
    """Yield the figures that it rests on."""
    figures: list[tuple[str, Any, str]] = [
        ("Clients waiting", pool["cl_waiting"], "count"),
        ("Longest wait", pool["maxwait_seconds"], "seconds"),
        ("Servers in use", pool["sv_active"], "count"),
        ("pool_size", database["pool_size"], "count"),
    ]
    if database["max_connections"]:
        figures.append(("max_db_connections", database["max_connections"], "count"))
    if behind is not None:
        figures += [
            ("Sessions that run on the server", behind.active, "count"),
            ("Its servers idle in transaction", behind.idle_in_transaction, "count"),
            ("Cores", behind.cores, "count"),
        ]
    yield from (one for one in figures if one[1] is not None)


ADVISOR = Advisor(
    name="pool_saturated",
    kind=PGBOUNCER,
    subject="pooler",
    plural="{count} pools are full.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("pooler_pools", "pooler_databases"),
    beside=("pooler_config", "pooler_servers"),
)
