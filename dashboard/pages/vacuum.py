"""Which tables need vacuum, why, and what autovacuum does about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.frame import SUBJECTS
from dashboard.frame.hindrance import why_not
from dashboard.frame.listing import Listing, chosen, listing_from, listing_of, sort_of, sought_in
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.advisor import Finding
from monitors.findings import judge, unknowns
from monitors.findings.verdict import tell_verdict
from monitors.history import objects
from monitors.history.counters import read_growth
from monitors.history.gauges import read_gauges
from monitors.history.marks import read_marks
from monitors.history.source import POINTS, Series
from monitors.history.sparks import draw_sparks
from monitors.history.window import Window
from monitors.models import Target
from monitors.people import access
from monitors.rows import fleet, horizon, runs, tables, vacuuming
from monitors.rows.tables import DeadRow, TableRow
from monitors.rules import autovacuum

FILTERS = {"need": "Need vacuum", "due": "Due now", "off": "Autovacuum off", "all": "All"}
SORTED = ("table", *tables.COLUMNS)
TOP = 4
"""Tables with a line of their own in the chart."""
Orders = Mapping[str, objects.Term]
"""What our database can order tables by (`table_rows.orders_of`)."""
RAN = 8
"""The last vacuums that ran, of which the page shows a glimpse."""


class DrawnTableRow(TableRow):
    """A table as a line of the page."""

    spark: list[float | None]  # the course of its dead rows


@dataclass(frozen=True)
class Facts:
    """What the page says of all tables together."""

    count: int
    with_dead: int  # tables that have a dead row at all
    need: list[TableRow]  # tables with more than 1,000 dead rows
    off: list[TableRow]  # tables of which autovacuum is off by an option of theirs
    all_off: bool  # autovacuum is off for the whole server
    oldest: TableRow | None
    findings: Sequence[Finding]

    @property
    def due(self) -> list[TableRow]:
        """The tables that have passed autovacuum's threshold."""
        return [row for row in self.need if tables.is_due(row)]

    @property
    def off_count(self) -> int:
        """How many tables autovacuum does not look at."""
        return self.count if self.all_off else len(self.off)


@require_safe
def vacuum(request: PageRequest, name: str) -> HttpResponseBase:
    """Show dead rows, their history, and the tables that need vacuum."""
    target, window = get_target(request, name), window_of(request)
    findings = judge.find(target, None if window.is_live else window.end)
    orders = tables.orders_of(target, window)
    facts = facts_of(target, window, findings, orders)
    shown = listing(request, target, window, facts, orders)
    exported = table_response(request, "vacuum", tables.COLUMNS, shown.matching)
    return exported or page(request, target, window, facts, shown)


def facts_of(target: Target, window: Window, findings: Sequence[Finding], orders: Orders) -> Facts:
    """Return what the page says of all tables together; only what needs vacuum is read."""
    known, kinds = tables.objects_of(target, window), tables.of_kind(target, window)
    dead = objects.column("n_dead_tup")
    counts = known.counts(count=kinds, with_dead=objects.all_of(kinds, objects.above(dead, 0)))
    need = known.rows(kinds, objects.above(dead, tables.NEED_VACUUM_ROWS))
    optioned = known.rows(kinds, objects.present("reloptions"))
    by_age = objects.Order(orders["xid_age"], greatest_first=True)
    oldest = known.rows(kinds, order=[by_age], limit=1)

    rows = tables.complete(target, window, [*need, *optioned, *oldest], findings)
    shown = {tables.key_of(row): row for row in rows}

    def among(rows: Sequence[Mapping[str, Any]]) -> list[TableRow]:
        return [shown[key] for row in rows if (key := tables.key_of(row)) in shown]

    return Facts(
        count=counts["count"],
        with_dead=counts["with_dead"],
        need=among(need),
        off=[row for row in among(optioned) if row["autovacuum_enabled"] is False],
        all_off=not (target.in_recovery or autovacuum.server_enabled(target.settings)),
        oldest=next(iter(among(oldest)), None),
        findings=findings,
    )


def listing(
    request: PageRequest, target: Target, window: Window, facts: Facts, orders: Orders
) -> Listing[TableRow]:
    """Return the tables that the query asks for; by default n_dead_tup > 1000, worst share first.

    On a standby all, whether they need vacuum or not: that is not known there.
    """
    wanted = chosen(request, "filter", FILTERS, "need")
    sort = sort_of(request, SORTED, "-dead_pct")
    few = {"need": facts.need, "due": facts.due, "off": facts.off}
    if target.in_recovery:  # it has no counts to leave a table out by
        few = {"off": facts.off}
    if wanted in few and not (wanted == "off" and facts.all_off):
        return of_rows(request, few[wanted])
    known, kinds = tables.objects_of(target, window), tables.of_kind(target, window)
    if sort.removeprefix("-") in tables.LIMITS:
        rows = tables.complete(target, window, known.rows(kinds), facts.findings)
        return of_rows(request, rows)
    databases = {pk: one.datname for pk, one in tables.databases_of(target, window).items()}
    conditions = [kinds]
    if database := request.GET.get("database", ""):
        mine = [pk for pk, datname in databases.items() if datname == database]
        conditions.append(objects.among("database_id", mine))
    if q := sought_in(request):
        named = [pk for pk, name in databases.items() if q.casefold() in name.casefold()]
        conditions.append(
            objects.any_of(
                objects.containing(q, "schemaname", "relname"),
                objects.among("database_id", named),
            )
        )
    return listing_from(
        request,
        known,
        *conditions,
        sort=sort,
        orders=orders,
        complete=lambda rows: tables.complete(target, window, rows, facts.findings),
    )


def of_rows(request: PageRequest, rows: Sequence[TableRow]) -> Listing[TableRow]:
    """Return the listing of tables that are in memory."""
    database = request.GET.get("database", "")
    return listing_of(
        request,
        [row for row in rows if not database or row["database"] == database],
        columns=SORTED,
        default="-dead_pct",
        searched=lambda row: f"{row['database']} {row['table']}",
    )


def page(
    request: PageRequest, target: Target, window: Window, facts: Facts, shown: Listing[TableRow]
) -> HttpResponse:
    """Render the page around a listing."""
    at = None if window.is_live else window.end
    total = read_gauges("tables", target.pk, window, ["n_dead_tup"])
    marks = read_marks(target.pk, window)
    may = access.permissions_of(request.user, target)
    state = vacuuming.state_of(target, at)
    counts = counts_of(target, facts)
    context: dict[str, Any] = {
        "findings": [one for one in facts.findings if SUBJECTS.get(one.advisor) == "vacuum"],
        "verdict": tell_verdict(target, facts.findings, page="vacuum", at=at),
        "tables_count": facts.count,
        "listing": shown,
        "sort": shown.sort,
        "filter": request.GET.get("filter") or "need",
        "filters": [(key, text, counts[key]) for key, text in FILTERS.items()],
        "databases": sorted({one.datname for one in tables.databases_of(target, window).values()}),
        "running": state.running,
        "holders": horizon.holders_of(target, window),
        "horizon_read": horizon.last_read(target, window),
        "queue": state.queue,
        "left": state.left,
        "unknown": unknowns.unknowns_of(target, at),
        "workers": state.workers,
        "ran": runs.rows_of(target, window, runs.runs_in(target, window)[:RAN]),
        "tiles": tiles(target, window, facts, state.running, total),
        "chart": dead_chart(target, window, total, marks),
        "rows": with_sparks(target, window, shown.rows),
        "may": may,
        "may_pick": not why_not(target, "vacuum", may, is_live=window.is_live),
        "due_count": counts["due"],
    }
    return render_page(
        request,
        "vacuum.html",
        context,
        page="vacuum",
        target=target,
        window=window,
        reads=("tables",),
        findings=facts.findings,
    )


def counts_of(target: Target, facts: Facts) -> dict[str, int | None]:
    """Return how many tables each filter shows; None where that is not known."""
    if target.in_recovery:
        return {"need": None, "due": None, "off": len(facts.off) or None, "all": facts.count}
    return {
        "need": len(facts.need),
        "due": len(facts.due),
        "off": facts.off_count,
        "all": facts.count,
    }


def with_sparks(target: Target, window: Window, rows: list[TableRow]) -> list[DrawnTableRow]:
    """Return the rows of one page of the table with the course of their dead rows."""
    keys = [{"database_id": row["database_id"], "relid": row["relid"]} for row in rows]
    lines = draw_sparks("tables", target.pk, window, "n_dead_tup", keys)
    return [{**row, "spark": line} for row, line in zip(rows, lines, strict=True)]


def dead_chart(
    target: Target,
    window: Window,
    total: Series,
    marks: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the chart of dead rows: their sum, and the tables that have most."""
    lines = [("All tables", total, "n_dead_tup")]
    worst = tables.worst_of(target, window, TOP)
    for row in worst:
        place, key = row["database_id"], {"relid": row["relid"]}
        line = read_gauges("tables", target.pk, window, ["n_dead_tup"], database_id=place, key=key)
        lines.append((label_of(row, worst), line, "n_dead_tup"))
    names = [name for name, _line, _field in lines]
    colours = dict(zip(names, ("text", "lock", "io", "cpu", "ipc"), strict=False))
    return charts.chart(
        "Dead rows",
        charts.joined(lines, within=window.length.total_seconds() / POINTS / 2),
        unit="rows",
        colours=colours,
        marks=marks,
        note="n_dead_tup",
        window=window,
        since=target.created_at,
    )


def label_of(row: DeadRow, others: Sequence[DeadRow]) -> str:
    """Return a table's name, with its database where another of that name is shown."""
    alike = [one for one in others if one["table"] == row["table"]]
    return row["table"] if len(alike) == 1 else f"{row['database']}: {row['table']}"


def tiles(
    target: Target,
    window: Window,
    facts: Facts,
    running: Sequence[Mapping[str, Any]],
    total: Series,
) -> list[Tile]:
    """Return the headline figures."""
    due, off, oldest = facts.due, facts.off_count, facts.oldest
    workers = [row for row in running if row["autovacuum"]]
    limit = target.settings.get("autovacuum_max_workers")
    ran = read_growth("tables", target.pk, window, ["vacuum_count", "autovacuum_count"])
    by_hand, by_itself = ran["vacuum_count"], ran["autovacuum_count"]
    found: list[Tile] = [
        Tile(
            title="Dead rows",
            value=fleet.dead_rows([target], window).get(target.pk),
            write=figures.short,
            spark=total.values["n_dead_tup"],
            level="warning" if due else "",
            note=f"in {words.count(facts.with_dead, 'table')}",
        ),
        Tile(
            title="Tables due",
            value=len(due) if facts.count else None,
            unit=f"of {facts.count:,}",
            level="warning" if due else "good" if facts.count else "",
            note=due_note(due),
        ),
        Tile(
            title="Autovacuum off",
            value=off if facts.count else None,
            unit=f"of {facts.count:,}",
            level="warning" if off else "",
            note=off_note(facts),
        ),
        Tile(
            title="Autovacuum workers",
            value=len(workers),
            unit=f"of {limit}" if limit else "",
            level="warning" if limit and len(workers) >= int(limit) else "",
            note=f"busy {'now' if window.is_live else 'then'}" if workers else "none busy",
        ),
        Tile(
            title="Oldest XID age",
            value=oldest["xid_age"] if oldest else None,
            write=figures.short,
            note=oldest["table"] if oldest and oldest["xid_age"] else "not read yet",
        ),
        Tile(
            title="Vacuums",
            value=by_hand + by_itself,
            note=f"{by_itself:,} auto, {by_hand:,} by hand",
        ),
    ]
    if target.in_recovery:  # ages are replicated, and nothing else is known
        others = [tile.title for tile in found if tile.title != "Oldest XID age"]
        return without(found, others, "not known on a standby")
    if not unknowns.tells_activities(target.settings):
        found = without(found, ("Autovacuum workers",), unknowns.NOT_TOLD)
    if not unknowns.counts_rows(target.settings):
        return without(found, ("Dead rows", "Tables due", "Vacuums"), unknowns.NOT_COUNTED)
    return found


def without(tiles: list[Tile], titles: Collection[str], note: str) -> list[Tile]:
    """Return the tiles with a note in place of the figures of some, which are not known."""
    return [
        Tile(title=tile.title, value=None, note=note) if tile.title in titles else tile
        for tile in tiles
    ]


def due_note(due: Sequence[TableRow]) -> str:
    """Return what tables that are due have passed, and for how many nothing comes."""
    off = sum(row["autovacuum_enabled"] is False for row in due)
    return f"past the threshold, {off:,} with autovacuum off" if off else "past the threshold"


def off_note(facts: Facts) -> str:
    """Return why autovacuum is off, or by what it would be."""
    if facts.all_off:
        return "off for the whole server"
    return facts.off[0]["table"] if facts.off else "by autovacuum_enabled"
