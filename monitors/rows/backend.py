"""One backend over a window: what it did when, and whom it kept waiting, from the stored activity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from django.db.models import F, Window as Over
from django.db.models.functions import Lag

from monitors.history.freshness import interval_of
from monitors.history.latest import read_latest
from monitors.history.source import GAP_FACTOR
from monitors.history.window import Window
from monitors.models import HISTORY, Action, Snapshot, Target
from monitors.models.history import Change
from monitors.probe import Reading
from monitors.rows.backends import epoch_us, moment_text
from monitors.rules import wait_events

COLUMNS = (
    "at",
    "until_at",
    "seconds",
    "state",
    "wait_event_type",
    "wait_event",
    "wait_meaning",
    "query",
    "query_start",
    "xact_start",
    "backend_xid",
    "backend_xmin",
    "blocked_by",
)
"""Keys of the export: a row for each time that a reading found it changed."""

BLOCKED_REACH = timedelta(days=1)
"""So far back those that it blocked are looked for: the end of a longer window."""
SAMPLES_AT_MOST = 5000


class SampleRow(TypedDict):
    """What a backend did from one reading to the one that found it changed."""

    at: datetime
    until_at: datetime | None  # None: it is so still, as far as was read by the window's end
    seconds: float  # without what was not read between
    state: str | None
    wait_event_type: str | None
    wait_event: str | None
    wait_meaning: str
    query: str  # literals replaced
    query_start: datetime | None
    xact_start: datetime | None
    backend_xid: int | None
    backend_xmin: int | None
    blocked_by: list[int]  # pids; 0 is a prepared transaction
    spans: list[tuple[datetime, datetime]]  # of its time, what was read


class BlockedRow(TypedDict):
    """A backend that was kept waiting for another one."""

    pid: int
    backend_start: datetime
    application_name: str | None
    usename: str | None
    query: str  # literals replaced
    wait: str
    at: datetime  # when the first reading saw it wait
    until_at: datetime | None  # None: it waits still
    start_text: str  # its start as its page's address has it


@dataclass(frozen=True)
class Course:
    """What is stored of one backend in a window, oldest first."""

    samples: list[SampleRow]
    gone_at: datetime | None
    """When a reading no longer showed it; None: it is there, as far as is known."""


def latest_of(target: Target, pid: int, start: datetime) -> Reading | None:
    """Return a backend as the history knew it last, None where it never did."""
    key = {"pid": pid, "backend_start": start}
    return next(iter(read_latest("activity", target.pk, key=key, gone=True)), None)


def course_of(target: Target, window: Window, pid: int, start: datetime) -> Course:
    """Return what a backend did in a window, from what it did when that began on."""
    every = HISTORY["activity"].samples._default_manager.filter(
        target_id=target.pk, database_id=0, pid=pid, backend_start=start, taken_at__lt=window.end
    )
    before = every.filter(taken_at__lte=window.start).order_by("-taken_at").values()[:1]
    within = every.filter(taken_at__gt=window.start).order_by("taken_at").values()
    found = [*before, *within[:SAMPLES_AT_MOST]]
    gone = [row["taken_at"] for row in found if row["change"] == Change.GONE]
    lived = [row for row in found if row["change"] != Change.GONE]
    if not lived:
        return Course([], gone[-1] if gone else None)
    read = read_between(target, max(lived[0]["taken_at"], window.start), window.end)
    ends = [row["taken_at"] for row in found[1:]] + [None]
    samples = [
        sample_row(row, end, read, window)
        for row, end in zip(found, ends, strict=True)
        if row["change"] != Change.GONE
    ]
    return Course(samples, found[-1]["taken_at"] if found[-1]["change"] == Change.GONE else None)


def read_between(target: Target, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Return the stretches of a time in which activity was read without a gap."""
    longest = timedelta(seconds=GAP_FACTOR * interval_of(target, "activity"))
    good = Snapshot.objects.filter(
        target_id=target.pk,
        database_id=0,
        probe="activity",
        state=Snapshot.State.OK,
        taken_at__gte=start,
        taken_at__lt=end,
    )
    edges = good.order_by("taken_at").values_list("taken_at", flat=True)
    first, last = edges.first(), edges.last()
    if first is None or last is None:
        return []
    spaced = good.annotate(before=Over(Lag("taken_at"), order_by="taken_at"))
    gaps = spaced.filter(before__lt=F("taken_at") - longest).order_by("taken_at")
    stretches = []
    for before, after in gaps.values_list("before", "taken_at"):
        stretches.append((first, before))
        first = after
    return [*stretches, (first, last)]


def sample_row(
    row: Reading,
    end: datetime | None,
    read: Iterable[tuple[datetime, datetime]],
    window: Window,
) -> SampleRow:
    """Return one sample as a row; it lasts until the next one, as long as was read."""
    at = max(row["taken_at"], window.start)
    until = end or window.end
    spans = [
        (max(at, begin), min(until, stop))
        for begin, stop in read
        if max(at, begin) <= min(until, stop)
    ]
    return {
        "at": row["taken_at"],
        "until_at": end,
        "seconds": sum((stop - begin).total_seconds() for begin, stop in spans),
        "state": row["state"],
        "wait_event_type": row["wait_event_type"],
        "wait_event": row["wait_event"],
        "wait_meaning": wait_events.explain(row["wait_event_type"], row["wait_event"]),
        "query": row["query"] or "",
        "query_start": row["query_start"],
        "xact_start": row["xact_start"],
        "backend_xid": row["backend_xid"],
        "backend_xmin": row["backend_xmin"],
        "blocked_by": list(row["blocked_by"] or ()),
        "spans": spans,
    }


def blocked_by(
    target: Target, window: Window, pid: int, start: datetime, gone_at: datetime | None
) -> list[BlockedRow]:
    """Return whom a backend kept waiting in a window, or its last day; who waited last comes first.

    What its pid blocked before it began, or after it ended, another backend did.
    """
    end = min(window.end, gone_at) if gone_at else window.end
    waits = HISTORY["activity"].samples._default_manager.filter(
        target_id=target.pk,
        database_id=0,
        taken_at__gte=max(window.start, window.end - BLOCKED_REACH),
        taken_at__lt=end,
        target_at__gte=start,
        blocked_by__contains=[pid],
    )
    found: dict[tuple[int, datetime], list[dict[str, Any]]] = {}
    for row in waits.order_by("taken_at").values():
        found.setdefault((row["pid"], row["backend_start"]), []).append(row)
    rows = [blocked_row(mine, end_of(target, mine[-1], window)) for mine in found.values()]
    return sorted(rows, key=lambda row: row["at"], reverse=True)


def end_of(target: Target, row: Reading, window: Window) -> datetime | None:
    """Return when a reading found a waiter changed, None where none did by the window's end."""
    later = HISTORY["activity"].samples._default_manager.filter(
        target_id=target.pk,
        database_id=0,
        pid=row["pid"],
        backend_start=row["backend_start"],
        taken_at__gt=row["taken_at"],
        taken_at__lt=window.end,
    )
    found: datetime | None = later.order_by("taken_at").values_list("taken_at", flat=True).first()
    return found


def blocked_row(mine: Sequence[Reading], end: datetime | None) -> BlockedRow:
    """Return the row of a waiter, of its samples that name the one it waited for."""
    last = mine[-1]
    parts = (last["wait_event_type"], last["wait_event"])
    return {
        "pid": last["pid"],
        "backend_start": last["backend_start"],
        "application_name": last["application_name"],
        "usename": last["usename"],
        "query": last["query"] or "",
        "wait": ": ".join(part for part in parts if part),
        "at": mine[0]["taken_at"],
        "until_at": end,
        "start_text": str(epoch_us(last["backend_start"])),
    }


def actions_on(target: Target, pid: int, start: datetime) -> list[Action]:
    """Return what was asked to be done to a backend through Howdah, newest first."""
    asked = Action.objects.filter(
        target=target, arguments__pid=str(pid), arguments__backend_start=moment_text(start)
    )
    return list(asked.exclude(state=Action.State.DRAFT).order_by("-created_at"))
