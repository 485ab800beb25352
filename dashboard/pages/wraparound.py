"""When transaction ids and multixact ids run out, as dates, and what to freeze before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.frame import SUBJECTS
from dashboard.frame.listing import Listing, chosen, listing_from, listing_of, sort_of, sought_in
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.advisor import Finding
from monitors.advisors.wraparound import DEFAULTS
from monitors.findings import judge
from monitors.findings.verdict import tell_verdict
from monitors.history import objects
from monitors.history.gauges import read_gauges
from monitors.history.marks import read_marks
from monitors.history.source import POINTS
from monitors.history.window import Window
from monitors.models import Target
from monitors.people import access
from monitors.rows import table_ages, tables as table_rows, wraparound as wraparound_rows
from monitors.rows.table_ages import AgedRow
from monitors.rows.wraparound import DatabaseRow, Kind, Reading
from monitors.rules import wraparound as rules
from monitors.rules.wraparound import Burn, Freezing

Dated = Literal["xid_forced", "mxid_forced", "xid_stop", "mxid_stop"]

SORTED = ("label", *table_ages.COLUMNS)
DATED = ("_at", "_earliest", "_latest", "_why")
"""Ends of the columns that `add_dates` adds."""
EXPORTS = {"tables": "Tables", "databases": "Databases"}
TOP = 5
"""Databases with a line of their own in a chart."""
TOLD = 3
"""Databases of which it is told whether freezing keeps up."""
LINE_FROM = 0.4
"""A limit stands in the chart where an age has come so near to it; else it would flatten all."""
TITLES: Mapping[Kind, str] = {"xid": "Transaction id age", "mxid": "MultiXact age"}
USED: Mapping[Kind, str] = {"xid": "Transaction ids used", "mxid": "MultiXact ids used"}
BURNS: Mapping[Kind, str] = {"xid": "Used up an hour", "mxid": "MultiXacts an hour"}
DATES: Mapping[str, tuple[Dated, Dated]] = {
    "Next forced vacuum": ("xid_forced", "mxid_forced"),
    "Stop, if nothing freezes": ("xid_stop", "mxid_stop"),
}
"""Titles of the tiles."""


@require_safe
def wraparound(request: PageRequest, name: str) -> HttpResponseBase:
    """Show ages, dates and the oldest tables; `of=databases` exports the databases."""
    target, window = get_target(request, name), window_of(request)
    readings = wraparound_rows.readings_of(target, window)
    databases = wraparound_rows.databases_of(target, window, readings)
    if chosen(request, "of", EXPORTS, "tables") == "databases":
        columns, rows = wraparound_rows.DATABASE_COLUMNS, databases
        exported = table_response(request, "wraparound-databases", columns, rows)
        if exported:
            return exported
    shown = listing(request, target, window, readings)
    exported = table_response(request, "wraparound", table_ages.COLUMNS, shown.matching)
    return exported or page(request, target, window, readings, databases, shown)


def listing(
    request: PageRequest, target: Target, window: Window, readings: Mapping[Kind, Reading]
) -> Listing[AgedRow]:
    """Return the tables that the query asks for, by default the oldest first.

    Of ten thousand tables the database chooses the fifty that are shown, where it can.
    """
    sort, orders = sort_of(request, SORTED, "-xid_age"), table_ages.orders_of(target, window)
    of_all = bool(request.GET.get("format")) or sort.endswith(DATED)
    if of_all or sought_in(request) or sort.removeprefix("-") not in orders:
        tables = table_ages.tables_of(target, window)
        if of_all:
            table_ages.add_dates(tables, window, readings)
        shown = listing_of(
            request,
            tables,
            columns=SORTED,
            default="-xid_age",
            searched=lambda row: f"{row['database']} {row['label']}",
        )
    else:
        shown = listing_from(
            request,
            table_rows.objects_of(target, window),
            table_ages.is_shown(target, window),
            sort=sort,
            orders=orders,
            complete=lambda rows: table_ages.complete(target, window, rows),
        )
    if not of_all:
        table_ages.add_dates(shown.rows, window, readings)
    return shown


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    readings: Mapping[Kind, Reading],
    databases: Sequence[DatabaseRow],
    shown: Listing[AgedRow],
) -> HttpResponse:
    """Render the page around a listing."""
    at = None if window.is_live else window.end
    findings = judge.find(target, at)
    marks = read_marks(target.pk, window)
    context: dict[str, Any] = {
        "findings": findings_here(findings),
        "verdict": tell_verdict(target, findings, page="wraparound", at=at),
        "databases": databases,
        "listing": shown,
        "sort": shown.sort,
        "rows": [table_ages.with_words(row, window.end) for row in shown.rows],
        "tiles": tiles(databases, readings),
        "xid_chart": age_chart(target, window, databases, "xid", marks),
        "mxid_chart": age_chart(target, window, databases, "mxid", ()),
        "freezing": freezing(target, window, databases, readings),
        "readings": [(rules.NAMES[kind], readings[kind]) for kind in wraparound_rows.KINDS],
        "oldest": oldest(target, window),
        "stop_age": rules.STOP_AGE,
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "wraparound.html",
        context,
        page="wraparound",
        target=target,
        window=window,
        reads=("databases",),
        findings=findings,
    )


def oldest(target: Target, window: Window) -> AgedRow | None:
    """Return the oldest table of all, None without any."""
    orders = table_ages.orders_of(target, window)
    by_age = objects.Order(orders["xid_age"], greatest_first=True)
    known = table_rows.objects_of(target, window)
    rows = known.rows(table_ages.is_shown(target, window), order=[by_age], limit=1)
    return next(iter(table_ages.complete(target, window, rows)), None)


def freezing(
    target: Target,
    window: Window,
    databases: Sequence[DatabaseRow],
    readings: Mapping[Kind, Reading],
) -> list[tuple[str | None, Freezing]]:
    """Return (database, whether freezing keeps up) of those that have used most ids."""
    return [
        (row["database"], wraparound_rows.freezing_of(target, window, row, "xid", readings))
        for row in [one for one in databases if not one["invalid"]][:TOLD]
    ]


def age_chart(
    target: Target,
    window: Window,
    databases: Sequence[DatabaseRow],
    kind: Kind,
    marks: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the chart of the age of the databases that have used most ids."""
    field = wraparound_rows.AGE[kind]
    valid = [row for row in databases if not row["invalid"]]
    ranked = sorted(valid, key=lambda row: -(row[field] or 0))[:TOP]
    lines = [
        (
            row["database"] or str(row["datid"]),
            read_gauges("databases", target.pk, window, [field], key={"datid": row["datid"]}),
            field,
        )
        for row in ranked
    ]
    limits = rules.limits_of(target.settings, kind)
    greatest = max((row[field] or 0 for row in ranked), default=0)
    names = {"Forced vacuum": limits.forced, "Failsafe": limits.failsafe, "Stop": limits.stop}
    return charts.chart(
        TITLES[kind],
        charts.joined(lines, within=window.length.total_seconds() / POINTS / 2),
        unit="rows",
        marks=marks,
        lines=[
            {"label": label, "value": value}
            for label, value in names.items()
            if greatest > LINE_FROM * value
        ],
        note=f"forced vacuum beyond {words.short(limits.forced)}, "
        f"stop at {words.short(limits.stop)}",
        window=window,
        since=target.created_at,
    )


def tiles(databases: Sequence[DatabaseRow], readings: Mapping[Kind, Reading]) -> list[Tile]:
    """Return the headline figures."""
    return [
        *(used_tile(databases, kind) for kind in wraparound_rows.KINDS),
        *(burn_tile(readings[kind].burn, BURNS[kind]) for kind in wraparound_rows.KINDS),
        *(date_tile(databases, names, title) for title, names in DATES.items()),
    ]


def used_tile(databases: Sequence[DatabaseRow], kind: Kind) -> Tile:
    """Return the greatest share of a kind of id that a database has used."""
    age, pct = wraparound_rows.AGE[kind], wraparound_rows.PCT[kind]
    worst = max(databases, key=lambda row: row[pct] or 0, default=None)
    share = worst[pct] if worst else None
    note = f"{worst['database']}, age {words.short(worst[age] or 0)}" if worst else "not read yet"
    return Tile(title=USED[kind], value=share, write=figures.pct, level=level_of(share), note=note)


def burn_tile(burn: Burn, title: str) -> Tile:
    """Return how many ids of a kind are used up an hour."""
    return Tile(
        title=title,
        value=None if burn.mean is None else round(burn.mean * rules.HOUR),
        write=figures.short,
        note=f"{words.short(burn.busiest * rules.HOUR)} in the busiest hour"
        if burn.busiest is not None
        else burn.why or f"over {burn.seconds / 60:.0f} min",
    )


def date_tile(databases: Sequence[DatabaseRow], names: tuple[Dated, Dated], title: str) -> Tile:
    """Return the earliest date of an event over all databases and kinds of id, or why there is none."""
    passed = [row for row in databases if any(row[name]["passed"] for name in names)]
    if passed:
        return Tile(
            title=title,
            value="Now",
            write=str,
            level="warning",
            note=f"{passed[0]['database']} has passed the limit",
        )
    dated = [
        (at, row, name)
        for row in databases
        for name in names
        if (at := row[name]["at"]) is not None
    ]
    if not dated:
        whys = [row[names[0]]["why"] for row in databases]
        return Tile(title=title, value=None, note=whys[0] if whys else "not read yet")
    _at, row, name = min(dated, key=lambda one: one[0])
    day, hour = split_words(row[name]["words"])
    return Tile(
        title=title,
        value=day,
        unit=hour,
        write=str,
        note=f"{row['database']}: {row[name]['span'] or row[name]['why']}",
    )


def split_words(words: str) -> tuple[str, str]:
    """Return `24 Nov` and `22:03`, of a date without its hour all and nothing."""
    if not words.endswith(" UTC"):
        return words, ""
    day, _, hour = words.removesuffix(" UTC").rpartition(" ")
    return day, hour


def level_of(share: float | None) -> str:
    """Return the level of a share of ids, by the advisor's usual thresholds."""
    if share is None:
        return ""
    if share > DEFAULTS["critical_pct"]:
        return "critical"
    return "warning" if share > DEFAULTS["warning_pct"] else "good"


def findings_here(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of this page's subject."""
    return [one for one in findings if SUBJECTS.get(one.advisor) == "wraparound"]
