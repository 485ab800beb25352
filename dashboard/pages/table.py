"""Everything that is known of one table, on one time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.listing import chosen
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.statement_states import state_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.actions import offered
from monitors.advisor import Finding
from monitors.findings import judge, unknowns
from monitors.findings.verdict import SUBJECTS, tell_verdict
from monitors.history.counters import read_rates
from monitors.history.gauges import read_gauges
from monitors.history.latest import as_unread
from monitors.history.marks import read_marks
from monitors.history.source import POINTS, Series
from monitors.history.window import Window
from monitors.models import HISTORY, Action, Database, Target
from monitors.people import access
from monitors.rows import (
    autovacuum,
    bloat as bloat_rows,
    indexes,
    mentions,
    partitions as partition_rows,
    runs as run_rows,
    tables as table_rows,
)
from monitors.rows.bloat import BloatRow
from monitors.rows.partitions import WholeRow
from monitors.rows.tables import TableRow

GAUGES = ("n_live_tup", "n_dead_tup", "size_bytes", "n_mod_since_analyze")
SCANS = ("seq_scan",)
WRITES = ("n_tup_ins", "n_tup_upd", "n_tup_del")
HUNDRED = 100
UNCOUNTED = "Not known on a standby: the counters of tables are not replicated."
VIEWS = {"table": "The table", "statements": "The statements that name it"}
"""What an export holds."""


@require_safe
def table(request: PageRequest, name: str, datid: int, relid: int) -> HttpResponseBase:
    """Show one table's rows, size, scans, writes, vacuums and thresholds."""
    target, window = get_target(request, name), window_of(request)
    database = Database.objects.filter(target=target, datid=datid).first()
    findings = judge.find(target, None if window.is_live else window.end)
    row = found(target, window, database, relid, findings)
    if chosen(request, "view", VIEWS, "table") == "statements":
        lines = mentions.every_statement(target, window, row)
        exported = table_response(request, "table-statements", mentions.COLUMNS, lines)
    else:
        exported = table_response(request, "table", table_rows.COLUMNS, [row])
    return exported or page(request, target, window, row, findings)


def found(
    target: Target,
    window: Window,
    database: Database | None,
    relid: int,
    findings: Sequence[Finding],
) -> WholeRow:
    """Return the table's row; one that was dropped as it last was. Raises Http404."""
    if database is None:
        raise Http404
    key = {"database_id": database.pk, "relid": relid}
    tables = table_rows.tables_of(target, window, findings, key)
    if tables:
        return with_partitions(target, window, tables[0])
    last = HISTORY["tables"].latest._default_manager.filter(
        target_id=target.pk, database_id=database.pk, relid=relid
    )
    kept = last.values().first()
    if kept is None:
        raise Http404
    if not window.is_live:
        kept = as_unread("tables", kept, window.end)
    row = table_rows.table_row(kept, database, target, {}, None)
    return with_partitions(target, window, row)


def with_partitions(target: Target, window: Window, row: TableRow) -> WholeRow:
    """Return a table's row with its partitions, if it is a partitioned one, and their sums."""
    if row["relkind"] != table_rows.PARTITIONED:
        return {**row, "partitions": []}
    return partition_rows.sum_up(row, partition_rows.partitions_of(target, window, row))


def relids_of(row: WholeRow) -> list[int]:
    """Return the tables that hold a table's rows: itself, or its partitions."""
    leaves = partition_rows.leaves_of(row["partitions"])
    return [one["relid"] for one in leaves] or [row["relid"]]


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    row: WholeRow,
    findings: Sequence[Finding],
) -> HttpResponse:
    """Render the page of one table."""
    at = None if window.is_live else window.end
    mine = [
        one
        for one in findings
        if (one.database_id, one.relid) == (row["database_id"], row["relid"])
    ]
    key = {"relid": row["relid"]}
    place, relids = row["database_id"], {"relid": relids_of(row)}
    gauges = read_gauges("tables", target.pk, window, GAUGES, database_id=place, key=relids)
    drawn = (*SCANS, *WRITES, "n_tup_hot_upd")
    rates = read_rates("tables", target.pk, window, drawn, database_id=place, key=relids)
    runs = run_rows.runs_of_table(target, window, row)
    bloat = bloat_rows.of_table(target, window, row)
    own = {"database_id": row["database_id"], **key}
    marks = [*read_marks(target.pk, window, [own]), *run_rows.marks_of(runs)]
    marks.sort(key=lambda mark: mark["at"])
    toast = toast_of(target, window, row)
    context: dict[str, Any] = {
        "row": row,
        "verdict": tell_verdict(target, mine, page="vacuum", at=at, database_id=row["database_id"])
        if any(SUBJECTS[one.advisor] == "vacuum" for one in mine)
        else None,
        "findings": mine,
        "unknown": unknowns.unknowns_of(target, at),
        "uncounted": UNCOUNTED if target.in_recovery else "",
        "tiles": tiles(row, gauges, bloat),
        "bloat": bloat,
        "charts": charts_of(target, window, row, gauges, rates, marks),
        "runs": runs,
        "indexes": indexes.indexes_of(target, window, row),
        "indexes_read": indexes.are_read(target, window, row["database_id"]),
        "indexes_since": indexes.counted_since(target, window, row["database_id"]),
        "named": mentions.statements_naming(target, window, row),
        "statements_problem": state_of(target) if window.is_live else None,
        "has_last_scan": indexes.has_last_scan(target),
        "actions": actions_on(target, row),
        "offers": offered(target.major),
        "autovacuum": autovacuum.explain(target, window, row, toast),
        "leaves": len(relids_of(row)),
        "toast": toast,
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "table.html",
        context,
        page="vacuum",
        target=target,
        window=window,
        reads=("tables",),
        findings=findings,
        database_id=row["database_id"],
    )


def tiles(row: TableRow, gauges: Series, bloat: BloatRow | None) -> list[Tile]:
    """Return the headline figures."""
    values = gauges.values
    past = row["threshold_pct"]
    return [
        Tile(
            title="Live rows",
            value=row["n_live_tup"],
            write=figures.short,
            spark=values["n_live_tup"],
            note="n_live_tup",
        ),
        Tile(
            title="Dead rows",
            value=row["n_dead_tup"],
            write=figures.short,
            spark=values["n_dead_tup"],
            level=row["level"],
            note="" if past is None else f"{times_words(past)} the threshold",
        ),
        Tile(title="Dead share", value=row["dead_pct"], write=figures.pct, note="of all rows"),
        Tile(
            title="Size",
            value=row["size_bytes"],
            write=figures.bytes_,
            spark=values["size_bytes"],
            note=waste_note(bloat),
        ),
        Tile(
            title="Rows changed",
            value=row["n_mod_since_analyze"],
            write=figures.short,
            spark=values["n_mod_since_analyze"],
            note="since the last analyze",
        ),
        Tile(title="XID age", value=row["xid_age"], write=figures.short, note="of relfrozenxid"),
    ]


def waste_note(bloat: BloatRow | None) -> str:
    """Return what the table wastes of its size and how that is known, else what the size is of."""
    if bloat is None or bloat["bloat_bytes"] is None:
        return "indexes and TOAST too"
    return f"{' '.join(words.size_parts(bloat['bloat_bytes']))} wasted: {bloat['word']}"


def times_words(past: float) -> str:
    """Return a share of the threshold: 84 % of, or 3.6 times."""
    if past < HUNDRED:
        return f"{past:.0f} % of"
    figure, name = words.short_parts(past / HUNDRED)
    return f"{figure}{name} times"


def charts_of(
    target: Target,
    window: Window,
    row: TableRow,
    gauges: Series,
    rates: Series,
    marks: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the charts, top to bottom; all share the window and the marks."""
    limit = {"value": row["vacuum_threshold"], "label": "autovacuum starts beyond"}
    return [
        charts.chart(
            "Dead rows",
            charts.picked(gauges, ["n_dead_tup"]),
            unit="rows",
            labels={"n_dead_tup": "Dead"},
            colours={"n_dead_tup": "lock"},
            marks=marks,
            lines=[limit] if row["autovacuum_enabled"] else [],
            window=window,
            since=target.created_at,
        ),
        charts.chart(
            "Live rows",
            charts.picked(gauges, ["n_live_tup"]),
            unit="rows",
            labels={"n_live_tup": "Live"},
            colours={"n_live_tup": "io"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
        charts.chart(
            "Size and waste",
            sizes_of(target, window, row, gauges),
            unit="bytes",
            labels={"size_bytes": "Table, indexes and TOAST", "bloat_bytes": "Wasted in the table"},
            colours={"size_bytes": "ipc", "bloat_bytes": "lock"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
        charts.chart(
            "Rows written",
            charts.picked(rates, WRITES),
            unit="per_s",
            labels={"n_tup_ins": "Inserted", "n_tup_upd": "Updated", "n_tup_del": "Deleted"},
            colours={"n_tup_ins": "cpu", "n_tup_upd": "io", "n_tup_del": "lock"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
        charts.chart(
            "Sequential scans",
            charts.picked(rates, SCANS),
            unit="per_s",
            labels={"seq_scan": "Sequential"},
            colours={"seq_scan": "text"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
    ]


def sizes_of(target: Target, window: Window, row: TableRow, gauges: Series) -> Series:
    """Return size and wasted bytes as columns over common times; the waste is read more rarely."""
    waste = read_gauges(
        "bloat",
        target.pk,
        window,
        ["bloat_bytes"],
        database_id=row["database_id"],
        key={"relid": row["relid"]},
    )
    lines = [("size_bytes", gauges, "size_bytes")]
    if any(value is not None for value in waste.values["bloat_bytes"]):
        lines.append(("bloat_bytes", waste, "bloat_bytes"))
    within = window.length.total_seconds() / POINTS / 2
    return charts.joined(lines, within=within)


def actions_on(target: Target, row: TableRow) -> list[Action]:
    """Return what was done to the table from here, newest first."""
    wanted = {"database": row["database"], "table": row["table"]}
    done = Action.objects.filter(target=target, arguments__contains=wanted)
    return list(done.exclude(state=Action.State.DRAFT).order_by("-created_at")[:20])


def toast_of(target: Target, window: Window, row: TableRow) -> dict[str, Any] | None:
    """Return the row of the table's TOAST table, None where it has none."""
    if not row["toastrelid"]:
        return None
    key = {"database_id": row["database_id"], "relid": row["toastrelid"]}
    found = next(iter(table_rows.rows_at("tables", target, window, key)), None)
    if found is not None and not unknowns.counts_rows(target.settings):
        return {**found, **dict.fromkeys(table_rows.COUNTS)}
    return found
