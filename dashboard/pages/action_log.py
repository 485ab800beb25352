"""Who did what to which target, why, with which result; and the audit behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame.listing import PAGE_SIZE, Listing, page_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors.actions import ACTIONS
from monitors.history.window import WINDOWS, Window
from monitors.kinds import EVERY
from monitors.models import Action, AuditEntry, Target
from monitors.people import access
from monitors.rows import audit, effects
from monitors.rows.effects import statement_of

DEFAULT_WINDOW = "7d"
ACTION_COLUMNS = (
    "id",
    "action",
    "target",
    "object",
    "sql",
    "asked_by",
    "asked_from",
    "approved_by",
    "reason",
    "state",
    "outcome",
    "effect",
    "verdict",
    "verdict_text",
    "created_at",
    "started_at",
    "finished_at",
    "seconds",
)


class ActionRow(TypedDict):
    """One action as the export has it; None where it has not come so far, '' where nothing is said."""

    id: UUID
    action: str
    target: str
    object: str
    sql: str
    asked_by: str
    asked_from: str
    approved_by: str | None
    reason: str
    state: str
    outcome: str
    effect: str
    verdict: str
    verdict_text: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None  # that the statement ran


class LineRow(TypedDict):
    """A row of the log with the short form of its statement."""

    row: Action | AuditEntry
    statement: str


@dataclass(frozen=True)
class Filters:
    """What the query asks for; '' asks for everything."""

    target: str
    action: str
    person: str
    outcome: str
    text: str


@require_safe
def actions(request: PageRequest) -> HttpResponseBase:
    """Show the actions of every target that the person may see, or the audit (`view=audit`)."""
    return log(request, None)


@require_safe
def target_actions(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the actions of one target, or its part of the audit."""
    return log(request, get_target(request, name, kinds=EVERY))


def log(request: PageRequest, target: Target | None) -> HttpResponseBase:
    """Answer with one of the two lists, as page or export."""
    window = log_window(request)
    filters = filters_of(request, target)
    entries = access.visible_entries(request.user)
    shows_audit = request.GET.get("view") == "audit"
    rows: QuerySet[Any]
    if shows_audit:
        rows = matching_entries(entries, filters, window)
        exported = table_response(request, "howdah-audit", audit.COLUMNS, audit.read_all(rows))
    else:
        rows = matching_actions(request, filters, window)
        exported = table_response(request, "howdah-actions", ACTION_COLUMNS, action_lines(rows))
    if exported:
        return exported
    listing = log_page(request, rows)
    context = {
        "listing": listing,
        "filters": filters,
        "shows_audit": shows_audit,
        "sees_others": access.may(request.user, "audit", target),
        "is_filtered": any(vars(filters_of(request, None)).values()),
        "names": sorted(ACTIONS),
        "outcomes": [state for state in Action.State if state != Action.State.DRAFT],
        "under_way": [line_of(row) for row in under_way(request, target)],
        "targets": sorted(seen_targets(request).values_list("name", flat=True)),
    }
    page = "target-actions" if target else "actions"
    return render_page(request, "action_log.html", context, page=page, target=target, window=window)


def log_page(request: HttpRequest, rows: QuerySet[Any]) -> Listing[LineRow]:
    """Return the page of the log that the query asks for."""
    count = rows.count()
    page = page_of(request, count)
    shown = [line_of(row) for row in rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]]
    q = request.GET.get("q", "").strip()
    return Listing(matching=[], rows=shown, page=page, sort="", q=q, total=count)


def line_of(row: Action | AuditEntry) -> LineRow:
    """Return a row of the log with the short form of its statement."""
    if isinstance(row, Action):
        return {"row": row, "statement": statement_of(row)}
    is_signal = effects.is_signal(row.what)
    return {"row": row, "statement": row.object_name if is_signal else row.sql}


def log_window(request: HttpRequest) -> Window:
    """Return the query's window; without one, seven days: a log is read backwards."""
    words = ("window", "from", "at")
    if any(request.GET.get(word) for word in words):
        return window_of(request)
    now = window_of(request).end
    return Window(now - WINDOWS[DEFAULT_WINDOW], now, is_live=True, label=DEFAULT_WINDOW)


def filters_of(request: HttpRequest, target: Target | None) -> Filters:
    """Return the filters of the query; on a target's own page its name is one."""
    query = request.GET
    return Filters(
        target=target.name if target else query.get("target", ""),
        action=query.get("action", ""),
        person=query.get("person", ""),
        outcome=query.get("outcome", ""),
        text=query.get("q", "").strip(),
    )


def seen_targets(request: PageRequest) -> QuerySet[Target]:
    """Return the targets whose actions the person may see."""
    return access.visible_targets(request.user)


def matching_actions(request: PageRequest, filters: Filters, window: Window) -> QuerySet[Action]:
    """Return the actions of a window that match, newest first; drafts are nobody's business."""
    found = Action.objects.filter(target__in=seen_targets(request)).exclude(
        state=Action.State.DRAFT
    )
    found = found.filter(created_at__gte=window.start, created_at__lt=window.end)
    if filters.target:
        found = found.filter(target_name=filters.target)
    if filters.action:
        found = found.filter(name=filters.action)
    if filters.person:
        found = found.filter(asked_by_name=filters.person)
    if filters.outcome:
        found = found.filter(state=filters.outcome)
    if filters.text:
        fields = ("sql", "object_name", "reason", "outcome", "effect")
        found = found.filter(contains(fields, filters.text))
    took = F("finished_at") - F("started_at")
    return found.select_related("target").annotate(took=took).order_by("-created_at")


def matching_entries(
    entries: QuerySet[AuditEntry], filters: Filters, window: Window
) -> QuerySet[AuditEntry]:
    """Return the audit entries of a window that match, newest first."""
    found = entries.filter(at__gte=window.start, at__lt=window.end)
    if filters.target:
        found = found.filter(target_name=filters.target)
    if filters.action:
        found = found.filter(what=filters.action)
    if filters.person:
        found = found.filter(who=filters.person)
    if filters.outcome:
        found = found.filter(result=filters.outcome)
    if filters.text:
        fields = ("what", "sql", "object_name", "reason", "result", "detail")
        found = found.filter(contains(fields, filters.text))
    return found.order_by("-id")


def contains(fields: tuple[str, ...], text: str) -> Q:
    """Return the condition that one of the fields holds the text, in any case."""
    condition = Q()
    for name in fields:
        condition |= Q(**{f"{name}__icontains": text})
    return condition


def under_way(request: PageRequest, target: Target | None) -> list[Action]:
    """Return what runs or waits now, oldest first, whatever the filters say."""
    states = (Action.State.WAITING, Action.State.QUEUED, Action.State.RUNNING)
    # Of a batch only what runs: its own page has those that wait.
    alone = Q(batch=None) | Q(state=Action.State.RUNNING)
    found = Action.objects.filter(alone, state__in=states, target__in=seen_targets(request))
    if target:
        found = found.filter(target=target)
    return list(found.select_related("target").order_by("created_at")[:PAGE_SIZE])


def seconds_of(action: Action) -> float | None:
    """Return how long the statement ran; None before it ended."""
    if action.started_at and action.finished_at:
        return (action.finished_at - action.started_at).total_seconds()
    return None


def action_lines(rows: QuerySet[Action]) -> Iterator[ActionRow]:
    """Yield the export's line of each action."""
    for row in rows.select_related("approved_by").iterator(chunk_size=500):
        yield {
            "id": row.id,
            "action": row.name,
            "target": row.target_name,
            "object": row.object_name,
            "sql": row.sql,
            "asked_by": row.asked_by_name,
            "asked_from": row.asked_from,
            "approved_by": row.approved_by.get_username() if row.approved_by else None,
            "reason": row.reason,
            "state": row.state,
            "outcome": row.outcome,
            "effect": row.effect,
            "verdict": row.verdict,
            "verdict_text": row.verdict_text,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "seconds": seconds_of(row),
        }
