"""Clients that open a connection for each request, and who they are.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW
"""

from __future__ import annotations

from collections.abc import Iterator

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
from monitors.rules import connections, pooling
from monitors.rules.connections import Churn, Guilty

DEFAULTS = {
    "warning_sessions": connections.CHURN_SESSIONS,  # new ones a second
    "critical_sessions": 20,
    "max_transactions": connections.CHURN_TRANSACTIONS,  # of each new session: with fewer nobody reuses it
    "max_lifetime_seconds": 10,  # or it ends sooner
    "critical_pct": 80,  # of the usable connections are taken meanwhile
    "min_seconds": 540,  # of history: ten minutes, less the time between two readings
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge each database by what its counters grew by in ten minutes."""
    for row in samples.grown:
        churn = connections.churn_of(row, row["seconds"])
        if churn is None or row["seconds"] < thresholds["min_seconds"]:
            continue
        severity = severity_of(samples, churn, thresholds)
        if severity is not None:
            yield finding_of(samples, row, churn, severity, thresholds)


def severity_of(samples: Samples, churn: Churn, thresholds: Thresholds) -> Severity | None:
    """Return how bad it is that sessions begin and end so often, None where they don't."""
    if churn.per_second < thresholds["warning_sessions"] or not churn.is_per_request(
        thresholds["max_transactions"], thresholds["max_lifetime_seconds"]
    ):
        return None
    limit = connections.usable(samples.max_connections, samples.reserved_connections)
    used = connections.taken(samples.of("sessions"))
    crowded = bool(limit) and 100 * used / (limit or 1) > thresholds["critical_pct"]
    if crowded or churn.per_second >= thresholds["critical_sessions"]:
        return Severity.CRITICAL
    return Severity.WARNING


def finding_of(
    samples: Samples, row: Row, churn: Churn, severity: Severity, thresholds: Thresholds
) -> Finding:
    """Name the database, who connects to it, and what its framework calls the remedy."""
    guilty = connections.guilty_of(samples.newcomers, row["datname"])
    each = f", {words.trim(churn.reuse)} transactions each" if churn.reuse is not None else ""
    return Finding(
        advisor="connection_churn",
        severity=severity,
        title=f"{row['datname']} gets {words.trim(churn.per_second)} new sessions a second{each}"
        f"{blame(guilty)}.",
        why="Each of them costs the server a new process and a login: milliseconds, where a kept "
        "connection would answer in a fraction of one. "
        f"{pooling.advice_for(guilty.application_name if guilty else '')}",
        object_name=row["datname"],
        hurt=Hurt("each request waits for a new connection", already=True),
        evidence=tuple(evidence_of(row, churn)),
        score=times_of(churn.per_second, thresholds["warning_sessions"]),
    )


def blame(guilty: Guilty | None) -> str:
    """Return who connects, as the end of a sentence; '' where no reading caught one."""
    if guilty is None:
        return ""
    most = "all" if guilty.sessions == guilty.of else "most"
    return f"; {most} that were seen are of {guilty.name}, from {guilty.place}"


def evidence_of(row: Row, churn: Churn) -> Iterator[Evidence]:
    """Yield the churn, and how sessions ended that did not end well."""
    yield ("New sessions a second", words.trim(churn.per_second), "")
    if churn.reuse is not None:
        yield ("Transactions each, at most", words.trim(churn.reuse), "")
    if churn.lifetime is not None:
        yield ("Lifetime, at most", round(churn.lifetime, 1), "seconds")
    for how in ("abandoned", "fatal", "killed"):
        if row[f"sessions_{how}"]:
            yield (f"Ended {how}", row[f"sessions_{how}"], "count")


ADVISOR = Advisor(
    name="connection_churn",
    subject="connections",
    plural="Clients of {count} databases connect again and again.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("databases",),
    beside=("sessions",),
    kept=True,
)
