"""A database of a pooler that somebody has paused: its clients wait until it is resumed.

Source: https://www.pgbouncer.org/usage.html#pause-db
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
    "warning_seconds": 1,  # that the first of its clients has waited
    "critical_seconds": 30,
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the databases that are paused."""
    timeout = pooler.query_wait_timeout(samples.of("pooler_config"))
    for database in samples.of("pooler_databases"):
        if database["paused"]:
            pools = [
                row for row in samples.of("pooler_pools") if row["database"] == database["name"]
            ]
            yield finding_of(database, pools, timeout, thresholds)


def finding_of(
    database: Row, pools: list[Row], timeout: float | None, thresholds: Thresholds
) -> Finding:
    """Say how many wait for it to be resumed."""
    name = database["name"]
    waiting = sum(pool["cl_waiting"] or 0 for pool in pools)
    waits = max((pool["maxwait_seconds"] or 0.0 for pool in pools), default=0.0)
    ends = f", and get an error after {words.duration(timeout)}" if timeout else ""
    return Finding(
        advisor="pool_paused",
        severity=severity_of(waits, thresholds, "seconds") or Severity.NOTICE,
        title=f"The database {words.quoted(name)} is paused: {words.count(waiting, 'client')} waiting.",
        why="No statement of its clients reaches the server until somebody resumes it.",
        object_name=name,
        hurt=Hurt(f"its clients wait{ends}", already=True),
        evidence=(
            ("Clients waiting", waiting, "count"),
            ("Longest wait", waits, "seconds"),
        ),
        action="resume_pool",
        arguments={"database": name},
        score=times_of(waits, thresholds["warning_seconds"]),
    )


ADVISOR = Advisor(
    name="pool_paused",
    kind=PGBOUNCER,
    subject="pooler",
    plural="{count} databases are paused.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("pooler_databases", "pooler_pools"),
    beside=("pooler_config",),
)
