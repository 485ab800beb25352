"""Whether a reading counts on or anew, and what changed since the one before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from operator import ne

from monitors.history.reading import Comparison, Key, Reading, Rows
from monitors.models import ProbeState
from monitors.models.history import Change
from monitors.pg.identity import began_at, is_new_epoch, is_untold_epoch
from monitors.probe import Probe, Row, Sample


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


def differences(change: Change, before: Row | None, now: Row, added: Collection[int] = ()) -> Row:
    """Return what the counters grew by; None where that is not known.

    One that was NULL counts from 0, except at the places of those that were not read before.
    """
    if change in {Change.BASELINE, Change.UNKNOWN}:
        return (None,) * len(now)
    if change in {Change.APPEARED, Change.RESTARTED} or before is None:
        return now
    grown = [
        None if n is None else n if b is None else n - b for b, n in zip(before, now, strict=True)
    ]
    return tuple(
        None if place in added and before[place] is None else amount
        for place, amount in enumerate(grown)
    )


def relabelled(sample: type[Sample], comparison: Comparison) -> list[Key]:
    """Return the objects of which a name or an option that the SQL reads has changed."""
    keys, names = len(sample.key), sample.columns()
    labels = [names.index(name) for name in sample.labels if name in names]
    return [
        row[:keys]
        for _, before, row in comparison.changed
        if before is not None and any(before[i] != row[i] for i in labels)
    ]
