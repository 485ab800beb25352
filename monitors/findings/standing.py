"""How well a target is read: reached or not, since when and why, and how old its figures are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitors import words
from monitors.history.freshness import STALE_INTERVALS, interval_of
from monitors.models import Lease, ProbeState, Snapshot, Target
from monitors.probes import PROBES

NAMED = 3  # databases in a sentence
FAST = frozenset(probe.name for probe in PROBES if probe.fast)


@dataclass(frozen=True)
class Apart:
    """That some databases are not read while others are; `level` is warning or notice."""

    level: str
    text: str


@dataclass(frozen=True)
class Standing:
    """What keeps a page from showing the present.

    `level` is unknown, warning or critical, '' where all is read in time; then `text`
    is empty. `read_at` is when the oldest of the figures was read, None before the first
    good snapshot. `apart` tells of databases that cost themselves alone: the rest is read,
    and their age is not that of the page.
    """

    level: str
    text: str
    read_at: datetime | None
    apart: Apart | None = None


def standing_of(
    target: Target, probe_names: Sequence[str], now: datetime, database_id: int | None = None
) -> Standing:
    """Return how some of a target's probes stand: one query, a second where it is down.

    With `database_id`, for a page about that database alone: others are no matter.
    """
    rows = [
        row
        for row in ProbeState.objects.filter(target=target).select_related("database")
        if not row.database or (row.database.included and row.database.gone_at is None)
    ]
    mine = [row for row in rows if row.probe in probe_names]
    if database_id is not None:  # nothing is read of one that is gone: it is as old as the rest
        mine = [row for row in mine if row.database_id in {None, database_id}] or mine
    apart = those_apart(mine)
    mine = [row for row in mine if row not in apart]
    read = [row.taken_at for row in mine if row.taken_at]
    read_at = min(read) if read else None
    down = [row for row in rows if row.probe in FAST and row.state == Snapshot.State.UNREACHABLE]
    stopped = stopped_text(target, read_at, now)
    if stopped is not None:
        return Standing(*stopped, read_at)
    if down:
        return Standing("critical", down_text(target, down[0], read_at, now), read_at)
    failing = [row for row in mine if row.state not in {"", Snapshot.State.OK}]
    if failing:
        return Standing("warning", failing_text(failing, now), read_at)
    waiting = [row for row in mine if row.taken_at is None]
    if not mine or waiting:
        return Standing("unknown", waiting_text(waiting, now), read_at)
    if any(is_stale(target, row, now) for row in mine):
        return Standing("warning", stale_text(read_at, now), read_at)
    return Standing("", "", read_at, apart_of(apart, now) if database_id is None else None)


def those_apart(rows: Sequence[ProbeState]) -> list[ProbeState]:
    """Return the reads of databases that fail, or wait for their first turn, while others go well."""
    well = {row.probe for row in rows if is_well(row)}
    return [row for row in rows if row.database and row.probe in well and not is_well(row)]


def is_well(row: ProbeState) -> bool:
    """Tell whether the last attempt of a read went well."""
    return row.taken_at is not None and row.state in {"", Snapshot.State.OK}


def apart_of(rows: Sequence[ProbeState], now: datetime) -> Apart | None:
    """Return what is to be said of databases that are not read while others are; None: nothing."""
    failing = [row for row in rows if row.state not in {"", Snapshot.State.OK}]
    if failing:
        return Apart("warning", failing_text(failing, now))
    if not rows:
        return None
    subject = f"{subject_of(rows[0])} of {named(rows)}"
    return Apart("notice", f"{subject}: {lowered(waiting_text(rows, now))}")


def stopped_text(target: Target, read_at: datetime | None, now: datetime) -> tuple[str, str] | None:
    """Return the level and sentence of a target that nothing is meant to read, else None."""
    if target.deleting_at is not None:
        return "unknown", f"{target.name} is being removed with its history."
    if target.frozen_reason:
        return "critical", target.frozen_reason
    if not target.enabled:
        seen = f" What you see is {ago(read_at, now)} old." if read_at else ""
        return "unknown", f"{target.name} is disabled: nothing reads it.{seen}"
    return None


def down_text(target: Target, row: ProbeState, read_at: datetime | None, now: datetime) -> str:
    """Return since when a target can't be reached, why, and when it is tried again."""
    since = ago(row.failing_since, now)
    state = f"can't be reached for {since}" if read_at else "has never been reached"
    due = Lease.objects.filter(target=target, kind=Lease.Kind.FAST).values_list("due_at", flat=True)
    left = max(((moment - now).total_seconds() for moment in due), default=0)
    again = f" It is tried again in {words.duration(int(left))}." if left >= 1 else ""
    return f"{target.name} {state}: {lowered(row.reason)}{again}"


def failing_text(rows: Sequence[ProbeState], now: datetime) -> str:
    """Return which reads fail, for how long and why: the longest first.

    Of a database also how old its figures are: those of others may be younger.
    """
    worst = min(rows, key=lambda row: row.failing_since or now)
    where = f" of {worst.database.datname}" if worst.database else ""
    old = f" (what is known of it is {ago(worst.taken_at, now)} old)" if worst.taken_at else ""
    old = old if worst.database else ""
    verb = "may not be" if worst.state == Snapshot.State.DENIED else "could not be"
    more = more_text([row for row in rows if row is not worst])
    since = ago(worst.failing_since, now)
    return f"{subject_of(worst)}{where} {verb} read for {since}{old}: {lowered(worst.reason)}{more}"


def subject_of(row: ProbeState) -> str:
    """Return what a probe reads, as the first word of a sentence: Replication slots."""
    return row.probe.replace("_", " ").capitalize()


def more_text(others: Sequence[ProbeState]) -> str:
    """Return that other reads fail too, and of which databases; '' where none does."""
    if not others:
        return ""
    fail = "fails" if len(others) == 1 else "fail"
    of = f", of {named(others)}" if all(row.database for row in others) else ""
    return f" {words.count(len(others), 'other read')} {fail} too{of}."


def named(rows: Sequence[ProbeState]) -> str:
    """Return the names of the reads' databases, the first three of many: `inv1, inv2 and 7 others`."""
    names = sorted({row.database.datname for row in rows if row.database})
    left = len(names) - NAMED
    if left > 1:
        return f"{', '.join(names[:NAMED])} and {left:,} others"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def waiting_text(rows: Sequence[ProbeState], now: datetime) -> str:
    """Return when the first snapshot is due."""
    left = max(((row.due_at - now).total_seconds() for row in rows), default=0)
    return (
        f"First snapshot in {words.age(left)}." if left >= 1 else "The first snapshot is due now."
    )


def stale_text(read_at: datetime | None, now: datetime) -> str:
    """Return that figures are old although no read has failed: nobody reads."""
    return (
        f"Last read {ago(read_at, now)} ago, and nothing was tried since: "
        "check that Howdah's beat and workers run."
    )


def is_stale(target: Target, row: ProbeState, now: datetime) -> bool:
    """Tell whether a probe has had no good snapshot for three of its intervals."""
    limit = timedelta(seconds=STALE_INTERVALS * interval_of(target, row.probe))
    return row.taken_at is not None and row.taken_at < now - limit


def ago(moment: datetime | None, now: datetime) -> str:
    """Return the time since a moment in words."""
    return words.age(max((now - moment).total_seconds(), 0) if moment else 0)


def lowered(reason: str) -> str:
    """Return a reason as the second half of a sentence."""
    return words.second_half(words.ended(reason.strip() or "no reason was given"))
