"""Prepared transactions that nobody commits: they keep their locks, over a restart too.

Source: https://www.postgresql.org/docs/current/sql-prepare-transaction.html
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
    seconds_since,
    severity_of,
    times_of,
)
from monitors.rules import horizon
from monitors.rules.horizon import PREPARED

DEFAULTS = {
    "notice_seconds": 300,  # since it was prepared
    "warning_seconds": 3600,  # or sooner, where a backend waits for its locks
    "critical_seconds": 86400,
}
NOBODY = 0  # what pg_blocking_pids() says in place of a pid


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge each prepared transaction by its age, and by who waits in its database."""
    for row in samples.of("horizon"):
        if row["kind"] != PREPARED or row["since"] is None:
            continue
        seconds = seconds_since(row["since"], samples.now)
        waiting = waiting_in(samples, row["datname"])
        severity = severity_of(seconds, thresholds, "seconds")
        if severity is not None and waiting:
            severity = max(severity, Severity.WARNING)
        if severity is not None:
            yield finding_of(row, seconds, waiting, severity, thresholds)


def waiting_in(samples: Samples, datname: str) -> int:
    """Return how many backends of a database wait for a prepared transaction's locks."""
    return sum(
        row["datname"] == datname and NOBODY in (row["blocked_by"] or ())
        for row in samples.of("activity")
    )


def finding_of(
    row: Row, seconds: float, waiting: int, severity: Severity, thresholds: Thresholds
) -> Finding:
    """Say for how long it has been left, and the statements that end it."""
    gid = horizon.literal(row["holder"])
    held = f"; {words.count(waiting, 'backend')} there wait for such locks" if waiting else ""
    return Finding(
        advisor="forgotten_prepared_transaction",
        severity=severity,
        title=f"Prepared transaction {gid} in {row['datname']} was left {words.duration(seconds)} "
        f"ago{held}.",
        why="It keeps all its locks, and dead rows from being removed, until somebody ends it, and "
        f"a restart does not. Ask {row['who']}, whose it is; then run ROLLBACK PREPARED {gid}; or "
        f"COMMIT PREPARED {gid}; in {row['datname']}.",
        object_name=row["holder"],
        hurt=Hurt("its locks are held and dead rows stay", at=row["since"], already=True),
        evidence=(
            ("Prepared", row["since"], "at"),
            ("Owner", row["who"] or "", ""),
            ("Transactions since", row["xmin_age"], "count"),
        ),
        score=times_of(seconds, thresholds["notice_seconds"]),
    )


ADVISOR = Advisor(
    name="forgotten_prepared_transaction",
    subject="vacuum",
    plural="{count} prepared transactions were left.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("horizon",),
    beside=("activity",),
)
