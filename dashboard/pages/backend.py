"""Everything that is known of one backend: what it does, did, holds and keeps waiting."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import Http404
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame import backends as shown
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.advisor import Finding
from monitors.findings import judge
from monitors.history.window import Window
from monitors.models import Target
from monitors.probe import Reading
from monitors.rows import backend as backend_rows, horizon
from monitors.rows.backend import COLUMNS, Course, SampleRow
from monitors.rows.backends import EPOCH, Backend
from monitors.rows.horizon import HolderRow

SHOWN = 200
"""So many of a backend's changes the page lists; the export has all."""
KINDS = {
    "cpu": "runs",
    "transaction": "idle in transaction",
    "idle": "idle",
    "lock": "waits for a lock",
    "lwlock": "waits for a structure in memory",
    "io": "waits for files",
    "ipc": "waits for a process",
    "client": "waits for its client",
    "timeout": "waits for a time to pass, or for something else",
    "bufferpin": "waits for a page",
    "extension": "waits in an extension",
}
"""{colour of a state in the strip: what it means}."""


@require_safe
def backend(request: PageRequest, name: str, pid: int, start: int) -> HttpResponseBase:
    """Show one backend, named by its pid and its start in microseconds since 1970."""
    target, window = get_target(request, name), window_of(request)
    began = start_of(start)
    seen = shown.read(request, target, window)
    now = next((one for one in seen.backends if (one.pid, one.backend_start) == (pid, began)), None)
    latest = backend_rows.latest_of(target, pid, began)
    course = backend_rows.course_of(target, window, pid, began)
    if now is None and latest is None:
        raise Http404
    exported = table_response(request, "backend", COLUMNS, course.samples)
    if exported:
        return exported
    findings = judge.find(target, None if window.is_live else window.end)
    context = {
        "pid": pid,
        "backend_start": began,
        "backend": now,
        "last": last_of(now, latest, course),
        "gone_at": None if now else gone_at(latest, course, window),
        **neighbours(now, seen.backends),
        "holder": holder_of(target, window, pid, began),
        "own_findings": [one for one in findings if is_of(one, pid, began)],
        "actions": backend_rows.actions_on(target, pid, began),
        "blocked": backend_rows.blocked_by(
            target, window, pid, began, gone_at(latest, course, window)
        ),
        "samples": list(reversed(course.samples))[:SHOWN],
        "count": len(course.samples),
        "strip": strip_of(course.samples, window),
        "kinds": kinds_in(course.samples),
        "tiles": [*tiles(now), *tiles_of_process(now)] if now else [],
        "process_why": process_why(now, is_live=seen.is_live),
        "is_root": True,
        "scrub": shown.scrub_of(target, window),
        **shown.may_of(request, target, window),
    }
    return render_page(
        request,
        "backend.html",
        context,
        page="activity",
        target=target,
        window=window,
        reads=("activity",),
        findings=findings,
        is_live=seen.is_live,
    )


def neighbours(now: Backend | None, backends: list[Backend]) -> dict[str, list[Backend]]:
    """Return whom a backend waits for and works for, of those that are there."""
    blockers = now.blocked_by if now else []
    leader = now.row.get("leader_pid") if now else None
    return {
        "blockers": [one for one in backends if one.pid in blockers],
        "leaders": [one for one in backends if one.pid == leader],
    }


def start_of(microseconds: int) -> datetime:
    """Return a backend's start as its address says it; raises Http404 where that is no time."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise Http404 from None


def gone_at(latest: Reading | None, course: Course, window: Window) -> datetime | None:
    """Return when a reading no longer showed a backend by the window's end, None where none did."""
    known = course.gone_at or (latest["gone_at"] if latest else None)
    return known if known is not None and known <= window.end else None


def last_of(now: Backend | None, latest: Reading | None, course: Course) -> dict[str, Any]:
    """Return who a backend is: as it is now, else as it last was."""
    if now is not None:
        return dict(now.row)
    return {**(latest or {}), **({"query": course.samples[-1]["query"]} if course.samples else {})}


def is_of(finding: Finding, pid: int, start: datetime) -> bool:
    """Tell whether a finding is about a backend."""
    return finding.pid == pid and finding.backend_start in {None, start}


def holder_of(target: Target, window: Window, pid: int, start: datetime) -> HolderRow | None:
    """Return what a backend holds of the horizon, None where it was not seen to hold any."""
    holders = horizon.holders_of(target, window)
    mine = (row for row in holders if (row["holder"], row["backend_start"]) == (str(pid), start))
    return next(mine, None)


def kind_of(sample: SampleRow) -> str:
    """Return the colour of what a backend did: one of KINDS."""
    state = sample["state"] or ""
    if state.startswith("idle in transaction"):
        return "transaction"
    if state == "idle":
        return "idle"
    return charts.WAIT_COLOURS.get(sample["wait_event_type"] or "", "timeout")


def strip_of(samples: list[SampleRow], window: Window) -> list[tuple[float, float, str]]:
    """Return what is drawn: (from, how long, kind) with the window's length as 1."""
    whole = window.length.total_seconds()
    return [
        (
            (begin - window.start).total_seconds() / whole,
            (end - begin).total_seconds() / whole,
            kind,
        )
        for sample in samples
        for kind in (kind_of(sample),)
        for begin, end in sample["spans"]
    ]


def kinds_in(samples: list[SampleRow]) -> list[tuple[str, str, float]]:
    """Return the key of the strip: (kind, in words, seconds of it), longest first."""
    seconds: dict[str, float] = {}
    for sample in samples:
        kind = kind_of(sample)
        seconds[kind] = seconds.get(kind, 0.0) + sample["seconds"]
    longest = sorted(seconds, key=lambda kind: -seconds[kind])
    return [(kind, KINDS[kind], seconds[kind]) for kind in longest]


def tiles(now: Backend) -> list[Tile]:
    """Return the headline figures of a backend that is there."""
    duration = figures.duration
    return [
        Tile(
            title="Statement",
            value=now.query_seconds if now.is_running else None,
            write=duration,
            level="warning" if now.is_long else "",
            note="since it began" if now.is_running else "none runs",
        ),
        Tile(
            title="Transaction",
            value=now.xact_seconds,
            write=duration,
            note="open" if now.xact_seconds is not None else "none is open",
        ),
        Tile(
            title="State", value=now.state_seconds, write=duration, note=now.row.get("state") or ""
        ),
        Tile(title="Connected", value=now.connection_seconds, write=duration),
        Tile(
            title="Blocks",
            value=now.blocking,
            level="critical" if now.blocking else "",
            note="directly or behind others",
        ),
    ]


def tiles_of_process(now: Backend) -> list[Tile]:
    """Return what a backend's process uses, none where that is not known."""
    if not now.used:
        return []
    reads, writes = now.used["read_bytes_per_second"], now.used["write_bytes_per_second"]
    return [
        Tile(title="CPU", value=now.used["cpu_pct"], write=figures.pct, note="of one processor"),
        Tile(
            title="Memory",
            value=now.used["anon_bytes"],
            write=figures.bytes_,
            note="its own, without shared buffers",
        ),
        Tile(
            title="Disk reads",
            value=reads,
            write=figures.bytes_,
            note="not known: another user's process"
            if writes is None
            else f"a second; {words.size(writes)} written",
        ),
    ]


def process_why(now: Backend | None, *, is_live: bool) -> str:
    """Return why nothing is known of a backend's process, '' where something is."""
    if now is None or now.used:
        return ""
    if not is_live:
        return "What its process uses is read live alone: it is not stored."
    return (
        "What its process uses is not known: only where the target runs on the machine of Howdah's"
        " worker, and is seen to, can that be read."
    )
