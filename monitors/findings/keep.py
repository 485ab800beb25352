"""The life of findings: opened, seen again with another severity or text, resolved by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from monitors.advisor import Advisor, Finding, spelled
from monitors.advisors import ADVISORS
from monitors.findings import judge, thresholds
from monitors.findings.aside import ASIDE
from monitors.findings.samples import database_names, samples_for
from monitors.history.freshness import read_at
from monitors.models import FindingRecord, FindingVersion, ProbeState, Snapshot, Target

LONGEST_NAME, LONGEST_KEY = 300, 400  # characters, of their columns
BY_NAME = {advisor.name: advisor for advisor in ADVISORS}
SAID = (
    "database_id",
    "relid",
    "pid",
    "backend_start",
    "part",
    "object_name",
    "title",
    "why",
    "action",
    "arguments",
    "score",
    "hurts_at",
    "hurts_already",
    "hurts",
)
"""Columns that are what the finding says."""
VERSIONED = (*SAID, "severity", "worst", "evidence")
WRITTEN = (*SAID, "severity", "worst", "evidence", "seen_at", "opened_at")


def keep(target_id: int, probes: Iterable[str]) -> None:
    """Judge a target by what was just read, and keep what is found.

    Call it after the snapshots are stored: they stay so if an advisor raises.
    """
    read = set(probes)
    advisors = [advisor for advisor in ADVISORS if advisor.reads[0] in read]
    if advisors:
        keep_of(target_id, advisors)


def keep_of(target_id: int, advisors: Sequence[Advisor]) -> None:
    """Judge by some advisors; open, renew and resolve their rows.

    One keeper a target at a time: what is read after the lock is no older than what
    the one before has written.
    """
    with transaction.atomic():
        target = (
            Target.objects.select_for_update(no_key=True, of=("self",))
            .select_related("environment")
            .filter(pk=target_id, deleting_at=None)
            .first()
        )
        if target is None:
            return
        fleet = thresholds.the_fleet()
        samples = samples_for(target, advisors, fleet)
        worst_first = judge.ranked(judge.judge(target, samples, advisors, fleet))
        found: dict[tuple[str, str], Finding] = {}
        for one in worst_first:
            found.setdefault((one.advisor, one.object_key[:LONGEST_KEY]), one)
        store(target, advisors, found, Reads(target, samples.database_names))


class Reads:
    """When each probe of a target was last read well, now or by a past moment, and where it can't be."""

    def __init__(self, target: Target, watched: Iterable[int], at: datetime | None = None) -> None:
        self.watched = frozenset(watched)
        rows = list(ProbeState.objects.filter(target=target))
        if at is not None:
            for probe in {row.probe for row in rows}:
                read = read_at(target, probe, at)
                for row in rows:
                    if row.probe == probe:
                        row.taken_at = read.get(row.database_id or 0)
        self.states = {(row.probe, row.database_id): row for row in rows}

    def of(self, advisor: Advisor, database_id: int | None) -> list[ProbeState]:
        """Return the states of what an advisor judges, in one database or in all watched."""
        places = {None, database_id} if database_id is not None else {None, *self.watched}
        return [
            row
            for (probe, place), row in self.states.items()
            if probe in advisor.reads and place in places
        ]

    def at(self, advisor: Advisor, database_id: int | None) -> datetime:
        """Return when the oldest of what an advisor judges was read."""
        read = [row.taken_at for row in self.of(advisor, database_id) if row.taken_at]
        return min(read, default=timezone.now())

    def can_not_tell(self, advisor: Advisor, database_id: int | None) -> bool:
        """Tell whether what an advisor judges could not be read the last time.

        Of a database that is no longer watched nothing more is read: its findings are over.
        """
        if database_id is not None and database_id not in self.watched:
            return False
        fine = {"", Snapshot.State.OK}
        return any(row.state not in fine for row in self.of(advisor, database_id))


def store(
    target: Target,
    advisors: Sequence[Advisor],
    found: dict[tuple[str, str], Finding],
    reads: Reads,
) -> None:
    """Write what was found: new rows, renewed ones, and those that are over.

    What was found in a database that is gone, or watched no more, is over for every advisor:
    nothing is read there again after which one would judge.
    """
    judged = Q(advisor__in=[advisor.name for advisor in advisors])
    left = Q(advisor__in=BY_NAME, database__isnull=False) & ~Q(database__in=reads.watched)
    rows = FindingRecord.objects.filter(judged | left, target=target, resolved_at=None)
    known = {(row.advisor, row.object_key): row for row in rows.select_related("database")}
    renewed, versions = [], []
    for key in found.keys() & known.keys():
        row, before, now = known[key], version_of(known[key]), timezone.now()
        renew(row, found[key], reads.at(BY_NAME[key[0]], found[key].database_id))
        renewed.append(row)
        if says_more(before, row):
            versions.append(FindingVersion(finding=row, at=now, columns=before))
    FindingVersion.objects.bulk_create(versions, batch_size=500)
    FindingRecord.objects.bulk_update(renewed, WRITTEN, batch_size=500)
    new = [key for key in found if key not in known]
    former = former_of(target, new)
    FindingRecord.objects.bulk_create(
        [made(target, key, found[key], reads, former.get(key)) for key in new],
        ignore_conflicts=True,
        batch_size=500,
    )
    over = [
        row
        for key, row in known.items()
        if key not in found and not reads.can_not_tell(BY_NAME[row.advisor], row.database_id)
    ]
    end(over, reads)


def renew(row: FindingRecord, one: Finding, read_at: datetime) -> None:
    """Write what an advisor says now into a row; it opens once it has lasted long enough.

    Of what hurts already, since when an advisor can't know: since it was first seen to.
    """
    since = row.hurts_at if row.hurts_already else None
    for name in SAID:
        setattr(row, name, getattr(one, name))
    if one.hurts_already and one.hurts_at is None:
        row.hurts_at = since or read_at
    row.object_name = one.object_name[:LONGEST_NAME]
    row.arguments = dict(one.arguments)
    row.severity = int(one.severity)
    row.worst = max(row.worst, row.severity)
    row.evidence = written(one)
    row.seen_at = max(row.seen_at, read_at)
    lasted = (row.seen_at - row.first_seen_at).total_seconds()
    if row.opened_at is None and lasted >= BY_NAME[one.advisor].opens_after:
        row.opened_at = row.seen_at


def version_of(row: FindingRecord) -> dict[str, Any]:
    """Return what a finding says now, as JSON keeps it."""
    columns = {name: getattr(row, name) for name in VERSIONED}
    return {
        name: spelled(value) if isinstance(value, datetime) else value
        for name, value in columns.items()
    }


def says_more(before: dict[str, Any], row: FindingRecord) -> bool:
    """Tell whether a version must be kept: samples don't tell what it said, or how bad it was."""
    if before["severity"] != row.severity:
        return True
    after = version_of(row)
    return BY_NAME[row.advisor].kept and any(before[name] != after[name] for name in VERSIONED)


def as_then(rows: Iterable[FindingRecord], at: datetime) -> list[FindingRecord]:
    """Return findings, in memory as they were at a past moment: they must not be saved any more.

    What samples tell is judged again; of what is older than the samples, as each ended.
    """
    found = list(rows)
    there = [row for row in found if row.resolved_at is None or row.resolved_at > at]
    versions: dict[int, FindingVersion] = {}
    later = FindingVersion.objects.filter(finding__in=there, at__gt=at).order_by("finding", "-at")
    for version in later:
        versions[version.finding_id] = version  # the first after the moment comes last
    targets: dict[int, tuple[dict[tuple[str, str], Finding], Reads]] = {}
    for row in there:
        if row.target_id not in targets:
            names = database_names([row.target_id], at)[row.target_id]
            live = {(one.advisor, one.object_key): one for one in judge.find(row.target, at)}
            targets[row.target_id] = live, Reads(row.target, names, at)
        live, reads = targets[row.target_id]
        take_back(row, versions.get(row.pk), live.get((row.advisor, row.object_key)), reads, at)
    return found


def take_back(
    row: FindingRecord,
    version: FindingVersion | None,
    one: Finding | None,
    reads: Reads,
    at: datetime,
) -> None:
    """Bring an open finding back to a moment, by what it said and what the samples say of it."""
    if version is not None:
        version.take_back(row)
    if one is not None and not BY_NAME[row.advisor].kept:
        renew(row, one, row.first_seen_at)
    row.seen_at = max(reads.at(BY_NAME[row.advisor], row.database_id), row.first_seen_at)
    row.resolved_at = None
    for kind in ("acknowledged", "snoozed"):
        if (getattr(row, f"{kind}_at") or at) > at:
            for name, value in ASIDE.items():
                if name.startswith(kind):
                    setattr(row, name, value)


def made(
    target: Target, key: tuple[str, str], one: Finding, reads: Reads, former: FindingRecord | None
) -> FindingRecord:
    """Return a new row; a snooze outlasts the finding that it was meant for."""
    read_at = reads.at(BY_NAME[one.advisor], one.database_id)
    row = FindingRecord(
        target=target,
        advisor=one.advisor,
        object_key=key[1],
        worst=int(one.severity),
        first_seen_at=read_at,
        seen_at=read_at,
        previous=former,
    )
    renew(row, one, read_at)
    if former and former.snoozed_until and former.snoozed_until > timezone.now():
        for name in ("snoozed_at", "snoozed_by", "snoozed_reason", "snoozed_until"):
            setattr(row, name, getattr(former, name))
        row.quiet_severity = former.quiet_severity
    return row


def former_of(
    target: Target, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], FindingRecord]:
    """Return the last resolved row of each advisor and object."""
    if not keys:
        return {}
    rows = FindingRecord.objects.filter(
        target=target,
        resolved_at__isnull=False,
        advisor__in={advisor for advisor, _ in keys},
        object_key__in={key for _, key in keys},
    )
    return {(row.advisor, row.object_key): row for row in rows.order_by("resolved_at")}


def end(rows: Sequence[FindingRecord], reads: Reads) -> None:
    """Resolve rows; those that never lasted long enough to open leave no trace.

    What was found in a dropped database ends with the rest of it, when it was seen to be gone.
    """
    FindingRecord.objects.filter(pk__in=[row.pk for row in rows if row.opened_at is None]).delete()
    opened = [row for row in rows if row.opened_at is not None]
    for row in opened:
        gone_at = row.database.gone_at if row.database else None
        over_at = gone_at or reads.at(BY_NAME[row.advisor], row.database_id)
        row.resolved_at = max(over_at, row.seen_at)
    FindingRecord.objects.bulk_update(opened, ["resolved_at"], batch_size=500)


def written(one: Finding) -> list[list[Any]]:
    """Return a finding's evidence as JSON keeps it."""
    return [
        [label, spelled(value) if isinstance(value, datetime) else value, unit]
        for label, value, unit in one.evidence
    ]
