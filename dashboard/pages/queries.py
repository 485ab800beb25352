"""Which statements cost most: calls, time, rows and blocks over the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.listing import Listing, listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.statement_states import state_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.actions import ACTIONS
from monitors.findings import judge
from monitors.findings.verdict import Verdict
from monitors.history.counters import read_rates
from monitors.history.marks import read_marks
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.models import Target
from monitors.people import access
from monitors.rows import statements as statement_rows
from monitors.rows.statements import StatementRow
from monitors.rows.watching import Watching, watching_of

SORTED = (*statement_rows.COLUMNS, "total_exec_time", "mean_exec_time", "hit_pct")
LOAD = ("total_exec_time", "calls")
SHOWN = 70
"""Characters of a statement in the verdict."""


@require_safe
def queries(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the statements of a window, the most expensive first."""
    target, window = get_target(request, name), window_of(request)
    every = statement_rows.statements_of(target, window, with_texts=wants_texts(request))
    watched = watching_of(target, window, every, with_own=bool(request.GET.get("own")))
    shown = listing(request, watched.rows)
    exported = table_response(request, "queries", statement_rows.COLUMNS, shown.matching)
    return exported or page(request, target, window, watched, shown)


def wants_texts(request: PageRequest) -> bool:
    """Return whether every statement's text is needed, not only those of one page."""
    query = request.GET
    return bool(query.get("format") or query.get("q") or query.get("sort", "").endswith("query"))


def listing(request: PageRequest, statements: Sequence[StatementRow]) -> Listing[StatementRow]:
    """Return the statements that the query asks for, by default the greatest total first."""
    database, user = request.GET.get("database", ""), request.GET.get("user", "")
    if database:
        statements = [row for row in statements if row["database"] == database]
    if user:
        statements = [row for row in statements if row["usename"] == user]
    return listing_of(
        request,
        statements,
        columns=SORTED,
        default="-total_exec_time",
        searched=lambda row: (
            f"{row['query'] or ''} {row['usename'] or ''} {row['database'] or ''} {row['queryid']}"
        ),
    )


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    watched: Watching,
    shown: Listing[StatementRow],
) -> HttpResponse:
    """Render the page around a listing."""
    statements = watched.rows
    findings = judge.find(target, None if window.is_live else window.end)
    marks = read_marks(target.pk, window)
    load = read_rates("statements", target.pk, window, LOAD, key=watched.key)
    context: dict[str, Any] = {
        "problem": state_of(target) if window.is_live else None,
        "verdict": verdict(target, window, watched, marks),
        "watched": watched,
        "counted_since": statement_rows.counted_since(target, window),
        "statements": statements,
        "listing": shown,
        "sort": shown.sort,
        "rows": statement_rows.with_sparks(
            target, window, statement_rows.with_previews(shown.rows)
        ),
        "databases": sorted({row["database"] or "" for row in statements} - {""}),
        "users": sorted({row["usename"] or "" for row in statements} - {""}),
        "tiles": tiles(watched, load),
        "load": load_chart(target, window, load, marks),
        "calls": calls_chart(target, window, load),
        "offers": frozenset(ACTIONS),
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "queries.html",
        context,
        page="queries",
        target=target,
        window=window,
        reads=("statements",),
        findings=findings,
    )


def verdict(
    target: Target,
    window: Window,
    watched: Watching,
    marks: Sequence[Mapping[str, Any]],
) -> Verdict:
    """Return what the window's statements come to in words."""
    standing = statement_rows.find_standing(target, window)
    level, text = assess(watched.rows, watched.whole)
    if standing.text:
        level, text = standing.level, f"{standing.text} {text}"
    foot = [words.count(len(watched.rows), "statement") + " ran in this window.", watched.sentence]
    foot.append(statement_rows.evictions_of(target, window))
    resets = statement_rows.resets_of(marks)
    if resets:
        foot.append(f"Statistics were reset {times(len(resets))} in it.")
    return Verdict(level, text, " ".join(filter(None, foot)), None)


def assess(statements: Sequence[StatementRow], whole: str) -> tuple[str, str]:
    """Return a level and what is to be said first: what became slower, else what costs most.

    Shares are of `whole`.
    """
    top = max(
        (row for row in statements if row["toplevel"]),
        key=lambda row: row["total_exec_time"],
        default=None,
    )
    if top is None:
        return "unknown", "No statement was counted in this window."
    share = (
        f"takes {top['share_pct'] or 0:.0f} % of {whole}: "
        f"{words.milliseconds(top['total_exec_time'])} in {words.count(top['calls'], 'call')}, "
        f"{words.milliseconds(top['total_exec_time'] / top['calls'])} each."
    )
    slower = [row for row in statements if row["slower"]]
    worst = max(slower, key=statement_rows.lost_ms, default=top)
    dearest, slowed = (quote(row) for row in statement_rows.with_previews([top, worst]))
    if worst["slower"] is None:
        return "good", f"{dearest} {share}"
    before, after = worst["slower"]
    many = f"{len(slower)} statements became slower. Most of all" if len(slower) > 1 else ""
    became = f"takes {words.milliseconds(after)}, was {words.milliseconds(before)}"
    said = f"{many or 'One statement became slower:'} {slowed} {became}"
    subject = "It" if worst is top else dearest
    return "warning", f"{said} in the first half of this window. {subject} {share}"


def quote(row: StatementRow) -> str:
    """Return the beginning of a statement on one line."""
    text = " ".join((row["query"] or f"Statement {row['queryid']}").split())
    if len(text) <= SHOWN:
        return text
    kept, _, rest = text[:SHOWN].rpartition(" ")
    return f"{kept or rest}\N{HORIZONTAL ELLIPSIS}"


def times(count: int) -> str:
    """Return once, or 3 times."""
    return "once" if count == 1 else f"{count} times"


def tiles(watched: Watching, load: Series) -> list[Tile]:
    """Return the headline figures; nested statements are part of those that called them."""
    top = [row for row in watched.rows if row["toplevel"]]
    spent = sum(row["total_exec_time"] for row in top)
    calls = sum(row["calls"] for row in top)
    hit = sum(row["shared_blks_hit"] for row in top)
    blocks = hit + sum(row["shared_blks_read"] for row in top)
    return [
        Tile(
            title="Execution time",
            value=spent / 1000 if top else None,
            write=figures.duration,
            note="at top level" + ("" if watched.is_shown else ", without Howdah's own"),
        ),
        Tile(
            title="Calls",
            value=calls if top else None,
            write=figures.short,
            spark=load.values["calls"],
            note=f"of {len(watched.rows):,} statements",
        ),
        Tile(
            title="Mean",
            value=spent / calls if calls else None,
            write=figures.ms,
            note="a call",
        ),
        Tile(
            title="Cache hit",
            value=100 * hit / blocks if blocks else None,
            write=figures.pct,
            note="of blocks in shared buffers",
        ),
        Tile(
            title="Temporary files",
            value=sum(row["temp_bytes"] for row in top) if top else None,
            write=figures.bytes_,
            note="written by sorts and hashes",
        ),
        Tile(
            title="WAL",
            value=sum(row["wal_bytes"] for row in top) if top else None,
            write=figures.bytes_,
            note="written",
        ),
    ]


def load_chart(
    target: Target, window: Window, load: Series, marks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the chart of execution time: 1,000 ms a second is one backend that is always busy."""
    return charts.chart(
        "Execution time",
        charts.picked(load, ["total_exec_time"]),
        unit="ms",
        labels={"total_exec_time": "Execution"},
        colours={"total_exec_time": "cpu"},
        marks=marks,
        note="a second; 1 s is one busy backend",
        window=window,
        since=target.created_at,
    )


def calls_chart(target: Target, window: Window, load: Series) -> dict[str, Any]:
    """Return the chart of calls."""
    return charts.chart(
        "Calls",
        charts.picked(load, ["calls"]),
        unit="per_s",
        labels={"calls": "Calls"},
        colours={"calls": "io"},
        note="a second",
        window=window,
        since=target.created_at,
    )
