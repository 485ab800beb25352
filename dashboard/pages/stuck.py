"""Stuck backends of every target that one may see, worst first, and the press that releases one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.http.response import HttpResponseBase
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.broker import cached
from dashboard.frame.hindrance import why_not
from dashboard.frame.listing import listing_of
from dashboard.frame.requests import PageRequest, render_page, table_response
from monitors import words
from monitors.actions import ACTIONS
from monitors.models import Action, Target
from monitors.people import access
from monitors.rows import stuck as rows
from monitors.rows.backends import Backend
from monitors.rows.stuck import COLUMNS, Line, StuckRow

SORTED = ("position", *COLUMNS)
RECENT = timedelta(minutes=2)
NOT_SENT = (Action.State.DRAFT, Action.State.REFUSED, Action.State.EXPIRED, Action.State.FAILED)
SIGNALS = [name for name, spec in ACTIONS.items() if spec.is_signal]
RELEASE, CANCEL = "release_backend", "cancel_backend"
SUPERUSERS = "A superuser's backend can be signalled by a superuser alone."
UNNAMED = "When its statement or its state began is not known, so nothing names it for sure."


@dataclass(frozen=True)
class Press:
    """The button of a line: which action it asks for, or why there is none."""

    action: str
    verb: str
    title: str
    """What a press does."""
    why_not: str
    wants_reason: bool = False


class LineRow(StuckRow):
    """A stuck backend as a line of the page."""

    position: int  # worst first
    line: Line
    press: Press
    answered: Action | None  # what was just done to it, in this very state


@require_safe
def stuck(request: PageRequest) -> HttpResponseBase:
    """Show what is stuck now, as far as that is known."""
    targets = list(access.visible_targets(request.user))
    may = {}

    def texts(target: Target) -> Mapping[str, str]:
        may[target.pk] = access.permissions_of(request.user, target)
        shows = "view_query_text" in may[target.pk]
        return (cached(f"activity:{target.pk}") or {}) if shows else {}

    found = rows.stuck_of(targets, texts=texts)
    lines = lines_of(found.lines, may)
    listing = listing_of(request, lines, columns=SORTED, default="position", searched=haystack)
    if exported := table_response(request, "stuck", COLUMNS, listing.matching):
        return exported
    context = {
        "listing": listing,
        "sort": listing.sort,
        "found": found,
        "targets": targets,
        "verdict": verdict_of(found, len(targets)),
        "shows_text": any("view_query_text" in names for names in may.values()),
        "may_define": access.may(request.user, "manage_targets"),
    }
    return render_page(request, "stuck.html", context, page="stuck")


def lines_of(found: Sequence[Line], may: Mapping[int, frozenset[str]]) -> list[LineRow]:
    """Return the lines of the page, worst first."""
    done = answers([line.target for line in found])
    return [
        {
            **line.row(),
            "position": place,
            "line": line,
            "press": press_of(line, may[line.target.pk]),
            "answered": done.get((line.target.pk, *sorted(line.backend.guard.items()))),
        }
        for place, line in enumerate(found)
    ]


def press_of(line: Line, may: frozenset[str]) -> Press:
    """Return the button of a line: release, or cancel for who may do only that."""
    backend, target = line.backend, line.target
    only_cancels = RELEASE not in may and CANCEL in may and backend.is_running
    action = CANCEL if only_cancels else RELEASE
    why = why_not(target, action, may, is_live=True)
    if not why and backend.row.get("rolsuper") and not target.allow_superuser:
        why = SUPERUSERS
    if not why and set(backend.guard) == {"pid", "backend_start"}:
        why = UNNAMED
    wants_reason = action == RELEASE and target.environment.reason_required
    return Press(action, ACTIONS[action].verb, title_of(action, backend), why, wants_reason)


def title_of(action: str, backend: Backend) -> str:
    """Return what a press does to a backend."""
    if action == CANCEL:
        return "Cancels its statement; to terminate its session takes a dba"
    if backend.is_running:
        return "Cancels its statement; if it still runs 5 s later its session is terminated"
    return "Terminates its session: it runs nothing that could be cancelled"


def answers(targets: Sequence[Target]) -> dict[tuple[object, ...], Action]:
    """Return the signals that were just sent, by target and the state that they were for."""
    recent = Action.objects.filter(
        target__in={target.pk for target in targets},
        name__in=SIGNALS,
        created_at__gte=timezone.now() - RECENT,
    )
    return {
        (one.target_id, *sorted(one.arguments.items())): one
        for one in recent.exclude(state__in=NOT_SENT).order_by("created_at")
    }


def haystack(row: LineRow) -> str:
    """Return the text that the filter box searches."""
    names = ("target", "environment", "pid", "usename", "application_name", "datname", "why")
    return " ".join([*(str(row.get(name) or "") for name in names), row["query"]])


def verdict_of(found: rows.Stuck, targets: int) -> dict[str, str]:
    """Return what is stuck in a sentence, with what is not known beside it."""
    foot = ""
    if found.unread:
        foot = f"Of {words.count(len(found.unread), 'target')} it is not known now."
    if found.lines:
        worst, where = found.lines[0], {line.target.pk for line in found.lines}
        is_one = len(found.lines) == 1
        count = f"{words.count(len(found.lines), 'backend')} {'is' if is_one else 'are'} stuck"
        on = worst.target.name if len(where) == 1 else words.count(len(where), "target")
        blocks = worst.backend.blocking
        place = f" on {worst.target.name}" if len(where) > 1 else ""
        who = f"{worst.backend.pid}{place}, {worst.backend.who},"
        behind = f"keeps {words.count(blocks, 'backend')} waiting" if blocks else "blocks nobody"
        text = f"{count} on {on}. The worst, {who} {behind}."
        return {"level": "critical" if blocks else "warning", "text": text, "foot": foot}
    if targets and len(found.unread) == targets:
        return {"level": "unknown", "text": "No target is read now.", "foot": foot}
    said = "Nothing is known to be stuck." if found.unread else "Nothing is stuck."
    return {"level": "good", "text": said, "foot": foot}
