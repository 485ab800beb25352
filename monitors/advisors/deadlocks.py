"""Transactions that deadlocked: the server ended one of each.

Source: https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-DEADLOCKS
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors import words
from monitors.advisor import HOUR, Advisor, Finding, Hurt, Samples, Thresholds, severity_of

DEFAULTS = {
    "notice_per_hour": 0,
    "warning_per_hour": 10,
    "critical_per_hour": 100,
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the deadlocks of each database in the last hour."""
    for row in samples.grown_hour:
        count = row["deadlocks"] or 0
        # Of less than an hour of history as many as there were: none is foretold.
        per_hour = count * HOUR / max(row["seconds"], HOUR)
        severity = severity_of(per_hour, thresholds, "per_hour")
        if severity is None:
            continue
        yield Finding(
            advisor="deadlocks",
            severity=severity,
            title=f"{words.count(count, 'deadlock')} in {row['datname']} within "
            f"{words.duration(row['seconds'])}.",
            why="Of each the server rolled one transaction back, after deadlock_timeout, with "
            '"deadlock detected" (40P01): its log names both statements. Have all transactions lock '
            "rows and tables in one order, keep them short, and repeat those that fail so.",
            object_name=row["datname"],
            hurt=Hurt("transactions fail that have to be repeated", already=True),
            evidence=(
                ("Deadlocks", count, "count"),
                ("Over", row["seconds"], "seconds"),
            ),
            score=per_hour / max(thresholds["warning_per_hour"], 1),
        )


ADVISOR = Advisor(
    name="deadlocks",
    subject="connections",
    plural="Transactions of {count} databases deadlock.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("databases",),
    kept=True,
)
