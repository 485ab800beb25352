"""Findings and what became of them: open, acknowledged, snoozed, resolved; and one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from dashboard.forms.finding import acknowledge_form, snooze_form
from dashboard.frame.listing import PAGE_SIZE, Listing, chosen, page_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.source import source_of
from monitors.actions import ACTIONS
from monitors.advisor import Finding
from monitors.advisors import ADVISORS
from monitors.findings import aside, judge, keep as kept, stuck, thresholds
from monitors.findings.records import finding_of, quiet_of
from monitors.findings.verdict import tell_verdict
from monitors.history.window import WINDOWS, Window
from monitors.kinds import EVERY
from monitors.models import Environment, FindingRecord, Target
from monitors.people import access
from monitors.rows import findings as lists
from monitors.rows.findings import FindingRow

DEFAULT_WINDOW = "7d"
TITLES = {
    "open": "Open",
    "acknowledged": "Acknowledged",
    "snoozed": "Snoozed",
    "resolved": "Resolved",
}
CONFLICT = 409
OF_STUCK = frozenset(advisor.name for advisor, _ in stuck.THRESHOLDS.values())
EARLIER = 20  # former findings of the same object


@dataclass(frozen=True)
class Filters:
    """What the query asks for; '' asks for everything."""

    target: str
    environment: str
    advisor: str
    text: str


class LineRow(FindingRow):
    """A finding as a line of the page."""

    row: FindingRecord
    finding: Finding


@require_safe
def findings(request: PageRequest) -> HttpResponseBase:
    """Show the findings of every target that the person may see."""
    return listed(request, None)


@require_safe
def target_findings(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the findings of one target."""
    return listed(request, get_target(request, name, kinds=EVERY))


def listed(request: PageRequest, target: Target | None) -> HttpResponseBase:
    """Answer with the list, as page or export."""
    window, filters = window_here(request), filters_of(request, target)
    state = chosen(request, "state", TITLES, "open")
    rows = matching(request, filters, window)
    shown: Sequence[FindingRecord] | QuerySet[FindingRecord]
    if window.is_live:
        rows = rows.filter(words_in(filters.text))
        shown, states = rows.filter(state_in(state, window)), counted(rows, window)
    else:
        then = [row for row in kept.as_then(rows, window.end) if has_words(row, filters.text)]
        shown, states = in_the_past(then, state, window)
    lines = (lists.describe(row, window.end) for row in read_on(shown))
    if exported := table_response(request, "howdah-findings", lists.COLUMNS, lines):
        return exported
    found = judge.find(target, None if window.is_live else window.end) if target else None
    context = {
        "listing": page_here(request, shown, window),
        "filters": filters,
        "state": state,
        "states": states,
        "is_filtered": any(vars(filters_of(request, None)).values()),
        "advisors": [advisor.name for advisor in ADVISORS],
        **choices(request),
    }
    if target is not None and found is not None:
        at = None if window.is_live else window.end
        context["verdict"] = tell_verdict(target, found, at=at)
        context["may"] = access.permissions_of(request.user, target)
    return render_page(
        request,
        "findings.html",
        context,
        page="target-findings" if target else "findings",
        target=target,
        window=window,
        findings=found,
    )


def window_here(request: HttpRequest) -> Window:
    """Return the query's window; without one, seven days, since a record is read backwards."""
    if any(request.GET.get(word) for word in ("window", "from", "at")):
        return window_of(request)
    return replace(
        window_of(request), start=timezone.now() - WINDOWS[DEFAULT_WINDOW], label=DEFAULT_WINDOW
    )


def filters_of(request: HttpRequest, target: Target | None) -> Filters:
    """Return the filters of the query; on a target's own page its name is one."""
    query = request.GET
    return Filters(
        target=target.name if target else query.get("target", ""),
        environment=query.get("environment", ""),
        advisor=query.get("advisor", ""),
        text=query.get("q", "").strip(),
    )


def choices(request: PageRequest) -> dict[str, Any]:
    """Return what the person may filter by."""
    targets = access.visible_targets(request.user)
    environments = Environment.objects.filter(target__in=targets).distinct()
    return {
        "targets": sorted(targets.values_list("name", flat=True)),
        "environments": [environment.name for environment in environments],
    }


def matching(request: PageRequest, filters: Filters, window: Window) -> QuerySet[FindingRecord]:
    """Return the findings that fit the filters and had opened when the window ends."""
    rows = lists.find_visible(request.user).filter(opened_at__lte=window.end)
    exact = {
        "target__name": filters.target,
        "target__environment__name": filters.environment,
        "advisor": filters.advisor,
    }
    return rows.filter(**{name: value for name, value in exact.items() if value})


def words_in(text: str) -> Q:
    """Return the condition of findings that name every word of a text."""
    found = Q()
    for word in text.split():
        found &= Q(title__icontains=word) | Q(object_name__icontains=word) | Q(why__icontains=word)
    return found


def has_words(row: FindingRecord, text: str) -> bool:
    """Tell the same of a finding as it was."""
    said = f"{row.title}\n{row.object_name}\n{row.why}".casefold()
    return all(word.casefold() in said for word in text.split())


def in_the_past(
    rows: Sequence[FindingRecord], state: str, window: Window
) -> tuple[list[FindingRecord], list[tuple[str, str, int]]]:
    """Return findings as they were that are in a state, in the order of the list, and `counted`."""
    by_state: dict[str, list[FindingRecord]] = {name: [] for name in TITLES}
    for row in rows:
        if row.resolved_at is None or row.resolved_at >= window.start:
            by_state[lists.state_of(row, window.end)].append(row)
    shown = sorted(
        by_state[state],
        key=lambda row: (
            -row.severity,
            -(row.opened_at or row.first_seen_at).timestamp(),
            -row.pk,  # the rows come in an order of now
        ),
    )
    if state == "resolved":
        shown = by_state[state]  # the last one first already
    return shown, [(name, title, len(by_state[name])) for name, title in TITLES.items()]


def read_on(rows: Sequence[FindingRecord] | QuerySet[FindingRecord]) -> Iterable[FindingRecord]:
    """Return findings one by one: a list of the present may be long."""
    return rows.iterator(chunk_size=1000) if isinstance(rows, QuerySet) else rows


def state_in(state: str, window: Window) -> Q:
    """Return the condition for a state as the window ends; what is resolved was so within it."""
    condition = lists.in_state(state, window.end)
    return condition & Q(resolved_at__gte=window.start) if state == "resolved" else condition


def counted(rows: QuerySet[FindingRecord], window: Window) -> list[tuple[str, str, int]]:
    """Return (state, title, how many match) of each state."""
    counts: Mapping[str, int] = rows.order_by().aggregate(
        **{state: Count("pk", filter=state_in(state, window)) for state in TITLES}
    )
    return [(state, title, counts[state]) for state, title in TITLES.items()]


def page_here(
    request: HttpRequest, rows: Sequence[FindingRecord] | QuerySet[FindingRecord], window: Window
) -> Listing[LineRow]:
    """Return the page of the list that the query asks for."""
    count = rows.count() if isinstance(rows, QuerySet) else len(rows)
    page = page_of(request, count)
    shown: list[LineRow] = [
        {"row": row, "finding": seen(row, window), **lists.describe(row, window.end)}
        for row in rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    ]
    q = request.GET.get("q", "").strip()
    return Listing(matching=[], rows=shown, page=page, sort="", q=q, total=count)


def seen(row: FindingRecord, window: Window) -> Finding:
    """Return a row as a finding that says whether it is quiet."""
    quiet = quiet_of(row, row.severity, window.end)
    return replace(finding_of(row), quiet=quiet)


@require_safe
def finding(request: PageRequest, finding_id: int) -> HttpResponse:
    """Show one finding: by which numbers, why it matters, what helps, when it was so before."""
    return show(request, get_finding(request, finding_id))


def show(
    request: PageRequest, row: FindingRecord, refused: str = "", **forms: Form
) -> HttpResponse:
    """Render a finding around its forms, of which one may have errors."""
    target, window = row.target, window_of(request)
    if not window.is_live:
        [row] = kept.as_then([row], window.end)
    advisor = kept.BY_NAME.get(row.advisor)
    may = access.permissions_of(request.user, target)
    context = {
        "row": row,
        "finding": seen(row, window),
        "line": lists.describe(row, window.end),
        "sources": advisor.reads if advisor else (),
        "thresholds": [one for one in thresholds.in_force(target) if one.advisor == row.advisor],
        "earlier": [lists.describe(one, window.end) for one in lists.find_earlier(row)[:EARLIER]],
        "later": FindingRecord.objects.filter(previous=row).first(),
        "may": may,
        "may_put_aside": "acknowledge" in may,
        "acknowledge_roles": "" if "acknowledge" in may else access.roles_with("acknowledge"),
        "button_css": button_css(row.action),
        "may_be_stuck": row.pid is not None and row.advisor in OF_STUCK,
        "acknowledge_form": acknowledge_form(),
        "snooze_form": snooze_form(),
        "refused": refused,
        **forms,
    }
    wrong = any(form.errors for form in forms.values())
    status = CONFLICT if refused else 400 if wrong else 200
    return render_page(
        request,
        "finding.html",
        context,
        page="target-findings",
        target=target,
        window=window,
        status=status,
    )


def button_css(action: str) -> str:
    """Return the look of an action's button: nothing that harms is the first of a page."""
    spec = ACTIONS.get(action)
    harms = spec is None or spec.destructive or spec.queue == "signals"
    return "btn" if harms else "btn-primary"


@require_POST
def acknowledge(request: PageRequest, finding_id: int) -> HttpResponse:
    """Say that somebody knows."""
    row = get_finding(request, finding_id, "acknowledge")
    form = acknowledge_form(request.POST)
    if form.is_valid():
        try:
            aside.acknowledge(*actor(request), row, form.cleaned_data["reason"])
        except ValidationError as error:
            return refuse(request, row, error)
        messages.success(request, "Acknowledged: it counts again when it gets worse.")
        return redirect("finding", row.pk)
    return show(request, row, acknowledge_form=form)


@require_POST
def snooze(request: PageRequest, finding_id: int) -> HttpResponse:
    """Put a finding off until a moment."""
    row = get_finding(request, finding_id, "acknowledge")
    form = snooze_form(request.POST)
    if form.is_valid():
        until, reason = form.cleaned_data["until"], form.cleaned_data["reason"]
        try:
            aside.snooze(*actor(request), row, until, reason)
        except ValidationError as error:
            return refuse(request, row, error)
        messages.success(request, "Snoozed: it counts again then, or when it gets worse.")
        return redirect("finding", row.pk)
    return show(request, row, snooze_form=form)


@require_POST
def reopen(request: PageRequest, finding_id: int) -> HttpResponse:
    """Have a finding count again."""
    row = get_finding(request, finding_id, "acknowledge")
    try:
        aside.reopen(*actor(request), row)
    except ValidationError as error:
        return refuse(request, row, error)
    messages.success(request, "Open again.")
    return redirect("finding", row.pk)


def refuse(request: PageRequest, row: FindingRecord, error: ValidationError) -> HttpResponse:
    """Show the finding as it is now, and why nothing was done."""
    row.refresh_from_db()
    return show(request, row, refused=" ".join(error.messages))


def get_finding(request: PageRequest, finding_id: int, permission: str = "view") -> FindingRecord:
    """Return a finding; raises Http404 where the person may not even know of it.

    Raises PermissionDenied (and audits it) where it is visible, but `permission` is missing.
    """
    row = lists.find_visible(request.user).filter(pk=finding_id).first()
    if row is None:
        raise Http404
    if permission != "view":
        access.require(request.user, permission, row.target, source=source_of(request))
    return row


def actor(request: PageRequest) -> tuple[str, str]:
    """Return who acts and from where, for the audit."""
    return request.user.get_username(), source_of(request)
