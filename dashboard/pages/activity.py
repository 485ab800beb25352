"""What runs now, who waits for whom, and the buttons that end it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame import backends as shown
from dashboard.frame.backends import Now
from dashboard.frame.listing import Listing, chosen, listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors.findings import judge, unknowns
from monitors.findings.verdict import Verdict, tell_verdict
from monitors.history.gauges import read_gauges_by
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows.backend_groups import (
    GROUP_COLUMNS,
    GROUPS,
    STATES,
    GroupRow,
    groups_of,
    is_in,
    key_of,
    sum_up_idle,
    value_of,
)
from monitors.rows.backends import COLUMNS, Backend, BackendRow

SORTED = (*COLUMNS, "wait")
GROUPED = (
    "value",
    "backends",
    "active",
    "in_transaction",
    "blocked",
    "longest_seconds",
    "longest_xact_seconds",
)
"""Columns that groups are sorted by."""
WAIT_LABELS = {"": "CPU"}


class LineRow(BackendRow):
    """A backend as a line of the page."""

    wait: str  # '' where it waits for nothing
    backend: Backend


@require_safe
def activity(request: PageRequest, name: str) -> HttpResponseBase:
    """Show backends, the lock tree and the load of a window."""
    target = get_target(request, name)
    window = window_of(request)
    seen = shown.read(request, target, window)
    shown.note_clients(request, target, window, seen.backends)
    picked = pick(request, seen)
    listing = listing_of_backends(request, picked)
    groups = listing_of_groups(request, picked)
    exported = (
        table_response(request, "activity-groups", GROUP_COLUMNS, groups.matching)
        if groups
        else table_response(request, "activity", COLUMNS, listing.matching)
    )
    if exported:
        return exported
    at = None if window.is_live else window.end
    findings = judge.find(target, at)
    verdict = tell_verdict(target, findings, page="activity", at=at)
    unknown = unknowns.unknowns_of(target, at)
    context = {
        "verdict": verdict,
        "unknown": unknown,
        "idle_words": idle_words(unknown),
        "worst": subject_of(verdict, seen.backends),
        "seen": seen,
        "chart": load_chart(target, window),
        "listing": listing,
        "groups": groups,
        "sort": groups.sort if groups else listing.sort,
        "shows_used": any(one.used for one in seen.backends),
        "idle": sum_up_idle(seen.backends),
        **words_of(request, seen.alone),
        "scrub": shown.scrub_of(target, window),
        **shown.may_of(request, target, window),
    }
    return render_page(
        request,
        "activity.html",
        context,
        page="activity",
        target=target,
        window=window,
        reads=("activity",),
        findings=findings,
        is_live=seen.is_live,
    )


def subject_of(verdict: Verdict, backends: list[Backend]) -> Backend | None:
    """Return the client's backend that a verdict speaks of first, None where it has ended."""
    pid = verdict.finding.pid if verdict.finding else None
    clients = (backend for backend in backends if backend.is_client)
    return next((backend for backend in clients if backend.pid == pid), None)


def pick(request: HttpRequest, seen: Now) -> list[Backend]:
    """Return the backends that the query picks; without `filter` what is not idle.

    `by` and `value` are a group and what its backends have in common. Parallel workers stand with
    their leader, in an export each for itself.
    """
    state = chosen(request, "filter", STATES, "")
    by = chosen(request, "by", {"": "", **GROUPS}, "")
    value = request.GET.get("value", "")
    every = seen.backends if request.GET.get("format") else seen.alone
    return [
        one
        for one in every
        if is_in(state, one) and (not by or key_of(value_of(one, by), by) == value)
    ]


def listing_of_backends(request: HttpRequest, backends: list[Backend]) -> Listing[LineRow]:
    """Return the listing of some backends that the query asks for."""
    lines: list[LineRow] = [{**one.export(), "wait": one.wait, "backend": one} for one in backends]
    # A page of groups is sorted by what only groups have.
    columns = (*SORTED, *GROUPED) if request.GET.get("group") else SORTED
    return listing_of(
        request,
        lines,
        columns=columns,
        default="-query_seconds",
        searched=lambda row: haystack(row["backend"]),
    )


def listing_of_groups(request: HttpRequest, backends: list[Backend]) -> Listing[GroupRow] | None:
    """Return the groups of some backends that the query asks for, None where it asks for none."""
    group = chosen(request, "group", {"": "", **GROUPS}, "")
    if not group:
        return None
    sought = request.GET.get("q", "").strip().casefold()
    matching = [one for one in backends if sought in haystack(one).casefold()]
    return listing_of(
        request,
        groups_of(matching, group),
        columns=GROUPED,
        default="-backends",
        searched=lambda row: sought,
    )


def words_of(request: HttpRequest, backends: list[Backend]) -> dict[str, Any]:
    """Return what the head of the table offers, and what of it is chosen."""
    by = request.GET.get("by", "")
    value = request.GET.get("value", "")
    alike = next((one for one in backends if by and key_of(value_of(one, by), by) == value), None)
    return {
        "filter": request.GET.get("filter", ""),
        "filters": [
            (word, text, sum(is_in(word, one) for one in backends))
            for word, (text, _) in STATES.items()
        ],
        "group_names": GROUPS,
        "group_title": GROUPS.get(request.GET.get("group", ""), ""),
        "by_title": GROUPS.get(by, ""),
        "by_value": value_of(alike, by) if alike else value,
    }


def haystack(backend: Backend) -> str:
    """Return the text that the filter box searches: of a parallel statement in all its processes."""
    return " ".join(map(text_of, (backend, *backend.workers)))


def text_of(backend: Backend) -> str:
    """Return what of one process is searched."""
    names = ("pid", "usename", "datname", "application_name", "client_addr", "state")
    parts = [str(backend.row.get(name) or "") for name in names]
    return " ".join([*parts, backend.wait, backend.query])


def idle_words(unknown: Mapping[str, str]) -> str:
    """Return what is said where no backend was seen active."""
    if unknowns.STATEMENTS in unknown:
        return f"No backend is known to have been active. {unknown[unknowns.STATEMENTS]}"
    return "No backend was active at a snapshot of this window."


def load_chart(target: Target, window: Window) -> dict[str, Any]:
    """Return active backends by what they wait for, stacked; CPU where they wait for nothing."""
    load = read_gauges_by("sessions", target.id, window, "backends", by="wait_event_type")
    return charts.chart(
        "Active backends",
        load,
        unit="count",
        labels=WAIT_LABELS,
        colours=charts.WAIT_COLOURS,
        stack=True,
        marks=read_marks(target.id, window),
        window=window,
        since=target.created_at,
    )
