"""Findings that people put aside: acknowledged or snoozed with a reason, and opened again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from monitors.audit import entries
from monitors.findings.records import quiet_of
from monitors.models import FindingRecord

LONGEST_REASON = 500  # characters, of the column
SPANS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
SPAN = re.compile(r"([0-9]{1,4})\s*([mhdw])")
LONGEST = timedelta(days=366)
ASIDE: dict[str, Any] = {
    "acknowledged_at": None,
    "acknowledged_by": "",
    "acknowledged_reason": "",
    "snoozed_at": None,
    "snoozed_by": "",
    "snoozed_reason": "",
    "snoozed_until": None,
    "quiet_severity": None,
}
"""Columns that people write, as they are in a finding that counts."""


def acknowledge(who: str, source: str, row: FindingRecord, reason: str) -> None:
    """Say that somebody knows: it no longer counts until it resolves or gets worse.

    Raises ValidationError without a reason and for what is resolved.
    """
    with locked(row) as now:
        why = reason_of(reason)
        put(row, acknowledged_at=now, acknowledged_by=who, acknowledged_reason=why)
        tell("finding.acknowledge", who, source, row, reason=why)


def snooze(who: str, source: str, row: FindingRecord, until: datetime, reason: str) -> None:
    """Put a finding off until a moment, unless it gets worse before.

    Raises ValidationError without a reason, for what is resolved, and for a moment that is
    over or more than a year ahead.
    """
    with locked(row) as now:
        why = reason_of(reason)
        if not now < until <= now + LONGEST:
            message = "Choose a moment within the next year."
            raise ValidationError({"until": message})
        put(row, snoozed_at=now, snoozed_by=who, snoozed_reason=why, snoozed_until=until)
        tell("finding.snooze", who, source, row, reason=why, until=until.isoformat())


def reopen(who: str, source: str, row: FindingRecord) -> None:
    """Have a finding count again; raises ValidationError for what does, or is resolved."""
    with locked(row) as now:
        if quiet_of(row, row.severity, now) is None:
            message = f"Finding {row.pk} is open already."
            raise ValidationError(message)
        put(row)
        tell("finding.reopen", who, source, row)


@contextmanager
def locked(row: FindingRecord) -> Iterator[datetime]:
    """Lock and renew a row for a change; give the moment. Raises ValidationError if resolved."""
    with transaction.atomic():
        FindingRecord.objects.select_for_update(of=("self",)).get(pk=row.pk)
        row.refresh_from_db()
        if row.resolved_at is not None:
            message = f"Finding {row.pk} is resolved: there is nothing left to put aside."
            raise ValidationError(message)
        yield timezone.now()


def put(row: FindingRecord, **columns: Any) -> None:
    """Write what a person decided; everything that was decided before is over."""
    severity = row.severity if columns else None
    for name, value in {**ASIDE, "quiet_severity": severity, **columns}.items():
        setattr(row, name, value)
    row.save(update_fields=list(ASIDE))


def tell(what: str, who: str, source: str, row: FindingRecord, **detail: Any) -> None:
    """Write it down in the audit."""
    entries.add(
        what,
        who,
        source,
        target_name=row.target.name,
        object_name=row.object_name,
        finding=row.pk,
        advisor=row.advisor,
        title=row.title,
        **detail,
    )


def reason_of(text: str) -> str:
    """Return a reason; raises ValidationError for none and for a long one."""
    reason = " ".join(text.split())
    if not reason or len(reason) > LONGEST_REASON:
        message = f"Give a reason of at most {LONGEST_REASON} characters."
        raise ValidationError({"reason": message})
    return reason


def until_of(text: str, now: datetime) -> datetime:
    """Read `30m`, `2h`, `3d`, `1w` or a time in ISO 8601, UTC where it names no zone.

    Raises ValidationError for anything else.
    """
    words = text.strip()
    if span := SPAN.fullmatch(words):
        return now + timedelta(seconds=int(span[1]) * SPANS[span[2]])
    try:
        moment = datetime.fromisoformat(words)
    except ValueError:
        message = f"{words[:40]!r} is neither 30m, 2h, 3d or 1w nor a time as 2026-03-01T12:30Z."
        raise ValidationError({"until": message}) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
