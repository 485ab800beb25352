"""How one target is: what is wrong, the headline figures, its databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.states import clock_words
from dashboard.frame.tiles import Tile, write_rate
from dashboard.templatetags import figures
from monitors.findings import judge, unknowns
from monitors.findings.verdict import tell_verdict
from monitors.history.counters import read_rates, read_totals
from monitors.history.gauges import read_gauges, read_gauges_by
from monitors.history.marks import read_marks
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.kinds import EVERY, PGBOUNCER
from monitors.models import Target
from monitors.people import access
from monitors.probe import Reading
from monitors.rows import fleet, tables

COLUMNS = (
    "datname",
    "datid",
    "watched",
    "numbackends",
    "xact_per_second",
    "cache_hit_pct",
    "xact_commit",
    "xact_rollback",
    "deadlocks",
    "temp_bytes",
    "xid_age",
    "mxid_age",
)
"""Keys of the export: what is known of each database, counters over the window."""


class DatabaseRow(TypedDict):
    """One database; counters are of the window, None where they began anew in it."""

    datname: str
    datid: int
    watched: bool
    numbackends: int | None
    xact_per_second: float | None
    cache_hit_pct: float | None  # None: no blocks were asked for
    xact_commit: int | None
    xact_rollback: int | None
    deadlocks: int | None
    temp_bytes: int | None
    xid_age: int | None
    mxid_age: int | None


@require_safe
def overview(request: PageRequest, name: str) -> HttpResponseBase:
    """Show a target's verdict, findings, figures, charts and databases; a pooler has a page of its own."""
    target, window = get_target(request, name, kinds=EVERY), window_of(request)
    if target.kind == PGBOUNCER:
        return redirect(f"{reverse('pooler', args=[name])}?{request.GET.urlencode()}".rstrip("?"))
    databases = databases_of(target, window)
    exported = table_response(request, "databases", COLUMNS, databases)
    return exported or page(request, target, window, databases)


def databases_of(target: Target, window: Window) -> list[DatabaseRow]:
    """Return the target's databases with what their counters grew by in the window."""
    grown = {row["datid"]: row for row in read_totals("databases", target.pk, window)}
    watched = {one.datid for one in target.databases_by_id.values() if one.included}
    rows = tables.rows_at("databases", target, window)
    return [
        database_row(row, grown.get(row["datid"], {}), window, watched=row["datid"] in watched)
        for row in sorted(rows, key=lambda row: row["datname"] or "")
        if not row["datistemplate"]
    ]


def database_row(row: Reading, grown: Reading, window: Window, *, watched: bool) -> DatabaseRow:
    """Return one database; figures of the window are None where counters began anew in it."""
    complete = grown.get("complete", True)
    ended = (grown.get("xact_commit") or 0) + (grown.get("xact_rollback") or 0)

    def counted(name: str) -> int | None:
        return grown.get(name, 0) if complete else None

    return {
        "datname": row["datname"],
        "datid": row["datid"],
        "watched": watched,
        "numbackends": row["numbackends"],
        "xact_per_second": ended / seconds_of(row, window) if complete else None,
        "cache_hit_pct": hit_pct(grown),
        "xact_commit": counted("xact_commit"),
        "xact_rollback": counted("xact_rollback"),
        "deadlocks": counted("deadlocks"),
        "temp_bytes": counted("temp_bytes"),
        "xid_age": row["xid_age"],
        "mxid_age": row["mxid_age"],
    }


def seconds_of(row: Reading, window: Window) -> float:
    """Return how long a database was watched within the window."""
    start = max(window.start, row["since_at"])
    return float(max(1.0, (window.end - start).total_seconds()))


def hit_pct(grown: Reading) -> float | None:
    """Return the share of blocks found in the cache, None where none were asked for."""
    hit, read = grown.get("blks_hit") or 0, grown.get("blks_read") or 0
    return 100 * hit / (hit + read) if hit + read else None


def page(
    request: PageRequest, target: Target, window: Window, databases: list[DatabaseRow]
) -> HttpResponse:
    """Render the page."""
    at = None if window.is_live else window.end
    findings = judge.find(target, at)
    sessions = read_gauges("sessions", target.pk, window, ["backends", "blocked"])
    states = read_gauges_by("sessions", target.pk, window, "backends", "state")
    rates = read_rates("databases", target.pk, window, ["xact_commit", "xact_rollback"])
    dead = read_gauges("tables", target.pk, window, ["n_dead_tup"])
    marks = read_marks(target.pk, window)
    summary = fleet.fleet_of([target], window)[0]
    context: dict[str, Any] = {
        "summary": summary,
        "clock_words": clock_words(target) if window.is_live else "",
        "verdict": tell_verdict(target, findings, at=at),
        "findings": findings,
        "tiles": tiles(summary, sessions, rates, dead, unknowns.unknowns_of(target, at)),
        "charts": charts_of(target, window, states, rates, dead, marks),
        "databases": databases,
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "overview.html",
        context,
        page="overview",
        target=target,
        window=window,
        reads=("sessions", "databases"),
        findings=findings,
    )


def last(values: Sequence[float | None]) -> float | None:
    """Return the last known value."""
    return next((value for value in reversed(values) if value is not None), None)


def per_second(rates: Series) -> list[float | None]:
    """Return commits and rollbacks together, None where either is unknown."""
    pairs = zip(rates.values["xact_commit"], rates.values["xact_rollback"], strict=True)
    return [None if a is None or b is None else a + b for a, b in pairs]


def transaction_note(longest: float | None, unknown: Mapping[str, str]) -> str:
    """Return what the age of the longest transaction is of, or why there is none."""
    if unknowns.STATEMENTS in unknown:
        return "not known" if longest is None else "of those that are known"
    return "none open" if longest is None else "of a client"


def dead_note(unknown: Mapping[str, str]) -> str:
    """Return what dead rows are the sum of, or why there is none."""
    if unknown.get(unknowns.COUNTS) == unknowns.STANDBY:
        return "not known on a standby"
    return unknowns.NOT_COUNTED if unknowns.COUNTS in unknown else "TOAST included"


def tiles(
    summary: fleet.FleetRow,
    sessions: Series,
    rates: Series,
    dead: Series,
    unknown: Mapping[str, str],
) -> list[Tile]:
    """Return the headline figures."""
    usable, used = summary["usable_connections"], summary["used_pct"]
    per_s = per_second(rates)
    return [
        Tile(
            title="Connections",
            value=summary["connections"],
            unit=f"of {usable:,}" if usable else "",
            spark=sessions.values["backends"],
            level=fleet.used_level(used),
            note=f"{used:.0f} % of the usable" if used is not None else "",
        ),
        Tile(
            title="Transactions",
            value=last(per_s),
            write=write_rate,
            spark=per_s,
            note="commits and rollbacks",
        ),
        Tile(
            title="Longest transaction",
            value=summary["longest_xact_seconds"],
            write=figures.duration,
            note=transaction_note(summary["longest_xact_seconds"], unknown),
        ),
        Tile(
            title="Blocked backends",
            value=summary["blocked"],
            spark=sessions.values["blocked"],
            level="warning" if summary["blocked"] else "",
            note="wait for a lock",
        ),
        Tile(
            title="Dead rows",
            value=summary["n_dead_tup"],
            write=figures.short,
            spark=[] if unknowns.COUNTS in unknown else dead.values["n_dead_tup"],
            note=dead_note(unknown),
        ),
        Tile(
            title="Oldest XID age",
            value=summary["xid_age"],
            write=figures.short,
            note="of 2.1 billion possible",
        ),
    ]


def charts_of(
    target: Target,
    window: Window,
    states: Series,
    rates: Series,
    dead: Series,
    marks: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the charts, top to bottom."""
    names = {state: state or "unknown" for state in states.values}
    found = [
        charts.chart(
            "Sessions by state",
            states,
            unit="count",
            labels=names,
            colours=charts.STATE_COLOURS,
            stack=True,
            marks=marks,
            window=window,
            since=target.created_at,
        ),
        charts.chart(
            "Transactions",
            rates,
            unit="per_s",
            labels={"xact_commit": "Committed", "xact_rollback": "Rolled back"},
            colours={"xact_commit": "cpu", "xact_rollback": "lock"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
        charts.chart(
            "Dead rows",
            dead,
            unit="rows",
            labels={"n_dead_tup": "All tables"},
            colours={"n_dead_tup": "lock"},
            marks=marks,
            window=window,
            since=target.created_at,
        ),
    ]
    return found[:-1] if target.in_recovery else found  # dead rows are the primary's to tell
