"""Everything that is known of one index: definition, size, waste and scans, on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors.actions import ACTIONS
from monitors.advisor import Finding, table_name
from monitors.findings import judge
from monitors.findings.verdict import tell_verdict
from monitors.history.counters import read_rates
from monitors.history.gauges import read_gauges
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import Action, Database, Target
from monitors.people import access
from monitors.rows import bloat as bloat_rows, indexes, tables as table_rows
from monitors.rows.bloat import BloatRow
from monitors.rows.indexes import IndexRow

COLUMNS = (
    "database",
    "schemaname",
    "relname",
    "indexrelname",
    "indexrelid",
    "indexdef",
    "indisunique",
    "indisprimary",
    "indisvalid",
    "scans",
    "idx_scan",
    "last_idx_scan",
    "size_bytes",
    "bloat_bytes",
    "bloat_pct",
    "method",
    "measured_at",
)
WINDOW = "24h"


class JudgedRow(IndexRow):
    """One index with its waste, as its page shows it; of one that is not judged that is None."""

    database: str
    datid: int
    schemaname: str | None
    relname: str | None
    table: str  # quoted, its oid where the name is not known
    name: str | None  # quoted; without its schema where it is not judged
    judged: BloatRow | None
    bloat_bytes: int | None
    bloat_pct: float | None
    shown_pct: float | None
    method: str | None
    measured_at: datetime | None


@require_safe
def index(request: PageRequest, name: str, datid: int, indexrelid: int) -> HttpResponseBase:
    """Show one index."""
    target, window = get_target(request, name), window_of(request, WINDOW)
    database = Database.objects.filter(target=target, datid=datid).first()
    row = found(target, window, database, indexrelid)
    exported = table_response(request, "index", COLUMNS, [row])
    return exported or page(request, target, window, row)


def found(target: Target, window: Window, database: Database | None, indexrelid: int) -> JudgedRow:
    """Return the index's row: that of its use with that of its waste. Raises Http404."""
    kept = indexes.find(target, window, database.pk, indexrelid) if database else None
    if database is None or kept is None:
        raise Http404
    place = {"database_id": database.pk}
    bloats = bloat_rows.bloat_of(target, window, {**place, "relid": indexrelid})
    bloat = bloats[0] if bloats else bloat_rows.last_known(target, window, database, indexrelid)
    tables = table_rows.rows_at("tables", target, window, {**place, "relid": kept["relid"]})
    table = tables[0] if tables else None
    grown = indexes.read_growth(target, window, [kept])
    row = indexes.index_row(kept, grown[0] if grown else None)
    main = table or bloat or {"schemaname": None, "relname": None}
    return {
        **row,
        "size_bytes": bloat["size_bytes"] if bloat else row["size_bytes"],
        "database": database.datname,
        "datid": database.datid,
        "judged": bloat,
        "schemaname": main["schemaname"],
        "relname": main["relname"],
        "table": table_name(table) if table and table["relname"] else str(kept["relid"]),
        "name": bloat["name"] if bloat else row["indexrelname"],
        "bloat_bytes": bloat["bloat_bytes"] if bloat else None,
        "bloat_pct": bloat["bloat_pct"] if bloat else None,
        "shown_pct": bloat["shown_pct"] if bloat else None,
        "method": bloat["method"] if bloat else None,
        "measured_at": bloat["measured_at"] if bloat else None,
    }


def page(request: PageRequest, target: Target, window: Window, row: JudgedRow) -> HttpResponse:
    """Render the page of one index."""
    at = None if window.is_live else window.end
    findings = judge.find(target, at)
    mine, place = findings_of(findings, row), row["database_id"]
    context: dict[str, Any] = {
        "row": row,
        "findings": mine,
        "verdict": tell_verdict(target, mine, page="bloat", at=at, database_id=place)
        if mine
        else None,
        "tiles": tiles(row),
        "charts": charts_of(target, window, row),
        "has_last_scan": indexes.has_last_scan(target),
        "since": indexes.counted_since(target, window, row["database_id"]),
        "actions": actions_on(target, row),
        "offers": frozenset(ACTIONS),
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "index.html",
        context,
        page="bloat",
        target=target,
        window=window,
        reads=("indexes", "bloat"),
        findings=findings,
        database_id=place,
    )


def findings_of(findings: Sequence[Finding], row: JudgedRow) -> list[Finding]:
    """Return the findings that name the index."""
    return [
        one
        for one in findings
        if one.database_id == row["database_id"] and one.object_name == row["name"]
    ]


def tiles(row: JudgedRow) -> list[Tile]:
    """Return the headline figures."""
    judged = row["judged"]
    entries = -1 if judged is None or judged["reltuples"] is None else judged["reltuples"]
    share = f"{row['shown_pct']:.0f} % of it, " if row["shown_pct"] is not None else ""
    return [
        Tile(title="Size", value=row["size_bytes"], write=figures.bytes_, note="its pages"),
        Tile(
            title="Wasted",
            value=row["bloat_bytes"],
            write=figures.bytes_,
            note=f"{share}{judged['word']}" if judged and row["method"] else "not known",
        ),
        Tile(
            title="Scans",
            value=row["scans"],
            write=figures.short,
            note="in this window" if row["scans"] is not None else "not known in this window",
        ),
        Tile(
            title="All scans",
            value=row["idx_scan"],
            write=figures.short,
            note="idx_scan" if row["idx_scan"] is not None else "not known any more",
        ),
        Tile(
            title="Entries",
            value=entries if entries >= 0 else None,  # -1: never noted
            write=figures.short,
            note="reltuples",
        ),
    ]


def charts_of(target: Target, window: Window, row: JudgedRow) -> list[dict[str, Any]]:
    """Return the charts: size with waste, and scans."""
    place = {"database_id": row["database_id"]}
    mine = {**place, "relid": row["indexrelid"]}
    sizes = read_gauges(
        "bloat",
        target.pk,
        window,
        ["size_bytes", "bloat_bytes"],
        **place,
        key={"relid": row["indexrelid"]},
    )
    scans = read_rates(
        "indexes", target.pk, window, ["idx_scan"], **place, key={"indexrelid": row["indexrelid"]}
    )
    marks = read_marks(target.pk, window, [mine])
    return [
        charts.chart(
            "Size and waste",
            sizes,
            unit="bytes",
            labels={"size_bytes": "Size", "bloat_bytes": "Wasted"},
            colours={"size_bytes": "io", "bloat_bytes": "lock"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
        charts.chart(
            "Scans",
            scans,
            unit="per_s",
            labels={"idx_scan": "Scans"},
            colours={"idx_scan": "cpu"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
    ]


def actions_on(target: Target, row: JudgedRow) -> list[Action]:
    """Return what was done to the index from here, newest first."""
    wanted = {"database": row["database"], "index": row["name"]}
    done = Action.objects.filter(target=target, arguments__contains=wanted)
    return list(done.exclude(state=Action.State.DRAFT).order_by("-created_at")[:20])
