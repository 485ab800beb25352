"""Who blocked whom in a window, and what was waited for: by what the snapshots of it saw.

A snapshot stands for the time until the next one, so that sums are estimates: what came and went
between two of them was never seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypedDict

from monitors.history.counters import read_sums
from monitors.history.latest import read_as_of
from monitors.history.window import Window
from monitors.models import HISTORY, Snapshot, Target
from monitors.models.history import Change
from monitors.rows import lock_edges
from monitors.rows.lock_edges import Names, Row
from monitors.rows.tables import databases_of
from monitors.rules import lock_graph, lock_words

COLUMNS = (
    "application_name",
    "usename",
    "datname",
    "query",
    "gid",
    "samples",
    "most_blocked",
    "waited_seconds",
    "last_seen",
)
"""Keys of the export of roots, in order."""
OBJECT_COLUMNS = (
    "lock_database",
    "object",
    "locktypes",
    "samples",
    "most_blocked",
    "waited_seconds",
)
"""Keys of the export of what was waited for, in order."""
WAIT_COLUMNS = ("locktype", "waits", "wait_time", "mean_wait_ms", "fastpath_exceeded")
"""Columns of pg_stat_lock, and what is computed from them."""

MOST_MOMENTS = 200
"""Moments of a window that are looked at; of more every second, third …"""
MOST_ROWS = 30_000
"""Changes that are read, the newest."""
NEWEST_WITHOUT = 18
"""The last major version without pg_stat_lock."""

Key = tuple[Any, ...]


class BlockerRow(TypedDict):
    """What one application's user blocked by one statement in the window."""

    application_name: str | None
    usename: str | None
    datname: str | None
    query: str | None  # literals replaced; None of one that waited in a circle itself
    gid: str | None  # of a prepared transaction
    samples: int  # moments at which it was a root
    most_blocked: int  # sessions behind all of its backends at one moment
    waited_seconds: float  # of all of them, estimated
    last_seen: datetime


class ObjectRow(TypedDict):
    """One relation or lock that was waited for."""

    lock_database: str | None
    object: str
    locktypes: list[str]
    samples: int
    most_blocked: int
    waited_seconds: float  # estimated


class DeadlockRow(TypedDict):
    """Deadlocks of a database in the window."""

    datname: str
    deadlocks: int | None  # None: counters started anew


class WaitRow(TypedDict):
    """One kind of lock as the server counted it in the window; None: counters started anew."""

    locktype: str
    waits: int | None  # longer than deadlock_timeout, and then got it
    wait_time: float | None  # ms of those
    mean_wait_ms: float | None
    fastpath_exceeded: int | None


@dataclass(frozen=True)
class History:
    """What the snapshots of a window saw."""

    blockers: list[BlockerRow]
    objects: list[ObjectRow]
    moments: int
    """At which somebody waited."""
    every: int
    """So many of them are one that was looked at."""
    since: datetime | None
    """Only from then on: before it too much went on to be read at once. None: of all of the window."""


@dataclass
class Tally:
    """What is added up of one root or object."""

    said: dict[str, Any]
    samples: int = 0
    most: int = 0
    seconds: float = 0.0
    last: datetime | None = None
    types: set[str] = field(default_factory=set)

    def add(self, count: int, seconds: float, at: datetime) -> None:
        """Count one moment at which so many waited."""
        self.samples += 1
        self.most = max(self.most, count)
        self.seconds += count * seconds
        self.last = at


def history_of(target: Target, window: Window) -> History:
    """Return who blocked whom; what is older than the samples is not known any more."""
    since = enough_since(target, window)
    start = since or window.start
    seen = Snapshot.objects.filter(
        target_id=target.pk,
        probe="locks",
        state=Snapshot.State.OK,
        rows__gt=0,
        taken_at__gte=start,
        taken_at__lt=window.end,
    )
    moments = list(seen.order_by("taken_at").values_list("taken_at", "interval_seconds"))
    every = -(-len(moments) // MOST_MOMENTS) or 1
    blockers: dict[Key, Tally] = {}
    objects: dict[Key, Tally] = {}
    if moments:
        looked = with_lengths(moments[::every], every, window.end)
        for at, seconds, rows, names in states_at(target, window, start, looked):
            add_moment(rows, names, (at, seconds), blockers, objects)
    return History(
        blockers=sorted(
            map(blocker_row, blockers.values()), key=lambda row: -row["waited_seconds"]
        ),
        objects=sorted(map(object_row, objects.values()), key=lambda row: -row["waited_seconds"]),
        moments=len(moments),
        every=every,
        since=since,
    )


def with_lengths(
    moments: list[tuple[datetime, float]], every: int, end: datetime
) -> list[tuple[datetime, float]]:
    """Return each moment with the seconds that it stands for: to the next, and not over a gap."""
    ends = [*(at for at, _ in moments[1:]), end]
    return [
        (at, min(interval * every, (until - at).total_seconds()))
        for (at, interval), until in zip(moments, ends, strict=True)
    ]


def enough_since(target: Target, window: Window) -> datetime | None:
    """Return from when on MOST_ROWS changes are, None where all of a window's are no more."""
    changes = HISTORY["locks"].samples._default_manager.filter(
        target_id=target.pk, taken_at__gte=window.start, taken_at__lt=window.end
    )
    newest = changes.order_by("-taken_at").values_list("taken_at", flat=True)
    found: datetime | None = newest[MOST_ROWS : MOST_ROWS + 1].first()
    return found


def states_at(
    target: Target, window: Window, start: datetime, moments: list[tuple[datetime, float]]
) -> Iterator[tuple[datetime, float, list[Row], Names]]:
    """Yield a moment, its length, the probe's rows as they stood and their names, in time's order."""
    sample = HISTORY["locks"].sample
    before = start - timedelta(microseconds=1)
    state: dict[Key, Row] = {key_of(row): row for row in read_as_of("locks", target.pk, before)}
    columns = (*sample.key, *sample.facts, "change", "taken_at")
    changes = list(
        HISTORY["locks"]
        .samples._default_manager.filter(
            target_id=target.pk, taken_at__gte=start, taken_at__lt=window.end
        )
        .order_by("taken_at")
        .values(*columns)
    )
    names = lock_edges.names_of(target, window, [*state.values(), *changes])
    place = 0
    for at, seconds in moments:
        while place < len(changes) and changes[place]["taken_at"] <= at:
            change = changes[place]
            if change["change"] == Change.GONE:
                state.pop(key_of(change), None)
            else:
                state[key_of(change)] = change
            place += 1
        yield at, seconds, list(state.values()), names


def key_of(row: Row) -> Key:
    """Return what makes a row the same edge."""
    return row["pid"], row["backend_start"], row["blocker_pid"], row["gid"]


def add_moment(
    rows: list[Row],
    names: Names,
    length: tuple[datetime, float],
    blockers: dict[Key, Tally],
    objects: dict[Key, Tally],
) -> None:
    """Add up the roots and the objects of one moment."""
    at, seconds = length
    said = {lock_edges.blocker_of(row): row for row in rows}
    behind: dict[Key, set[lock_graph.Node]] = {}
    for root in lock_graph.find_roots(lock_edges.waits_of(rows)):
        who = identity_of(said[root.node])
        key = tuple(who.values())
        blockers.setdefault(key, Tally(who))
        behind.setdefault(key, set()).update(root.victims)
    for key, victims in behind.items():
        blockers[key].add(len(victims), seconds, at)
    waiting: dict[Key, set[int]] = {}
    for row in rows:
        name = lock_words.name_object(row, lock_words.name_relation(row, names.relations))
        database = names.databases.get(row["lock_database"] or 0)
        tally = objects.setdefault((database, name), Tally({"database": database, "name": name}))
        tally.types.add(row["locktype"])
        waiting.setdefault((database, name), set()).add(row["leader_pid"])
    for key, sessions in waiting.items():
        objects[key].add(len(sessions), seconds, at)


def identity_of(row: Row) -> dict[str, Any]:
    """Return what the blocker of a row is told apart by."""
    return {
        "application_name": row["blocker_application_name"],
        "usename": row["blocker_usename"],
        "datname": row["blocker_datname"],
        "query": row["blocker_query"],
        "gid": row["gid"] or None,
    }


def blocker_row(tally: Tally) -> BlockerRow:
    """Return what was added up of a root."""
    assert tally.last is not None  # noqa: S101 - each was seen at a moment
    return {
        "application_name": tally.said["application_name"],
        "usename": tally.said["usename"],
        "datname": tally.said["datname"],
        "query": tally.said["query"],
        "gid": tally.said["gid"],
        "samples": tally.samples,
        "most_blocked": tally.most,
        "waited_seconds": tally.seconds,
        "last_seen": tally.last,
    }


def object_row(tally: Tally) -> ObjectRow:
    """Return what was added up of an object."""
    return {
        "lock_database": tally.said["database"],
        "object": tally.said["name"],
        "locktypes": sorted(tally.types),
        "samples": tally.samples,
        "most_blocked": tally.most,
        "waited_seconds": tally.seconds,
    }


def deadlocks_of(target: Target, window: Window) -> list[DeadlockRow]:
    """Return the databases that counted deadlocks in the window, or whose counters started anew."""
    names = {one.datid: one.datname for one in databases_of(target, window).values()}
    rows = read_sums("databases", target.pk, window, ["deadlocks"])
    found: list[DeadlockRow] = [
        {
            "datname": names.get(row["datid"], f"database {row['datid']}"),
            "deadlocks": int(row["deadlocks"]) if row["complete"] else None,
        }
        for row in rows
        if row["deadlocks"] or not row["complete"]
    ]
    return sorted(found, key=lambda row: (-(row["deadlocks"] or 0), row["datname"]))


def waits_of(target: Target, window: Window) -> list[WaitRow] | None:
    """Return what pg_stat_lock counted in the window, most time first; None before 19."""
    if target.major is None or target.major <= NEWEST_WITHOUT:
        return None
    names = ["waits", "wait_time", "fastpath_exceeded"]
    rows = read_sums("lock_stats", target.pk, window, names)
    found = [wait_row(row) for row in rows if any(row[name] for name in names)]
    return sorted(found, key=lambda row: -(row["wait_time"] or 0))


def wait_row(row: Mapping[str, Any]) -> WaitRow:
    """Return one kind of lock; nothing is known of it where its counters started anew."""
    known = row["complete"]
    waits, ms = (int(row["waits"]), float(row["wait_time"])) if known else (None, None)
    return {
        "locktype": row["locktype"],
        "waits": waits,
        "wait_time": ms,
        "mean_wait_ms": ms / waits if waits and ms is not None else None,
        "fastpath_exceeded": int(row["fastpath_exceeded"]) if known else None,
    }
