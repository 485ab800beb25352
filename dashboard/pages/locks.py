"""Who holds everybody up, the one button that releases them, and who blocked whom in a window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.broker import cached
from dashboard.frame import states
from dashboard.frame.backends import answer, note_superusers
from dashboard.frame.hindrance import why_not
from dashboard.frame.listing import chosen
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.findings import judge
from monitors.findings.verdict import Verdict, tell_verdict
from monitors.history.gauges import read_gauges
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import Target
from monitors.people import access
from monitors.rows import lock_edges, lock_history, locks as lock_rows
from monitors.rows.lock_history import History
from monitors.rows.locks import Locks

EXPORTS = {"roots": "Roots", "edges": "Edges", "history": "Who blocked whom", "objects": "Objects"}


@require_safe
def locks(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the roots with the queues behind them, or export what `of` names."""
    target, window = get_target(request, name), window_of(request)
    of = chosen(request, "of", EXPORTS, "roots")
    found = lock_rows.read_locks(target, window, texts_for(request, target, window))
    exported: HttpResponseBase | None
    if of == "roots":
        exported = table_response(request, "locks", lock_rows.COLUMNS, found.roots)
    elif of == "edges":
        exported = table_response(request, "lock-edges", lock_edges.COLUMNS, found.edges)
    else:
        exported = export_history(request, lock_history.history_of(target, window), of)
    return exported or page(request, target, window, found)


def texts_for(request: PageRequest, target: Target, window: Window) -> dict[str, str]:
    """Return statements with their values, as they run now, for who may see them."""
    if not window.is_live or not access.may(request.user, "view_query_text", target):
        return {}
    return cached(f"activity:{target.pk}") or {}


def export_history(request: PageRequest, history: History, of: str) -> HttpResponseBase | None:
    """Answer with who blocked whom in the window, or with what was waited for."""
    if of == "objects":
        columns, objects = lock_history.OBJECT_COLUMNS, history.objects
        return table_response(request, "lock-objects", columns, objects)
    return table_response(request, "lock-history", lock_history.COLUMNS, history.blockers)


def page(request: PageRequest, target: Target, window: Window, found: Locks) -> HttpResponseBase:
    """Render the page around what is known."""
    at = None if window.is_live else window.end
    findings = judge.find(target, at)
    may = access.permissions_of(request.user, target)
    backends = [tree.backend for tree in found.trees if tree.backend]
    if window.is_live:  # what is done now was not done then
        answer(target, backends)
    note_superusers(target, backends)
    context: dict[str, Any] = {
        "found": found,
        "verdict": verdict_of(tell_verdict(target, findings, page="locks", at=at), found),
        "tiles": tiles(found),
        "was_read": states.was_ever_read(target, "locks", window),
        "chart": blocked_chart(target, window),
        "history": lock_history.history_of(target, window),
        "deadlocks": lock_history.deadlocks_of(target, window),
        "databases_read": states.was_ever_read(target, "databases", window),
        "waits": lock_history.waits_of(target, window),
        "may": may,
        "shows_text": "view_query_text" in may and window.is_live,
        "cancel_why": why_not(target, "cancel_backend", may, is_live=window.is_live),
    }
    return render_page(
        request,
        "locks.html",
        context,
        page="locks",
        target=target,
        window=window,
        reads=("locks",),
        findings=findings,
    )


def verdict_of(verdict: Verdict, found: Locks) -> Verdict:
    """Return the verdict, which may rest on a moment before the one of these locks."""
    if verdict.level != "good" or not found.blocked:
        return verdict
    verb = "waits" if found.blocked == 1 else "wait"
    text = f"{words.count(found.blocked, 'session')} {verb} for a lock."
    return replace(verdict, level="notice", text=text)


def tiles(found: Locks) -> list[Tile]:
    """Return the headline figures."""
    level = "warning" if found.blocked else "good"
    deadlocked = sum(row["in_deadlock"] for row in found.roots)
    return [
        Tile(title="Blocked sessions", value=found.blocked, level=level),
        Tile(
            title="Root blockers",
            value=len(found.trees),
            note=f"{words.count(deadlocked, 'deadlock')}" if deadlocked else "",
        ),
        Tile(
            title="Waited in total",
            value=found.waited_seconds if found.blocked else 0,
            write=figures.duration,
            note="by those who wait now" if found.blocked else "",
        ),
        Tile(
            title="Longest wait",
            value=found.longest_seconds if found.blocked else 0,
            write=figures.duration,
        ),
    ]


def blocked_chart(target: Target, window: Window) -> dict[str, Any]:
    """Return the chart of client backends that wait for a lock."""
    return charts.chart(
        "Blocked backends",
        read_gauges("sessions", target.pk, window, ["blocked"]),
        unit="count",
        labels={"blocked": "Blocked"},
        marks=read_marks(target.pk, window),
        window=window,
        since=target.created_at,
    )
