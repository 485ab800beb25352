"""A pool for which clients wait though it is not full: its servers don't get in, or not fast enough.

PgBouncer opens one connection of a pool at a time, so a slow login holds up all that wait.

Source: https://www.pgbouncer.org/config.html#server_login_retry
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors import words
from monitors.advisor import (
    Advisor,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    severity_of,
    times_of,
)
from monitors.kinds import PGBOUNCER
from monitors.rules import pooler

DEFAULTS = {
    "warning_seconds": 1,  # that the first client in the queue has waited
    "critical_seconds": 5,
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the pools that are not full and have a server that logs in, or none at all."""
    databases = {row["name"]: row for row in samples.of("pooler_databases")}
    for pool in samples.of("pooler_pools"):
        database = databases.get(pool["database"])
        if database is None or database["paused"] or pooler.is_full(pool, database):
            continue
        opens = bool(pool["sv_login"]) or not pooler.servers_of(pool)
        severity = severity_of(pool["maxwait_seconds"] or 0.0, thresholds, "seconds")
        if pool["cl_waiting"] and opens and severity is not None:
            yield finding_of(pool, database, severity, thresholds)


def finding_of(pool: Row, database: Row, severity: Severity, thresholds: Thresholds) -> Finding:
    """Say where no connection opens, and what to look at."""
    name, waits = pooler.pool_name(pool), pool["maxwait_seconds"]
    place = pooler.place_of(database)
    return Finding(
        advisor="pool_login_slow",
        severity=severity,
        title=(
            f"{words.count(pool['cl_waiting'], 'client')} of the pool {name}"
            f" {'waits' if pool['cl_waiting'] == 1 else 'wait'} while the pooler logs in to its server."
        ),
        why=(
            f"It opens one connection of a pool at a time, and the one to {place} takes long or"
            " fails: see its log, and whether the server answers, has a slot left and takes the"
            " login. Or somebody has paused the whole pooler (RESUME ends that)."
        ),
        object_name=name,
        hurt=Hurt("clients wait until a server lets the pooler in", already=True),
        evidence=(
            ("Clients waiting", pool["cl_waiting"], "count"),
            ("Longest wait", waits, "seconds"),
            ("Servers logging in", pool["sv_login"], "count"),
            ("Servers", pooler.servers_of(pool), "count"),
        ),
        score=times_of(waits, thresholds["warning_seconds"]),
    )


ADVISOR = Advisor(
    name="pool_login_slow",
    kind=PGBOUNCER,
    subject="pooler",
    plural="{count} pools wait for logins.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("pooler_pools", "pooler_databases"),
)
