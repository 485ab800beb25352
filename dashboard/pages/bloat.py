"""How much room tables and indexes waste, by which method that is known, and what grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import bloat_rows, charts
from dashboard.frame import SUBJECTS
from dashboard.listing import Listing, Row, chosen, listing_of
from dashboard.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors import access, review
from monitors.actions import ACTIONS
from monitors.advisor import Finding, counted
from monitors.history import series
from monitors.history.window import Window
from monitors.models import Target
from monitors.review import Verdict

TABS = {
    "all": "All",
    "tables": "Tables",
    "indexes": "Indexes",
    "growers": "Growers",
    "schemas": "By schema",
}
SCHEMA_COLUMNS = (
    "database",
    "schemaname",
    "objects",
    "unknown",
    "size_bytes",
    "table_bytes",
    "index_bytes",
    "bloat_bytes",
)
SORTED = ("name", *bloat_rows.COLUMNS)
WINDOW = "24h"
"""Shown by default: bloat is read each hour."""
TOP = 4
"""Objects with a line of their own in the chart."""
LARGE_BYTES = 1024**2
"""Wasted by less, nobody's line in the chart."""


@require_safe
def bloat(request: PageRequest, name: str) -> HttpResponseBase:
    """Show wasted bytes, their history, and the tables and indexes that waste most."""
    target, window = get_target(request, name), window_of(request, WINDOW)
    findings = review.findings(target, None if window.is_live else window.end)
    rows = bloat_rows.bloat_of(target, window, findings)
    tab = chosen(request, "tab", TABS, "all")
    if tab == "schemas":
        shown = by_schema(request, rows)
        exported = table_response(request, "bloat", SCHEMA_COLUMNS, shown.matching)
    else:
        shown = listing(request, rows, tab)
        exported = table_response(request, "bloat", bloat_rows.COLUMNS, shown.matching)
    return exported or page(request, target, window, rows, shown, findings)


def of_tab(rows: Sequence[Row], tab: str) -> list[Row]:
    """Return the objects of one of `TABS`."""
    if tab == "tables":
        return [row for row in rows if not bloat_rows.is_index(row)]
    if tab == "indexes":
        return [row for row in rows if bloat_rows.is_index(row)]
    if tab == "growers":
        return [row for row in rows if (row["growth_bytes"] or 0) > 0]
    return list(rows)


def in_database(request: PageRequest, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the database that the query names."""
    database = request.GET.get("database", "")
    return [row for row in rows if not database or row["database"] == database]


def listing(request: PageRequest, rows: Sequence[Row], tab: str) -> Listing:
    """Return the objects that the query asks for; by default what wastes or grew most first."""
    return listing_of(
        request,
        in_database(request, of_tab(rows, tab)),
        columns=SORTED,
        default="-growth_bytes" if tab == "growers" else "-bloat_bytes",
        searched=lambda row: f"{row['database']} {row['name']} {row['relname']}",
    )


def by_schema(request: PageRequest, rows: Sequence[Row]) -> Listing:
    """Return the schemas that the query asks for, what wastes most first."""
    return listing_of(
        request,
        bloat_rows.by_schema(in_database(request, rows)),
        columns=SCHEMA_COLUMNS,
        default="-bloat_bytes",
        searched=lambda row: f"{row['database']} {row['schemaname']}",
    )


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    rows: list[Row],
    shown: Listing,
    findings: Sequence[Finding],
) -> HttpResponse:
    """Render the page around a listing."""
    tab = request.GET.get("tab") or "all"
    known = any(row["method"] for row in rows)
    total = series.gauges("bloat", target.pk, window, ["bloat_bytes"]) if known else None
    context: dict[str, Any] = {
        "findings": [one for one in findings if SUBJECTS.get(one.advisor) == "bloat"],
        "verdict": verdict(target, window, rows, findings),
        "objects": rows,
        "known": known,
        "listing": shown,
        "sort": shown.sort,
        "tab": tab,
        "tabs": [(key, text, count_of(rows, key)) for key, text in TABS.items()],
        "databases": sorted({row["database"] for row in rows}),
        "blind": blind_in(rows),
        "unmeasured": [
            name for name, works in sorted(bloat_rows.has_pgstattuple(rows).items()) if not works
        ],
        "tiles": tiles(rows, total),
        "chart": chart_of(target, window, rows, total) if total else None,
        "rows": shown.rows if tab == "schemas" else sparked(target, window, shown.rows),
        "offers": frozenset(ACTIONS),
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "bloat.html",
        context,
        page="bloat",
        target=target,
        window=window,
        reads=("bloat",),
        findings=findings,
    )


def count_of(rows: Sequence[Row], tab: str) -> int:
    """Return how many lines a tab has."""
    if tab == "schemas":
        return len({(row["database"], row["schemaname"]) for row in rows})
    return len(of_tab(rows, tab))


def blind_in(rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    """Return the databases of which nothing is known: database, and how many objects are hidden."""
    hidden: dict[str, int] = {}
    measured = bloat_rows.has_pgstattuple(rows)
    for row in rows:
        unread = row["not_estimated"] == "unreadable" and row["method"] is None
        if unread and not measured[row["database"]]:
            hidden[row["database"]] = hidden.get(row["database"], 0) + 1
    return [{"database": name, "objects": count} for name, count in sorted(hidden.items())]


def verdict(
    target: Target, window: Window, rows: Sequence[Row], findings: Sequence[Finding]
) -> Verdict:
    """Return the verdict of the findings; where nothing is known of bloat, that."""
    judged = review.verdict(
        target, findings, page="bloat", at=None if window.is_live else window.end
    )
    if judged.finding is not None or judged.level not in {"good", "notice"}:
        return judged
    if not any(row["method"] for row in rows):
        text = "How much is wasted is not known: there are no statistics that may be read, and nothing is measured."
        return Verdict("unknown", text, judged.foot, None)
    largest = max(rows, key=lambda row: row["bloat_bytes"] or 0)
    waste = bloat_rows.wasted(rows) or 0
    unknown = sum(row["method"] is None for row in rows)
    text = judged.text
    if waste >= LARGE_BYTES:
        figure, size = " ".join(charts.bytes_words(waste)), largest["bloat_bytes"] or 0
        share = " ".join(charts.bytes_words(size))
        text = f"{text} {figure} are wasted in all, {share} of them by {largest['label']}."
    if unknown:
        text = f"{text} Of {counted(unknown, 'object')} nothing is known."
    return Verdict(judged.level, text, judged.foot, None)


def sparked(target: Target, window: Window, rows: list[Row]) -> list[Row]:
    """Return the rows of one page of the table with the course of their wasted bytes."""
    keys = [{"database_id": row["database_id"], "relid": row["relid"]} for row in rows]
    lines = series.sparks("bloat", target.pk, window, "bloat_bytes", keys)
    return [{**row, "spark": line} for row, line in zip(rows, lines, strict=True)]


def chart_of(
    target: Target, window: Window, rows: Sequence[Row], total: series.Series
) -> dict[str, Any]:
    """Return the chart of wasted bytes: their sum, and the objects that waste most."""
    lines = [("All", total, "bloat_bytes")]
    worst = sorted(rows, key=lambda row: -(row["bloat_bytes"] or 0))[:TOP]
    for row in worst:
        if (row["bloat_bytes"] or 0) < LARGE_BYTES:
            break
        where = {"database_id": row["database_id"], "key": {"relid": row["relid"]}}
        line = series.gauges("bloat", target.pk, window, ["bloat_bytes"], **where)
        lines.append((label_of(row, worst), line, "bloat_bytes"))
    colours = dict(
        zip((name for name, *_ in lines), ("text", "lock", "io", "cpu", "ipc"), strict=False)
    )
    return charts.chart(
        "Wasted bytes",
        charts.joined(lines, within=window.length / timedelta(seconds=1) / series.POINTS / 2),
        unit="bytes",
        colours=colours,
        marks=series.marks(target.pk, window, None),
        note="bloat_bytes",
        window=window,
        since=target.created_at,
    )


def label_of(row: Row, others: Sequence[Row]) -> str:
    """Return an object's label, with the database where two would be alike."""
    alike = [one for one in others if one["label"] == row["label"]]
    return str(row["label"]) if len(alike) == 1 else f"{row['database']}: {row['label']}"


def tiles(rows: Sequence[Row], total: series.Series | None) -> list[dict[str, Any]]:
    """Return the headline figures."""
    tables, indexes = of_tab(rows, "tables"), of_tab(rows, "indexes")
    methods = bloat_rows.methods_of(rows)
    unknown = dict(methods).get("not known", 0)
    grown = max(rows, key=lambda row: row["growth_bytes"] or 0, default=None)
    growth = grown["growth_bytes"] if grown and (grown["growth_bytes"] or 0) > 0 else None
    size = sum(row["size_bytes"] or 0 for row in rows if row["method"])
    waste = bloat_rows.wasted(rows)
    largest = max(rows, key=lambda row: row["bloat_bytes"] or 0, default=None)
    most = largest["bloat_bytes"] if largest else None
    return [
        {
            "title": "Wasted",
            "value": waste,
            "kind": "bytes",
            "spark": total.values["bloat_bytes"] if total else None,
            "note": f"of {' '.join(charts.bytes_words(size))} that are judged",
        },
        {
            "title": "By tables",
            "value": bloat_rows.wasted(tables),
            "kind": "bytes",
            "note": "with TOAST",
        },
        {
            "title": "By indexes",
            "value": bloat_rows.wasted(indexes),
            "kind": "bytes",
            "note": f"of {counted(len(indexes), 'btree index')}".replace("indexs", "indexes"),
        },
        {
            "title": "Most by one",
            "value": most,
            "kind": "bytes",
            "note": largest["label"] if largest and most else "nothing known",
        },
        {
            "title": "Judged",
            "value": len(rows) - unknown,
            "unit": f"of {len(rows):,}",
            "level": "notice" if unknown else "",
            "note": ", ".join(f"{count:,} {word}" for word, count in methods),
        },
        {
            "title": "Grew most",
            "value": growth,
            "kind": "bytes",
            "note": label_of(grown, [grown]) if grown and growth else "nothing grew in this window",
        },
    ]
