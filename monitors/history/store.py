"""Keeps what a probe read: compares with the last snapshot, writes what changed.

One snapshot of one probe and database is one transaction, under a row lock on
its `ProbeState`: rows, `latest`, the state and the `Snapshot` row appear
together or not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import compress
from operator import ne
from typing import Any

from django.db import connection, models, transaction
from django.utils import timezone
from psycopg import sql

from monitors.history import partitions, settle
from monitors.models import Database, Mark, ProbeState, Snapshot
from monitors.models.history import Change, History
from monitors.pg.identity import began_at, is_new_epoch, is_untold_epoch
from monitors.probe import Probe, Row, Sample

MAX_REMEMBERED_ROWS = 200_000

Key = tuple[Any, ...]
Rows = dict[Key, tuple[Row, Row]]
"""By key: a row as the probe's SQL returned it, and its refined columns."""
Refine = Callable[[list[Key]], dict[Key, Row]]
"""Given keys in the order of their urgency, returns the refined gauges of some."""
Note = Callable[["Place", "Comparison", datetime, "datetime | None"], None]
"""Told a place, what changed there, when it was read and when it was read before (None: never)."""

Observe = Callable[[Sequence[tuple[Change, Row | None, Row]], Sequence[Key], datetime | None], None]


@dataclass(frozen=True)
class Reading:
    """What a probe's SQL returned: rows in the order of `Sample.columns()`."""

    rows: Sequence[Row]
    target_at: datetime  # the target's clock
    reset_at: datetime | None = None
    reset_counter: int | None = None
    client_ms: float = 0
    target_ms: float = 0
    ended_at: datetime | None = None  # the target's clock when all rows had been read
    after: int | None = None
    """The place's sequence before the read began (`sequence_of`); None: not asked for."""


@dataclass(frozen=True)
class Place:
    """Which probe of which target and database; database_id 0 is the whole server."""

    history: History
    target_id: int
    database_id: int


@dataclass
class Comparison:
    """What changed since the last snapshot.

    `changed` are (change, previous row or None, row), both with the refined
    columns at the end; `rows` is what was known before, brought up to now.
    """

    rows: Rows
    changed: list[tuple[Change, Row | None, Row]] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)
    gone_rows: list[Row] = field(default_factory=list)


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
            mark_reset(place, taken_at, reading.reset_at)
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


def note_unrolled(state: ProbeState, taken_at: datetime) -> None:
    """Note, for the caller to save, that hours and days lack what was taken at a moment."""
    state.unrolled_at = min(state.unrolled_at or taken_at, taken_at)


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


@dataclass(frozen=True)
class Verdict:
    """What a reading's counters may be compared with."""

    first: bool  # nothing was ever read here, or not since everything left
    new_epoch: bool  # the server crashed: everything counts from 0
    reset: bool  # stats_reset changed
    whole_reset: bool  # … and that of everything
    evicted: int = 0  # objects that were thrown out since the last reading
    doubtful: bool = False  # counters began anew, but perhaps before the last reading
    outlives: bool = False  # stats_reset is known and tells all, also whether a crash was survived
    since: datetime | None = None  # the last reading, on the target's clock

    @property
    def anew(self) -> bool:
        """Whether every counter counts from 0."""
        if self.doubtful:
            return False
        return self.whole_reset or (self.new_epoch and not self.outlives)


def judge(probe: Probe, state: ProbeState, reading: Reading, epoch: str) -> Verdict:
    """Tell how a reading relates to the last one.

    What began anew counts from 0 only where that was after the last reading: else, as
    with another server at the same address, what was counted before would count again.
    """
    # PostgreSQL 14 sets stats_reset when a database's first counter appears.
    counted = state.reset_at is not None or bool(state.reset_counter)
    reset = bool(counted and reading.reset_at and reading.reset_at != state.reset_at)
    grown = (reading.reset_counter or 0) - (state.reset_counter or 0)
    whole_reset = reset and (probe.reset_is_whole or grown < 0)
    # pg_stat_statements keeps its counters, and stats_reset with them, through an immediate stop.
    outlives = probe.reset_is_whole and state.reset_at is not None and reading.reset_at is not None
    new_epoch = is_new_epoch(state.epoch, epoch)
    moments = [
        reading.reset_at if whole_reset else None,
        began_at(epoch) if new_epoch and not outlives else None,
    ]
    ended_at = state.ended_at or state.target_at
    early = ended_at is not None and any(one <= ended_at for one in moments if one is not None)
    untold = not outlives and is_untold_epoch(state.epoch, epoch)
    return Verdict(
        first=state.taken_at is None,
        new_epoch=new_epoch,
        reset=reset,
        whole_reset=whole_reset,
        evicted=max(grown, 0) if probe.evicts and state.sequence and not reset else 0,
        doubtful=early or untold,
        outlives=outlives,
        since=state.target_at,
    )


def compare(sample: type[Sample], known: Rows, rows: Sequence[Row], verdict: Verdict) -> Comparison:
    """Return what changed since the rows that are known, which are brought up to now in place."""
    found = Comparison(known)
    keys = len(sample.key)
    counters = slice(keys, keys + len(sample.counters))
    nothing = (None,) * len(sample.refined)
    doubted = verdict.anew or verdict.reset  # the same numbers may have fallen and grown again
    different = None if doubted else changed_in_place(known, rows, keys)
    seen: dict[Key, Row] = {}
    if different is None:
        for row in rows:
            seen.setdefault(row[:keys], row)  # a view may say the same object twice
        different = list(seen.values())
    for row in different:
        key = row[:keys]
        before = known.get(key)
        if before is None:
            known[key] = (row, nothing)
            found.changed.append((change_of_new(sample, row, verdict), None, row + nothing))
            continue
        former, refined = before
        if former == row and not (doubted and any(row[counters])):
            continue
        change = change_of_known(sample, former, row, verdict)
        if former == row and change == Change.CHANGED:
            continue
        known[key] = (row, refined)
        found.changed.append((change, former + refined, row + refined))
    if seen or not rows:
        found.gone = [key for key in known if key not in seen]
        found.gone_rows = [sum(known[key], ()) for key in found.gone]
        found.rows = {key: known[key] for key in seen}  # in the order of the next reading
    return found


def change_of_new(sample: type[Sample], row: Row, verdict: Verdict) -> Change:
    """Tell how an object counts that the last snapshot did not show."""
    if verdict.first:
        return Change.BASELINE
    if sample.counts_since:
        since = row[sample.columns().index(sample.counts_since)]
        if since is not None and verdict.since is not None:
            return Change.APPEARED if since > verdict.since else Change.UNKNOWN
    return Change.UNKNOWN if verdict.doubtful else Change.APPEARED


def change_of_known(sample: type[Sample], former: Row, row: Row, verdict: Verdict) -> Change:
    """Tell how an object's counters went on, by its own moment where it has one."""
    first, last = len(sample.key), len(sample.key) + len(sample.counters)
    before, now = former[first:last], row[first:last]
    names = sample.columns()
    if sample.counts_since:
        place = names.index(sample.counts_since)
        since, was = row[place], former[place]
        if since is not None and was is not None:  # else a version of the extension lacks it
            if since == was:
                return Change.CHANGED
            is_late = verdict.since is None or since > verdict.since
            return Change.RESTARTED if is_late else Change.UNKNOWN
    change = change_of(before, now, verdict)
    if sample.reset_fact and change == Change.CHANGED and any(before) and before != now:
        place = names.index(sample.reset_fact)
        if row[place] != former[place]:
            return Change.UNKNOWN
    return change


def changed_in_place(known: Rows, rows: Sequence[Row], keys: int) -> list[Row] | None:
    """Return the rows that changed, None where others came, went or changed places.

    A server tells the same objects in the same order nearly always, and then this
    takes a fifth of the time of a look at each key.
    """
    if len(rows) != len(known):
        return None
    former = [row for row, _ in known.values()]
    pairs = list(compress(zip(rows, former, strict=True), map(ne, rows, former)))
    if any(row[:keys] != was[:keys] for row, was in pairs):
        return None
    return [row for row, _ in pairs]


def change_of(before: Row, now: Row, verdict: Verdict) -> Change:
    """Tell how an object's counters went on since the last snapshot."""
    if verdict.doubtful:
        return Change.UNKNOWN if before != now else Change.CHANGED
    if verdict.anew:
        return Change.RESTARTED
    pairs = ((b, n) for b, n in zip(before, now, strict=True) if b is not None and n is not None)
    if any(n < b for b, n in pairs):
        return Change.RESTARTED
    # A reset of something else: whether this object's counters fell and grew
    # again can't be told, so they give no difference this once.
    return Change.UNKNOWN if verdict.reset and any(now) else Change.CHANGED


def differences(change: Change, before: Row | None, now: Row) -> Row:
    """Return what the counters grew by; None where that is not known."""
    if change in {Change.BASELINE, Change.UNKNOWN}:
        return (None,) * len(now)
    if change in {Change.APPEARED, Change.RESTARTED} or before is None:
        return now
    return tuple(
        None if n is None else n if b is None else n - b for b, n in zip(before, now, strict=True)
    )


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


def relabelled(sample: type[Sample], comparison: Comparison) -> list[Key]:
    """Return the objects of which a name or an option that the SQL reads has changed."""
    keys, names = len(sample.key), sample.columns()
    labels = [names.index(name) for name in sample.labels if name in names]
    return [
        row[:keys]
        for _, before, row in comparison.changed
        if before is not None and any(before[i] != row[i] for i in labels)
    ]


def full_columns(sample: type[Sample]) -> tuple[str, ...]:
    """Return the columns of a kept row: `Sample.columns()` and the refined gauges last."""
    return (*sample.columns(), *sample.refined)


def load_latest(place: Place) -> Rows:
    """Return the rows of the last snapshot as `latest` has them."""
    sample = place.history.sample
    keys, width = len(sample.key), len(sample.columns())
    statement = sql.SQL(
        "SELECT {columns} FROM {table}"
        " WHERE target_id = %s AND database_id = %s AND gone_at IS NULL"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, full_columns(sample))),
        table=sql.Identifier(place.history.latest._meta.db_table),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [place.target_id, place.database_id])
        return {row[:keys]: (row[:width], row[width:]) for row in cursor.fetchall()}


def write(
    place: Place,
    state: ProbeState,
    comparison: Comparison,
    taken_at: datetime,
    target_at: datetime,
    elapsed: float | None,
) -> int:
    """Write samples and latest of what changed; returns how many sample rows.

    Notes in the state, which the caller saves, that hours and days lack them.
    """
    note_unrolled(state, taken_at)
    if not comparison.changed and not comparison.gone:
        return 0
    copy_samples(place, comparison, taken_at, target_at, elapsed)
    upsert_latest(place, [row for _, _, row in comparison.changed], taken_at)
    if comparison.gone:
        retire(place, comparison.gone, taken_at)
    return len(comparison.changed) + len(comparison.gone)


def copy_samples(
    place: Place,
    comparison: Comparison,
    taken_at: datetime,
    target_at: datetime,
    elapsed: float | None,
) -> None:
    """COPY one row for each object that changed or is gone."""
    sample = place.history.sample
    keys, end = len(sample.key), len(sample.key) + len(sample.counters)
    names = full_columns(sample)
    kept = [names.index(name) for name in (*sample.gauges, *sample.facts)]
    columns = (
        *("target_id", "database_id", "taken_at", "target_at", "interval_seconds", "change"),
        *sample.key,
        *sample.counters,
        *sample.gauges,
        *sample.facts,
    )
    statement = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)").format(
        table=sql.Identifier(place.history.samples._meta.db_table),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
    )
    head = (place.target_id, place.database_id, taken_at, target_at)
    nothing = (None,) * (len(sample.counters) + len(kept))
    # As Django's errors, not psycopg's: those would pass for errors of the target.
    errors = connection.wrap_database_errors
    with connection.cursor() as cursor, errors, cursor.copy(statement) as copy:
        copy.set_types(column_types(place.history.samples, columns))
        for change, before, row in comparison.changed:
            interval = None if change == Change.BASELINE else elapsed
            grown = differences(change, before[keys:end] if before else None, row[keys:end])
            values = tuple(row[i] for i in kept)
            copy.write_row((*head, interval, int(change), *row[:keys], *grown, *values))
        for key in comparison.gone:
            copy.write_row((*head, elapsed, int(Change.GONE), *key, *nothing))


@functools.cache
def column_types(model: type[models.Model], columns: tuple[str, ...]) -> list[str]:
    """Return the PostgreSQL types of columns, which binary COPY must be told."""
    kinds = (model._meta.get_field(name).db_type(connection) or "" for name in columns)
    return [kind.replace("varchar", "text").partition("(")[0].strip() for kind in kinds]


def upsert_latest(place: Place, rows: list[Row], taken_at: datetime) -> None:
    """Write the rows that changed into `latest`."""
    if not rows:
        return
    sample = place.history.sample
    names = full_columns(sample)
    columns = ("target_id", "database_id", "since_at", "changed_at", *names)
    values = [name for name in names if name not in sample.key]
    table = sql.Identifier(place.history.latest._meta.db_table)
    statement = sql.SQL(
        "INSERT INTO {table} AS l ({columns}) VALUES ({values})"
        " ON CONFLICT (target_id, database_id, {key}) DO UPDATE SET {sets},"
        " changed_at = excluded.changed_at, gone_at = NULL,"
        " since_at = CASE WHEN l.gone_at IS NULL THEN l.since_at ELSE excluded.since_at END"
    ).format(
        table=table,
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(sql.Placeholder() * len(columns)),
        key=sql.SQL(", ").join(map(sql.Identifier, sample.key)),
        sets=sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in values
        ),
    )
    head = (place.target_id, place.database_id, taken_at, taken_at)
    with connection.cursor() as cursor:
        cursor.executemany(statement, [head + row for row in rows])


def retire(place: Place, gone: list[Key], taken_at: datetime) -> None:
    """Take objects that are gone out of the present; those with labels keep their names."""
    sample = place.history.sample
    verb = (
        "UPDATE {table} SET gone_at = %s, changed_at = %s"
        if sample.labels
        else "DELETE FROM {table}"
    )
    statement = sql.SQL(verb + " WHERE target_id = %s AND database_id = %s AND {key}").format(
        table=sql.Identifier(place.history.latest._meta.db_table),
        key=sql.SQL(" AND ").join(
            sql.SQL("{} = %s").format(sql.Identifier(name)) for name in sample.key
        ),
    )
    head = (taken_at, taken_at) if sample.labels else ()
    with connection.cursor() as cursor:
        cursor.executemany(
            statement, [(*head, place.target_id, place.database_id, *key) for key in gone]
        )


def mark_rewrites(place: Place, taken_at: datetime, rewritten: list[settle.Rewritten]) -> None:
    """Note on the charts which objects got a new file: by VACUUM FULL, CLUSTER or REINDEX."""
    Mark.objects.bulk_create(
        Mark(
            target_id=place.target_id,
            database_id=place.database_id or None,
            at=taken_at,
            kind=Mark.Kind.REWRITE,
            relid=one.now["relid"],
            text=settle.words_of(one),
        )
        for one in rewritten
        if settle.is_marked(one)
    )


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


def mark_reset(place: Place, taken_at: datetime, reset_at: datetime | None) -> None:
    """Note on the charts that somebody reset statistics, once for all probes that notice."""
    probe = place.history.probe
    what = f"Statistics of {probe.extension or 'this database'} were reset"
    Mark.objects.get_or_create(
        target_id=place.target_id,
        database=Database.objects.filter(pk=place.database_id).first(),
        kind=Mark.Kind.RESET,
        text=f"{what} at {reset_at:%Y-%m-%d %H:%M:%S %Z}." if reset_at else f"{what}.",
        defaults={"at": taken_at},
    )
