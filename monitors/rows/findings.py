"""Findings as lists: open, put aside or resolved, now or at a past moment."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from django.db.models import F, Q, QuerySet

from monitors.advisor import Severity
from monitors.findings.records import quiet_of
from monitors.models import FindingRecord
from monitors.people import access

STATES = ("open", "acknowledged", "snoozed", "resolved")
COLUMNS = (
    "id",
    "target",
    "environment",
    "advisor",
    "state",
    "severity",
    "worst",
    "object",
    "database",
    "title",
    "why",
    "evidence",
    "action",
    "arguments",
    "hurts_at",
    "hurts_already",
    "hurts",
    "opened_at",
    "seen_at",
    "resolved_at",
    "open_seconds",
    "acknowledged_by",
    "acknowledged_at",
    "acknowledged_reason",
    "snoozed_by",
    "snoozed_at",
    "snoozed_until",
    "snoozed_reason",
    "previous_id",
)
"""Keys of the export and of `manage.py finding list --json`, in order."""


class FindingRow(TypedDict):
    """One finding with what became of it; '' where nobody put it aside, or nothing is said."""

    id: int
    target: str
    environment: str
    advisor: str
    state: str  # one of STATES
    severity: str
    worst: str  # severity that it ever had
    object: str
    database: str  # '': of the whole server
    title: str
    why: str
    evidence: list[list[object]]  # [label, value, unit]
    action: str  # that helps
    arguments: dict[str, str]  # of that
    hurts_at: datetime | None  # of what hurts already: since when
    hurts_already: bool
    hurts: str  # what happens then, or why there is no date
    opened_at: datetime | None  # None: it hasn't lasted long enough so far
    seen_at: datetime
    resolved_at: datetime | None
    open_seconds: float  # that it lasted, or lasts
    acknowledged_by: str
    acknowledged_at: datetime | None
    acknowledged_reason: str
    snoozed_by: str
    snoozed_at: datetime | None
    snoozed_until: datetime | None
    snoozed_reason: str
    previous_id: int | None  # the same of the same object, before


def find_visible(user: access.Person) -> QuerySet[FindingRecord]:
    """Return the findings that opened on targets whose pages a person may see."""
    return find_opened().filter(target__in=access.visible_targets(user))


def find_opened() -> QuerySet[FindingRecord]:
    """Return every finding that opened, the worst of the open ones first, then the newest."""
    rows = FindingRecord.objects.filter(opened_at__isnull=False, target__deleting_at=None)
    return rows.select_related("target__environment", "database").order_by(
        F("resolved_at").desc(nulls_first=True), "-severity", "-opened_at", "-pk"
    )


def in_state(state: str, now: datetime) -> Q:
    """Return the condition for a state, one of STATES, at a moment.

    What is worse than when it was put aside is open, and so is what was snoozed until then.
    """
    unresolved = Q(resolved_at=None) | Q(resolved_at__gt=now)
    not_worse = unresolved & Q(severity__lte=F("quiet_severity"))
    return {
        "open": unresolved
        & (
            Q(quiet_severity=None)
            | Q(severity__gt=F("quiet_severity"))
            | Q(acknowledged_at__gt=now)
            | Q(acknowledged_at=None, snoozed_at__gt=now)
            | Q(acknowledged_at=None, snoozed_until__lte=now)
        ),
        "acknowledged": not_worse & Q(acknowledged_at__lte=now),
        "snoozed": not_worse & Q(acknowledged_at=None, snoozed_at__lte=now, snoozed_until__gt=now),
        "resolved": Q(resolved_at__lte=now),
    }[state]


def state_of(row: FindingRecord, now: datetime) -> str:
    """Return which of STATES a finding is in at a moment, by the rules of `in_state`."""
    if row.resolved_at is not None and row.resolved_at <= now:
        return "resolved"
    quiet = quiet_of(row, row.severity, now)
    return quiet.state if quiet else "open"


def describe(row: FindingRecord, now: datetime) -> FindingRow:
    """Return a finding as it is at a moment."""
    opened = row.opened_at or row.first_seen_at
    return {
        "id": row.pk,
        "target": row.target.name,
        "environment": row.target.environment.name,
        "advisor": row.advisor,
        "state": state_of(row, now),
        "severity": Severity(row.severity).name.lower(),
        "worst": Severity(row.worst).name.lower(),
        "object": row.object_name,
        "database": row.database.datname if row.database else "",
        "title": row.title,
        "why": row.why,
        "evidence": row.evidence,
        "action": row.action,
        "arguments": row.arguments,
        "hurts_at": row.hurts_at,
        "hurts_already": row.hurts_already,
        "hurts": row.hurts,
        "opened_at": row.opened_at,
        "seen_at": row.seen_at,
        "resolved_at": row.resolved_at,
        "open_seconds": ((row.resolved_at or now) - opened).total_seconds(),
        "acknowledged_by": row.acknowledged_by,
        "acknowledged_at": row.acknowledged_at,
        "acknowledged_reason": row.acknowledged_reason,
        "snoozed_by": row.snoozed_by,
        "snoozed_at": row.snoozed_at,
        "snoozed_until": row.snoozed_until,
        "snoozed_reason": row.snoozed_reason,
        "previous_id": row.previous_id,
    }


def find_earlier(row: FindingRecord) -> QuerySet[FindingRecord]:
    """Return when the same was found of the same object before, the newest first."""
    rows = FindingRecord.objects.filter(
        target=row.target_id,
        advisor=row.advisor,
        object_key=row.object_key,
        resolved_at__isnull=False,
    )
    return rows.exclude(pk=row.pk).order_by("-resolved_at")
