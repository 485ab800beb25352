"""Statements that have run for minutes; those that wait for a lock belong to `blocked`.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from monitors import words
from monitors.advisor import (
    TRANSFERS,
    Advisor,
    Evidence,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    backend_name,
    is_client,
    remedy_of,
    seconds_since,
    severity_by,
    times_of,
)
from monitors.rules import stuck

DEFAULTS = {
    "notice_seconds": 60,
    "warning_seconds": 300,
    "critical_seconds": 1800,
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge clients' active statements by the target's clock, maintenance with progress aside."""
    maintained = {row["pid"] for row in samples.of("progress") if row["command"] not in TRANSFERS}
    for row in samples.of("activity"):
        if row["state"] != "active" or row["wait_event_type"] == "Lock" or not is_client(row):
            continue
        if row["application_name"] in stuck.PATIENT_APPLICATIONS or row["pid"] in maintained:
            continue
        seconds = seconds_since(row["query_start"], samples.now)
        severity = severity_by(row, stuck.RUNNING, seconds, thresholds)
        if severity is not None:
            yield finding_of(row, seconds, severity, thresholds)


def finding_of(row: Row, seconds: float, severity: Severity, thresholds: Thresholds) -> Finding:
    """Say which backend runs what for how long."""
    action, arguments = remedy_of(row)
    most = thresholds["critical_seconds"]
    return Finding(
        advisor="long_running",
        severity=severity,
        title=f"{backend_name(row)} has run one statement for {words.duration(seconds)}.",
        why=(
            "It holds its locks and a worker's memory, and rows that died since it began "
            "can't be removed, until it ends; cancel it if nobody waits for its result."
        ),
        object_name=str(row["pid"]),
        hurt=Hurt(
            f"its locks and its snapshot are {words.duration(most)} old",
            at=row["query_start"] + timedelta(seconds=most),
            already=seconds > most,
        ),
        pid=row["pid"],
        backend_start=row["backend_start"],
        evidence=evidence_of(row, seconds),
        action=action,
        arguments=arguments,
        score=times_of(seconds, thresholds["warning_seconds"]),
    )


def evidence_of(row: Row, seconds: float) -> tuple[Evidence, ...]:
    """Return the numbers and names behind the finding."""
    known: list[Evidence] = [
        ("Running for", seconds, "seconds"),
        ("Since", row["query_start"], "at"),
    ]
    names = (("Database", "datname"), ("User", "usename"), ("Waits for", "wait_event"))
    known += [(label, row[column], "") for label, column in names if row[column]]
    return (*known, ("Statement", row["query"] or "", ""))


ADVISOR = Advisor(
    name="long_running",
    subject="activity",
    plural="{count} statements have run for long.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("activity",),
    beside=("progress",),
)
