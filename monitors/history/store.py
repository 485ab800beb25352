"""Keeps what a probe read: compares with the last snapshot, writes what changed.

One snapshot of one probe and database is one transaction, under a row lock on
its `ProbeState`: rows, `latest`, the state and the `Snapshot` row appear
together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from monitors.history import partitions, settle
from monitors.history.compare import compare, judge, relabelled
from monitors.history.reading import Comparison, Key, Place, Reading, Rows
from monitors.history.write import load_latest, mark_reset, mark_rewrites, note_unrolled, write
from monitors.models import ProbeState, Snapshot
from monitors.models.history import Change
from monitors.probe import Probe, Row

MAX_REMEMBERED_ROWS = 200_000

Refine = Callable[[list[Key]], dict[Key, Row]]
"""Given keys in the order of their urgency, returns the refined gauges of some."""
Note = Callable[[Place, Comparison, datetime, datetime | None], None]
"""Told a place, what changed there, when it was read and when it was read before (None: never)."""

Observe = Callable[[Sequence[tuple[Change, Row | None, Row]], Sequence[Key], datetime | None], None]


class Memory:
    """The last snapshot's rows of this process, by place; count only while their sequence is current.

    Whoever takes rows may change them: they are gone from here until the
    snapshot is stored, so that one that fails leaves nothing half changed.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int, int], tuple[int, Rows]] = {}

    def take(self, place: Place, sequence: int) -> Rows | None:
        """Return the rows of a snapshot, None unless it is the current one."""
        kept = self._kept.pop(self._name(place), None)
        return kept[1] if kept and kept[0] == sequence else None

    def keep(self, place: Place, sequence: int, rows: Rows) -> None:
        """Remember rows; the longest untouched make room."""
        self._kept[self._name(place)] = (sequence, rows)
        while len(self._kept) > 1 and self._size() > MAX_REMEMBERED_ROWS:
            self._kept.pop(next(iter(self._kept)), None)

    def _size(self) -> int:
        return sum(len(rows) for _, rows in list(self._kept.values()))

    @staticmethod
    def _name(place: Place) -> tuple[str, int, int]:
        return place.history.probe.name, place.target_id, place.database_id


MEMORY = Memory()


OVERTAKEN = "Another snapshot was stored while this one was read."
TAKEN_OVER = "Another worker took this target over while this one read it."


def store(  # noqa: PLR0913 - one keyword a column of the snapshot
    place: Place,
    reading: Reading,
    *,
    taken_at: datetime,
    interval_seconds: float,
    next_due: datetime,
    epoch: str,
    holds: Callable[[], bool] = lambda: True,
    refine: Refine | None = None,
    measure: settle.Measure | None = None,
    note: Note | None = None,
    observe: Observe | None = None,
) -> Snapshot:
    """Keep one reading and return its `Snapshot` row; raises nothing of its own.

    A reading that another one overtook, or whose worker has lost its lease (`holds`
    is asked inside the transaction), is `superseded`: of it nothing but that row is kept.
    `refine` is asked for the refined gauges of what changed and of what has
    none yet; it runs inside the transaction, on the target's connection, and so
    does `measure`. `note` is told what changed, inside the transaction too.
    `observe` is told what changed once all is kept: changes, keys that are gone, and
    when the snapshot before was taken (the target's clock).
    """
    partitions.ensure_for(place.history.samples, taken_at)
    partitions.ensure_for(Snapshot, taken_at)
    with transaction.atomic():
        state = lock_state(place)
        late = why_late(state, reading, holds)
        if late:
            return keep_superseded(place, late, taken_at, interval_seconds)
        previous = MEMORY.take(place, state.sequence)
        if previous is None:
            previous = load_latest(place)
        verdict = judge(place.history.probe, state, reading, epoch)
        rows = carried(place.history.probe, previous, reading.rows)
        comparison = compare(place.history.sample, previous, rows, verdict)
        if refine is not None:
            hour_began = state.taken_at is None or hour_of(state.taken_at) != hour_of(taken_at)
            apply_refined(place.history.probe, comparison, refine, hour_began=hour_began)
        if place.history.probe.measuring is not None:
            rewritten = settle.settle(
                comparison,
                place.history.sample,
                place.history.probe.measuring,
                reading.target_at,
                measure,
            )
            mark_rewrites(place, taken_at, rewritten)
        before_at = state.target_at
        elapsed = seconds_between(before_at, reading.target_at)
        stored = write(place, state, comparison, taken_at, reading.target_at, elapsed)
        if note is not None:
            note(place, comparison, taken_at, state.taken_at)
        if verdict.reset and not verdict.new_epoch:  # a crash has its own mark
            mark_reset(place, taken_at, reading.reset_at, state.reset_at)
        state.sequence += 1
        state.taken_at, state.target_at = taken_at, reading.target_at
        state.ended_at = reading.ended_at or reading.target_at
        state.state, state.reason, state.failing_since = Snapshot.State.OK, "", None
        state.rows, state.epoch, state.due_at = len(reading.rows), epoch, next_due
        state.reset_at, state.reset_counter = reading.reset_at, reading.reset_counter
        state.save()
        snapshot = Snapshot.objects.create(
            target_id=place.target_id,
            database_id=place.database_id,
            probe=place.history.probe.name,
            taken_at=taken_at,
            target_at=reading.target_at,
            state=Snapshot.State.OK,
            interval_seconds=interval_seconds,
            rows=len(reading.rows),
            stored=stored,
            evicted=verdict.evicted,
            client_ms=reading.client_ms,
            target_ms=reading.target_ms,
        )
    MEMORY.keep(place, state.sequence, comparison.rows)
    if observe is not None:
        observe(comparison.changed, comparison.gone, before_at)
    return snapshot


def carried(probe: Probe, previous: Rows, rows: Sequence[Row]) -> Sequence[Row]:
    """Return rows as a probe keeps them, beside those of the snapshot before."""
    if probe.carry is None:
        return rows
    keys, carry, none = len(probe.sample.key), probe.carry, (None, ())
    return [carry(previous.get(row[:keys], none)[0], row) for row in rows]


def sequence_of(place: Place) -> int:
    """Return the number of a place's last snapshot, 0 before the first."""
    states = ProbeState.objects.filter(**name_of(place)).values_list("sequence", flat=True)
    return states.first() or 0


def why_late(state: ProbeState, reading: Reading, holds: Callable[[], bool]) -> str:
    """Return why a reading may not be kept any more, '' where it may.

    A reading that began before what is stored was stored may be older than that, and
    counters that go back would count twice. Clocks may be set back, numbers not.
    """
    if not holds():
        return TAKEN_OVER
    if reading.after is not None:
        return OVERTAKEN if reading.after != state.sequence else ""
    older = state.target_at is not None and reading.target_at <= state.target_at
    return OVERTAKEN if older else ""


def seconds_between(before: datetime | None, now: datetime) -> float | None:
    """Return the seconds between two readings, None where the target's clock was set back."""
    return (now - before).total_seconds() if before is not None and now > before else None


def keep_superseded(
    place: Place, reason: str, taken_at: datetime, interval_seconds: float
) -> Snapshot:
    """Keep that an attempt came too late; the place stands as the other one left it."""
    return Snapshot.objects.create(
        target_id=place.target_id,
        database_id=place.database_id,
        probe=place.history.probe.name,
        taken_at=taken_at,
        state=Snapshot.State.SUPERSEDED,
        reason=reason,
        interval_seconds=interval_seconds,
    )


ANSWERED = frozenset({Snapshot.State.DENIED, Snapshot.State.UNSUPPORTED, Snapshot.State.FAILED})
"""How a read fails on a server that answers; when that ends or begins, another failure does."""


def record_failure(  # noqa: PLR0913 - one keyword a column of the snapshot
    place: Place,
    *,
    state: str,
    reason: str,
    taken_at: datetime,
    interval_seconds: float,
    next_due: datetime,
    after: int | None = None,
    holds: Callable[[], bool] = lambda: True,
) -> Snapshot:
    """Keep that an attempt failed and why; the last good values stay.

    Where another one was stored since, or has the lease by now, it says nothing of the target.
    """
    partitions.ensure_for(Snapshot, taken_at)
    with transaction.atomic():
        row = lock_state(place)
        if not holds():
            return keep_superseded(place, TAKEN_OVER, taken_at, interval_seconds)
        if after is not None and after != row.sequence:
            return keep_superseded(place, OVERTAKEN, taken_at, interval_seconds)
        if row.failing_since is None or {row.state in ANSWERED, state in ANSWERED} == {True, False}:
            row.failing_since = taken_at
        row.state, row.reason, row.due_at = state, reason, next_due
        note_unrolled(row, taken_at)
        row.save(update_fields=["state", "reason", "failing_since", "due_at", "unrolled_at"])
        return Snapshot.objects.create(
            target_id=place.target_id,
            database_id=place.database_id,
            probe=place.history.probe.name,
            taken_at=taken_at,
            state=state,
            reason=reason,
            interval_seconds=interval_seconds,
        )


def leave(place: Place, taken_at: datetime, target_at: datetime) -> None:
    """Write that no object of a place is there any more: its database is dropped or not watched.

    What is read there later, if ever, is compared with nothing.
    """
    partitions.ensure_for(place.history.samples, taken_at)
    with transaction.atomic():
        state = lock_state(place)
        gone = list(load_latest(place))
        elapsed = seconds_between(state.target_at, target_at)
        write(place, state, Comparison({}, gone=gone), taken_at, target_at, elapsed)
        state.sequence += 1
        state.taken_at = state.target_at = state.ended_at = None
        state.reset_at = state.reset_counter = None
        state.state, state.reason, state.failing_since, state.rows = "", "", None, 0
        state.save()


def name_of(place: Place) -> dict[str, Any]:
    """Return what a place's `ProbeState` is found by."""
    return {
        "target_id": place.target_id,
        "database_id": place.database_id or None,
        "probe": place.history.probe.name,
    }


def lock_state(place: Place) -> ProbeState:
    """Return the place's state, made where missing and locked until the transaction ends."""
    name = name_of(place)
    found = ProbeState.objects.select_for_update().filter(**name).first()
    if found is not None:
        return found
    ProbeState.objects.bulk_create([ProbeState(**name)], ignore_conflicts=True)
    return ProbeState.objects.select_for_update().get(**name)


def hour_of(moment: datetime) -> datetime:
    """Return the hour that a moment lies in."""
    return moment.replace(minute=0, second=0, microsecond=0)


def apply_refined(
    probe: Probe, comparison: Comparison, refine: Refine, *, hour_began: bool = False
) -> None:
    """Ask for the refined columns of what may have others than are known.

    What changed comes first, at most `refine_at_once` objects a snapshot, so
    that a server with 10,000 tables is not made to open all of them at once.
    """
    keys = len(probe.sample.key)
    changed = {row[:keys]: i for i, (_, _, row) in enumerate(comparison.changed)}
    missing = [key for key, (_, refined) in comparison.rows.items() if refined[-1] is None]
    again = changed if probe.refine_changed else relabelled(probe.sample, comparison)
    everything = comparison.rows if probe.refine_hourly and hour_began else ()
    wanted = list(dict.fromkeys([*again, *missing, *everything]))[: probe.refine_at_once]
    for key, found in refine(wanted).items():
        known = comparison.rows.get(key)
        if known is None:
            continue
        row, former = known
        values = tuple(f if n is None else n for f, n in zip(former, found, strict=True))
        if values == former:
            continue
        comparison.rows[key] = (row, values)
        if key in changed:
            change, before, _ = comparison.changed[changed[key]]
            comparison.changed[changed[key]] = (change, before, row + values)
        else:
            comparison.changed.append((Change.CHANGED, row + former, row + values))


def keep_measured(place: Place, key: Key, relkind: str, seen: settle.Figures) -> bool:
    """Keep what an action measured of one object just now; False where history does not know it."""
    taken_at = timezone.now()
    partitions.ensure_for(place.history.samples, taken_at)
    with transaction.atomic():
        state = lock_state(place)
        rows = MEMORY.take(place, state.sequence)
        if rows is None:
            rows = load_latest(place)
        if key not in rows:
            return False
        skew = (
            state.target_at - state.taken_at if state.target_at and state.taken_at else timedelta()
        )
        at = taken_at + skew
        comparison = Comparison(rows)
        settle.keep_exact(comparison, place.history.sample, key, relkind, seen, at)
        write(place, state, comparison, taken_at, at, None)
        state.sequence += 1
        state.save(update_fields=["sequence", "unrolled_at"])
    MEMORY.keep(place, state.sequence, rows)
    return True
