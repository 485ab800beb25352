"""What is kept of findings, read back: by advisor and object, now or at a past moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from monitors.advisor import (
    Finding,
    Hurt,
    Quiet,
    Severity,
)
from monitors.advisors import ADVISORS
from monitors.models import (
    FindingRecord,
    FindingVersion,
    Target,
)

ORDER = {advisor.name: position for position, advisor in enumerate(ADVISORS)}
LIVE = tuple(advisor for advisor in ADVISORS if not advisor.kept)
KEPT = frozenset(advisor.name for advisor in ADVISORS if advisor.kept)
UNKNOWN = "no date so far: a worker reckons it after the next reading"
Records = dict[tuple[str, str], FindingRecord]
"""What is kept of a target's unresolved findings, by advisor and object."""


def records_of(ids: Sequence[int]) -> dict[int, Records]:
    """Return what is kept of the unresolved findings of some targets."""
    found: dict[int, Records] = {}
    rows = FindingRecord.objects.filter(target_id__in=ids, resolved_at=None, advisor__in=ORDER)
    for row in rows:
        found.setdefault(row.target_id, {})[row.advisor, row.object_key] = row
    return found


def records_at(target: Target, at: datetime) -> Records:
    """Return what was kept of the findings that were open at a past moment."""
    rows = FindingRecord.objects.filter(target=target, opened_at__lte=at, advisor__in=ORDER)
    found = {(row.advisor, row.object_key): row for row in rows.exclude(resolved_at__lte=at)}
    by_id = {row.pk: row for row in found.values() if row.advisor in KEPT}
    later = FindingVersion.objects.filter(finding__in=by_id, at__gt=at)
    for version in later.order_by("finding", "-at"):  # the first after the moment comes last
        version.take_back(by_id[version.finding_id])
    return found


def finding_of(row: FindingRecord) -> Finding:
    """Return what an advisor said when it judged last."""
    return Finding(
        advisor=row.advisor,
        severity=Severity(row.severity),
        title=row.title,
        why=row.why,
        object_name=row.object_name,
        database_id=row.database_id,
        relid=row.relid,
        pid=row.pid,
        evidence=tuple(
            (label, datetime.fromisoformat(value) if unit == "at" else value, unit)
            for label, value, unit in row.evidence
        ),
        action=row.action,
        arguments=row.arguments,
        score=row.score,
        backend_start=row.backend_start,
        part=row.part,
        hurt=hurt_of(row),
        record_id=row.pk,
    )


def hurt_of(row: FindingRecord) -> Hurt:
    """Return when a finding hurts, as a worker reckoned it last."""
    return Hurt(row.hurts or UNKNOWN, at=row.hurts_at, already=row.hurts_already)


def noted(one: Finding, records: Records, now: datetime) -> Finding:
    """Return a finding with its row's id, and why it is quiet if it is.

    When it hurts takes hours of history, which workers alone read.
    """
    row = records.get((one.advisor, one.object_key))
    if row is None:
        return one
    if row.hurts:
        one = replace(one, hurt=hurt_of(row))
    if row.opened_at is None:
        return one
    return replace(one, record_id=row.pk, quiet=quiet_of(row, one.severity, now))


def noted_then(one: Finding, records: Records, at: datetime) -> Finding:
    """Return a finding of a past moment with its row's id, and why it was quiet if it was."""
    row = records.get((one.advisor, one.object_key))
    if row is None:
        return one
    return replace(one, record_id=row.pk, quiet=quiet_of(row, one.severity, at))


def quiet_of(row: FindingRecord, severity: int, now: datetime) -> Quiet | None:
    """Return why a finding doesn't count, None where it does: also what became worse since."""
    if row.quiet_severity is None or severity > row.quiet_severity:
        return None
    if (row.acknowledged_at or row.snoozed_at or now) > now:
        return None
    if row.acknowledged_at is not None:
        by, why = row.acknowledged_by, row.acknowledged_reason
        return Quiet(state="acknowledged", by=by, at=row.acknowledged_at, reason=why)
    if row.snoozed_at is None or row.snoozed_until is None or row.snoozed_until <= now:
        return None
    by, why, until = row.snoozed_by, row.snoozed_reason, row.snoozed_until
    return Quiet(state="snoozed", by=by, at=row.snoozed_at, reason=why, until=until)
