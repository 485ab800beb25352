"""Which tables autovacuum takes next, in its own order, and what its workers do now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame import states
from dashboard.frame.listing import Listing, chosen, listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.findings import unknowns
from monitors.history import at_once
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import vacuuming
from monitors.rows.queue import QUEUE_COLUMNS, QueueRow
from monitors.rows.running import RUNNING_COLUMNS
from monitors.rows.vacuum_parts import Workers

VIEWS = {"queue": "Queue", "running": "Running"}
SORTED = ("table", "does", *QUEUE_COLUMNS)


@require_safe
def vacuum_queue(request: PageRequest, name: str) -> HttpResponseBase:
    """Show or export the queue; with `view=running` export the running commands."""
    target, window = get_target(request, name), window_of(request)
    view = chosen(request, "view", VIEWS, "queue")
    state = vacuuming.state_of(target, None if window.is_live else window.end)
    shown = listing_of(
        request,
        state.queue,
        columns=SORTED,
        default="position",
        searched=lambda row: f"{row['database']} {row['table']} {row['toast_of'] or ''}",
    )
    if view == "running":
        exported = table_response(request, "vacuum-running", RUNNING_COLUMNS, state.running)
    else:
        exported = table_response(request, "vacuum-queue", QUEUE_COLUMNS, shown.matching)
    if exported:
        return exported
    return render_page(
        request,
        "vacuum_queue.html",
        {
            **context_of(target, state, shown),
            "unknown": unknowns.unknowns_of(target, None if window.is_live else window.end),
            "chart": workers_chart(target, window, state.workers),
            "was_read": states.was_ever_read(target, "tables", window),
        },
        page="vacuum",
        target=target,
        window=window,
        reads=("tables", "progress"),
    )


def context_of(target: Target, state: vacuuming.State, shown: Listing[QueueRow]) -> dict[str, Any]:
    """Return what the page's template shows."""
    return {
        "workers": state.workers,
        "queue": state.queue,
        "left": state.left,
        "running": state.running,
        "listing": shown,
        "sort": shown.sort,
        "rows": shown.rows,
        "tiles": []
        if target.in_recovery
        else tiles(target.settings, state.workers, state.queue, state.left),
    }


def workers_chart(target: Target, window: Window, workers: Workers) -> dict[str, Any]:
    """Return the chart of how many workers were at a table at once, with how many there may be."""
    limit = {"value": workers.most, "label": "at most", "always": True}
    return charts.chart(
        "Workers busy",
        at_once.most_at_once("progress", target.pk, window, "autovacuum"),
        unit="count",
        labels={"most": "Busy"},
        colours={"most": "io"},
        marks=read_marks(target.pk, window),
        lines=[limit] if workers.most is not None else [],
        note="at a table at once, the most between two points",
        window=window,
        since=target.created_at,
    )


def tiles(
    settings: Mapping[str, str], workers: Workers, queue: list[QueueRow], left: int | None
) -> list[Tile]:
    """Return the headline figures; `left` tables are past a threshold and autovacuum is off."""
    forced = sum(line["for_wraparound"] for line in queue)
    lengths = [line["expected_seconds"] for line in queue if line["state"] == "waiting"]
    known = [length for length in lengths if length is not None]
    full = workers.free == 0
    tells = unknowns.tells_activities(settings)
    return [
        Tile(
            title="In the queue",
            value=len(queue),
            level="warning" if left else "" if queue else "good",
            note=due_note(forced, left),
        ),
        Tile(
            title="Workers busy",
            value=workers.busy if tells else None,
            unit=f"of {workers.most}" if tells and workers.most is not None else "",
            level="warning" if full and queue else "",
            note=slots_note(workers) if tells else unknowns.NOT_TOLD,
        ),
        Tile(
            title="A visit each",
            value=workers.naptime_seconds,
            write=figures.duration,
            note=f"to each of {words.count(workers.databases, 'database')}",
        ),
        Tile(
            title="Work waiting",
            value=sum(known) if known else None,
            write=figures.duration,
            note=f"{len(known):,} of {len(lengths):,} have run before"
            if known
            else "no run is known",
        ),
    ]


def slots_note(workers: Workers) -> str:
    """Return which setting limits the workers."""
    return f"autovacuum_worker_slots {workers.slots}" if workers.slots else "autovacuum_max_workers"


def due_note(forced: int, left: int | None) -> str:
    """Return how many tables are due for wraparound, or how many nothing comes for."""
    if left:
        return f"{left:,} more with autovacuum off"
    return f"{forced:,} to prevent wraparound" if forced else "none for wraparound"
