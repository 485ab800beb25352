"""Every vacuum and analyze that ran on a target: when, how long, by whom, and what it did."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame import states
from dashboard.frame.listing import PAGE_SIZE, Listing, chosen, page_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors.history.window import WINDOWS, Window
from monitors.models import Target, VacuumRun
from monitors.rows import runs as run_rows

DEFAULT_WINDOW = "24h"
FILTERS = {
    "all": "All",
    "auto": "Autovacuum",
    "manual": "By hand",
    "howdah": "Through Howdah",
    "wraparound": "Against wraparound",
    "passes": "Several passes",
}
TESTS = {
    "all": Q(),
    "auto": Q(kind__in=[VacuumRun.Kind.AUTOVACUUM, VacuumRun.Kind.AUTOANALYZE]),
    "manual": ~Q(kind__in=[VacuumRun.Kind.AUTOVACUUM, VacuumRun.Kind.AUTOANALYZE]),
    "howdah": Q(action_id__isnull=False),
    "wraparound": Q(wraparound=True),
    "passes": Q(passes__gt=1),
}
SORTS = {
    "ended_at": "ended_at",
    "seconds": "seconds",
    "table": "relname",
    "kind": "kind",
    "n_dead_before": "n_dead_before",
}
CHUNK = 2000


@require_safe
def vacuum_runs(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the runs of a window, newest first, or export all that the filter matches."""
    target, window = get_target(request, name), runs_window(request)
    sort = chosen_sort(request)
    runs = matching(request, target, window, sort)
    exported = table_response(
        request, "vacuum-runs", run_rows.COLUMNS, read_all(target, window, runs)
    )
    if exported:
        return exported
    every = run_rows.runs_in(target, window)
    count, none = runs.count(), None if target.in_recovery else 0  # a standby sees no run
    page = page_of(request, count)
    shown = run_rows.rows_of(target, window, runs[(page - 1) * PAGE_SIZE : page * PAGE_SIZE])
    q = request.GET.get("q", "").strip()
    context = {
        "listing": Listing(matching=[], rows=shown, page=page, sort=sort, q=q, total=count),
        "sort": sort,
        "filter": request.GET.get("filter") or "all",
        "filters": [
            (key, text, every.filter(TESTS[key]).count() or none) for key, text in FILTERS.items()
        ],
        "databases": sorted({one.datname for one in target.databases_by_id.values()}),
        "runs": shown,
        "was_read": count > 0 or states.was_ever_read(target, "tables", window),
    }
    return render_page(
        request,
        "vacuum_runs.html",
        context,
        page="vacuum",
        target=target,
        window=window,
        reads=("tables",),
    )


def runs_window(request: HttpRequest) -> Window:
    """Return the query's window; without one, a day: vacuums are rare."""
    if any(request.GET.get(word) for word in ("window", "from", "at")):
        return window_of(request)
    now = window_of(request).end
    return Window(now - WINDOWS[DEFAULT_WINDOW], now, is_live=True, label=DEFAULT_WINDOW)


def chosen_sort(request: HttpRequest) -> str:
    """Return the column to sort by, a hyphen before it for the greatest first; raises BadRequest."""
    choices = {f"{sign}{name}" for sign in ("", "-") for name in SORTS}
    return chosen(request, "sort", dict.fromkeys(sorted(choices)), "-ended_at")


def matching(
    request: HttpRequest, target: Target, window: Window, sort: str
) -> QuerySet[VacuumRun]:
    """Return the runs that the query asks for, in its order, those without a value last."""
    runs = run_rows.runs_in(target, window)
    runs = runs.filter(TESTS[chosen(request, "filter", FILTERS, "all")])
    if request.GET.get("database"):
        wanted = request.GET["database"]
        ids = [pk for pk, one in target.databases_by_id.items() if one.datname == wanted]
        runs = runs.filter(database_id__in=ids)
    q = request.GET.get("q", "").strip()
    if q:
        runs = runs.filter(
            Q(relname__icontains=q) | Q(schemaname__icontains=q) | Q(by__icontains=q)
        )
    column = F(SORTS[sort.removeprefix("-")])
    order = column.desc if sort.startswith("-") else column.asc
    return runs.order_by(order(nulls_last=True), "-ended_at", "-pk")


def read_all(
    target: Target, window: Window, runs: QuerySet[VacuumRun]
) -> Iterator[run_rows.RunRow]:
    """Yield all runs as rows of the export, some thousand at a time."""
    for start in range(0, runs.count(), CHUNK):
        yield from run_rows.rows_of(target, window, runs[start : start + CHUNK])
