"""What runs now, who waits for whom, and the buttons that end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.broker import cached
from dashboard.frame import frame
from dashboard.frame.listing import Listing, chosen, listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors.actions import ACTIONS
from monitors.advisor import marked
from monitors.collect import live
from monitors.findings import judge, unknowns
from monitors.findings.verdict import Verdict, tell_verdict
from monitors.history.freshness import clocks
from monitors.history.gauges import read_gauges_by
from monitors.history.latest import read_as_of, read_latest
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.kinds import PGBOUNCER
from monitors.models import Action, Target
from monitors.people import access
from monitors.rows.backends import (
    COLUMNS,
    Backend,
    BackendRow,
    backends_of,
    sum_up_idle,
)
from monitors.rows.locks import LockTree, build_lock_tree
from monitors.rows.pooler_clients import clients_behind, is_same_work

FILTERS = {"": "Not idle", "all": "All"}
SORTED = (*COLUMNS, "wait")
SIGNALS = [name for name, spec in ACTIONS.items() if spec.is_signal]
RECENT = timedelta(minutes=2)
NOT_SENT = (Action.State.DRAFT, Action.State.REFUSED, Action.State.EXPIRED, Action.State.FAILED)
WAIT_LABELS = {"": "CPU"}
SUPERUSERS = (
    "A superuser's backend can be signalled by a superuser alone, and the operator login of this target"
    " may be none."
)


@dataclass(frozen=True)
class Now:
    """All backends of a target at one moment, longest statement first."""

    backends: list[Backend]
    tree: LockTree
    is_live: bool
    """Whether they were read for those who look, a second ago or two."""


class LineRow(BackendRow):
    """A backend as a line of the page."""

    wait: str  # '' where it waits for nothing
    backend: Backend


@require_safe
def activity(request: PageRequest, name: str) -> HttpResponseBase:
    """Show backends, the lock tree and the load of a window."""
    target = get_target(request, name)
    window = window_of(request)
    seen = read(request, target, window)
    note_clients(request, target, window, seen.backends)
    listing = listing_of_backends(request, seen.backends)
    if exported := table_response(request, "activity", COLUMNS, listing.matching):
        return exported
    at = None if window.is_live else window.end
    findings = judge.find(target, at)
    may = access.permissions_of(request.user, target)
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
        "sort": listing.sort,
        "idle": sum_up_idle(seen.backends),
        "is_all": request.GET.get("filter") == "all",
        "may": may,
        "shows_text": "view_query_text" in may and window.is_live,
        "cancel_why": frame.why_not(target, "cancel_backend", may, is_live=window.is_live),
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


def read(request: PageRequest, target: Target, window: Window) -> Now:
    """Return the backends now, or as they were where the window ends in the past."""
    if not window.is_live:
        moment = read_at(target, window.end) or window.end
        return seen_at(target, read_as_of("activity", target.pk, window.end), moment, {})
    live.watch(target.pk)
    shows_text = access.may(request.user, "view_query_text", target)
    shared, stored_at = live.activity(target.pk), read_at(target)
    # A reading is shared for seconds; while the worker can't read it, the stored one is newer.
    if shared is not None and (stored_at is None or shared.read_at >= stored_at):
        texts = shared.texts if shows_text else {}
        return seen_at(target, shared.rows, shared.read_at, texts, is_live=True)
    texts = cached(f"activity:{target.pk}") or {} if shows_text else {}
    return seen_at(target, read_latest("activity", target.pk), stored_at or window.end, texts)


def seen_at(
    target: Target,
    rows: list[dict[str, Any]],
    moment: datetime,
    texts: dict[str, str],
    *,
    is_live: bool = False,
) -> Now:
    """Return backends and lock tree of some rows at a moment of the target's clock."""
    backends = backends_of(marked(rows, target.logins), moment, texts)
    answer(target, backends)
    note_superusers(target, backends)
    return Now(backends, build_lock_tree(backends, moment), is_live)


def answer(target: Target, backends: list[Backend]) -> None:
    """Note on each backend what was just done to it: the snapshot may be older."""
    since = timezone.now() - RECENT
    actions = Action.objects.filter(target=target, name__in=SIGNALS, created_at__gte=since)
    for action in actions.exclude(state__in=NOT_SENT).order_by("created_at"):
        for backend in backends:
            if action.arguments == backend.guard:
                backend.answered = action


def note_superusers(target: Target, backends: list[Backend]) -> None:
    """Note which backends are beyond the operator login, where it may be no superuser."""
    if not target.allow_superuser:
        for backend in backends:
            if backend.row.get("rolsuper"):
                backend.no_signal = SUPERUSERS


def note_clients(
    request: PageRequest, target: Target, window: Window, backends: list[Backend]
) -> None:
    """Note which client of a pooler that the person may see each backend works for."""
    seen = access.visible_targets(request.user).filter(kind=PGBOUNCER, enabled=True)
    at = None if window.is_live else window.end
    clients, clock = clients_behind(target, at, list(seen)), clocks(target, "activity", at).get(0)
    skew = clock[1] - clock[0] if clock else timedelta()
    for backend in backends:
        client = clients.get(backend.pid)
        if client is not None and is_same_work(client, backend.xact_start, skew):
            backend.client = client


def read_at(target: Target, at: datetime | None = None) -> datetime | None:
    """Return when the activity was read last, now or by a past moment, by the target's clock."""
    read = clocks(target, "activity", at).get(0)
    return read[1] if read else None


def listing_of_backends(request: HttpRequest, backends: list[Backend]) -> Listing[LineRow]:
    """Return the backends that the query picks; without `filter=all` what is not idle."""
    if chosen(request, "filter", FILTERS, "") != "all":
        backends = [one for one in backends if not one.is_idle]
    lines: list[LineRow] = [{**one.export(), "wait": one.wait, "backend": one} for one in backends]
    return listing_of(
        request,
        lines,
        columns=SORTED,
        default="-query_seconds",
        searched=lambda row: haystack(row["backend"]),
    )


def haystack(backend: Backend) -> str:
    """Return the text that the filter box searches."""
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
