"""Which tables need vacuum, why, and what autovacuum does about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts, fleet_rows, frame, horizon_rows, run_rows, table_rows
from dashboard.frame import SUBJECTS
from dashboard.listing import Listing, Row, chosen, listing_of
from dashboard.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors import access, review, vacuuming
from monitors.advisor import Finding
from monitors.history import series
from monitors.history.window import Window
from monitors.models import Target

FILTERS = {"need": "Need vacuum", "due": "Due now", "off": "Autovacuum off", "all": "All"}
SORTED = ("table", *table_rows.COLUMNS)
TOP = 4
"""Tables with a line of their own in the chart."""
RAN = 8
"""The last vacuums that ran, of which the page shows a glimpse."""


@require_safe
def vacuum(request: PageRequest, name: str) -> HttpResponseBase:
    """Show dead rows, their history, and the tables that need vacuum."""
    target, window = get_target(request, name), window_of(request)
    findings = review.findings(target, None if window.is_live else window.end)
    tables = table_rows.tables_of(target, window, findings)
    if wants_limits(request):
        table_rows.add_limits(target, tables)
    shown = listing(request, tables)
    table_rows.add_limits(target, shown.rows)
    exported = table_response(request, "vacuum", table_rows.COLUMNS, shown.matching)
    return exported or page(request, target, window, tables, shown, findings)


def wants_limits(request: PageRequest) -> bool:
    """Return whether every table's limits are needed, not only those of one page."""
    sort = request.GET.get("sort", "").removeprefix("-")
    return bool(request.GET.get("format")) or sort in table_rows.LIMITS


def listing(request: PageRequest, tables: Sequence[Row]) -> Listing:
    """Return the tables that the query asks for; by default n_dead_tup > 1000, worst share first."""
    kept = filtered(tables, chosen(request, "filter", FILTERS, "need"))
    database = request.GET.get("database", "")
    kept = [row for row in kept if not database or row["database"] == database]
    return listing_of(
        request,
        kept,
        columns=SORTED,
        default="-dead_pct",
        searched=lambda row: f"{row['database']} {row['table']}",
    )


def filtered(tables: Sequence[Row], name: str) -> list[Row]:
    """Return the tables of one of `FILTERS`."""
    tests: dict[str, Callable[[Row], bool]] = {
        "need": table_rows.needs_vacuum,
        "due": table_rows.is_due,
        "off": lambda row: not row["autovacuum_enabled"],
        "all": lambda _row: True,
    }
    return [row for row in tables if tests[name](row)]


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    tables: list[Row],
    shown: Listing,
    findings: Sequence[Finding],
) -> HttpResponse:
    """Render the page around a listing."""
    at = None if window.is_live else window.end
    total = series.gauges("tables", target.pk, window, ["n_dead_tup"])
    marks = series.marks(target.pk, window)
    may = access.permissions_of(request.user, target)
    autovacuum = vacuuming.state_of(target, at, tables=tables)
    running = autovacuum.running
    context: dict[str, Any] = {
        "findings": findings_here(findings),
        "verdict": review.verdict(target, findings, page="vacuum", at=at),
        "tables": tables,
        "listing": shown,
        "sort": shown.sort,
        "filter": request.GET.get("filter") or "need",
        "filters": [(key, text, len(filtered(tables, key))) for key, text in FILTERS.items()],
        "databases": sorted({row["database"] for row in tables}),
        "running": running,
        "holders": horizon_rows.holders_of(target, window),
        "horizon_read": horizon_rows.was_read(target, window),
        "queue": autovacuum.queue,
        "workers": autovacuum.workers,
        "ran": run_rows.rows_of(target, run_rows.runs_in(target, window)[:RAN]),
        "tiles": tiles(target, window, tables, running, total),
        "chart": dead_chart(target, window, tables, total, marks),
        "rows": sparked(target, window, shown.rows),
        "may": may,
        "may_pick": not frame.why_not(target, "vacuum", may, is_live=window.is_live),
        "due_count": len(filtered(tables, "due")),
    }
    return render_page(
        request,
        "vacuum.html",
        context,
        page="vacuum",
        target=target,
        window=window,
        reads=("tables",),
        findings=findings,
    )


def findings_here(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of this page's subject."""
    return [one for one in findings if SUBJECTS.get(one.advisor) == "vacuum"]


def sparked(target: Target, window: Window, rows: list[Row]) -> list[Row]:
    """Return the rows of one page of the table with the course of their dead rows."""
    keys = [{"database_id": row["database_id"], "relid": row["relid"]} for row in rows]
    lines = series.sparks("tables", target.pk, window, "n_dead_tup", keys)
    return [{**row, "spark": line} for row, line in zip(rows, lines, strict=True)]


def dead_chart(
    target: Target,
    window: Window,
    tables: Sequence[Row],
    total: series.Series,
    marks: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the chart of dead rows: their sum, and the tables that have most."""
    lines = [("All tables", total, "n_dead_tup")]
    worst = table_rows.worst_of(target, window, tables, TOP)
    for row in worst:
        line = series.gauges(
            "tables",
            target.pk,
            window,
            ["n_dead_tup"],
            database_id=row["database_id"],
            key={"relid": row["relid"]},
        )
        lines.append((label_of(row, worst), line, "n_dead_tup"))
    names = [name for name, _line, _field in lines]
    colours = dict(zip(names, ("text", "lock", "io", "cpu", "ipc"), strict=False))
    return charts.chart(
        "Dead rows",
        charts.joined(lines, within=window.length.total_seconds() / series.POINTS / 2),
        unit="rows",
        colours=colours,
        marks=marks,
        note="n_dead_tup",
        window=window,
        since=target.created_at,
    )


def label_of(row: Row, others: Sequence[Row]) -> str:
    """Return a table's name, with its database where another of that name is shown."""
    alike = [one for one in others if one["table"] == row["table"]]
    return str(row["table"]) if len(alike) == 1 else f"{row['database']}: {row['table']}"


def tiles(
    target: Target,
    window: Window,
    tables: Sequence[Row],
    running: Sequence[Row],
    total: series.Series,
) -> list[dict[str, Any]]:
    """Return the headline figures."""
    due = [row for row in tables if table_rows.is_due(row)]
    off = [row for row in tables if not row["autovacuum_enabled"]]
    oldest = max(tables, key=lambda row: row["xid_age"] or 0, default=None)
    workers = [row for row in running if row["autovacuum"]]
    limit = target.settings.get("autovacuum_max_workers")
    ran = series.grown("tables", target.pk, window, ["vacuum_count", "autovacuum_count"])
    by_hand, by_itself = ran["vacuum_count"], ran["autovacuum_count"]
    dead = [row["n_dead_tup"] or 0 for row in tables]
    return [
        {
            "title": "Dead rows",
            "value": fleet_rows.dead_rows([target], window).get(target.pk),
            "kind": "short",
            "spark": total.values["n_dead_tup"],
            "level": "warning" if due else "",
            "note": f"in {sum(1 for value in dead if value):,} tables",
        },
        {
            "title": "Tables due",
            "value": len(due) if tables else None,
            "unit": f"of {len(tables):,}",
            "level": "warning" if due else "good" if tables else "",
            "note": "past the threshold",
        },
        {
            "title": "Autovacuum off",
            "value": len(off) if tables else None,
            "unit": f"of {len(tables):,}",
            "level": "warning" if off else "",
            "note": off[0]["table"] if off else "by autovacuum_enabled",
        },
        {
            "title": "Autovacuum workers",
            "value": len(workers),
            "unit": f"of {limit}" if limit else "",
            "level": "warning" if limit and len(workers) >= int(limit) else "",
            "note": f"busy {'now' if window.is_live else 'then'}" if workers else "none busy",
        },
        {
            "title": "Oldest XID age",
            "value": oldest["xid_age"] if oldest else None,
            "kind": "short",
            "note": oldest["table"] if oldest and oldest["xid_age"] else "not read yet",
        },
        {
            "title": "Vacuums",
            "value": by_hand + by_itself,
            "note": f"{by_itself:,} auto, {by_hand:,} by hand",
        },
    ]
