"""Findings as lists: open, put aside or resolved, now or at a past moment."""

from __future__ import annotations

from datetime import datetime
from typing import Any

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


def visible(user: access.Person) -> QuerySet[FindingRecord]:
    """Return the findings that opened on targets whose pages a person may see."""
    return listed().filter(target__in=access.visible_targets(user))


def listed() -> QuerySet[FindingRecord]:
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


def described(row: FindingRecord, now: datetime) -> dict[str, Any]:
    """Return a finding by COLUMNS; `open_seconds` is how long it lasted, or lasts."""
    opened = row.opened_at or row.first_seen_at
    same = {name: getattr(row, name) for name in COLUMNS if hasattr(row, name)}
    return {
        **same,
        "target": row.target.name,
        "environment": row.target.environment.name,
        "state": state_of(row, now),
        "severity": Severity(row.severity).name.lower(),
        "worst": Severity(row.worst).name.lower(),
        "object": row.object_name,
        "database": row.database.datname if row.database else "",
        "open_seconds": ((row.resolved_at or now) - opened).total_seconds(),
    }


def earlier(row: FindingRecord) -> QuerySet[FindingRecord]:
    """Return when the same was found of the same object before, the newest first."""
    rows = FindingRecord.objects.filter(
        target=row.target_id,
        advisor=row.advisor,
        object_key=row.object_key,
        resolved_at__isnull=False,
    )
    return rows.exclude(pk=row.pk).order_by("-resolved_at")
