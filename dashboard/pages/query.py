"""Everything that is known of one statement, on one time axis."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.findings import judge
from monitors.findings.verdict import Verdict
from monitors.history.counters import read_rates, read_sums
from monitors.history.marks import read_marks
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.models import HISTORY, Target
from monitors.probe import Reading
from monitors.rows import statements
from monitors.rows.statements import StatementRow
from monitors.rows.watching import OTHERS, WHOLE, own_userids

LABELS = (*statements.KEY, *statements.NAMES, "query", "since_at", "gone_at")

FASTER_TIMES = 1 / statements.SLOWER_TIMES


class QueryRow(StatementRow):
    """A statement as its own page shows it."""

    since_at: datetime  # when it was first read
    gone_at: datetime | None  # None: it is still counted
    share_of: str  # of what its share is, in words


@require_safe
def query(request: PageRequest, name: str, query_id: int) -> HttpResponseBase:
    """Show one statement's text, calls, time, rows, blocks and where else it runs."""
    target, window = get_target(request, name), window_of(request)
    latest = HISTORY["statements"].latest._default_manager.filter(target_id=target.pk, pk=query_id)
    labels = latest.values(*LABELS).first()
    if labels is None:
        raise Http404
    same = same_text(target, window, labels)
    row = next((one for one in same if one["id"] == query_id), None)
    row = row or never_called(labels, window)
    exported = table_response(request, "query", statements.COLUMNS, [row])
    return exported or page(request, target, window, row, same)


def same_text(target: Target, window: Window, labels: Reading) -> list[QueryRow]:
    """Return every row of a statement's queryid: of other roles, databases, and nested."""
    latest = HISTORY["statements"].latest._default_manager.filter(
        target_id=target.pk, queryid=labels["queryid"]
    )
    named = {statements.key_of(one): one for one in latest.values(*LABELS)}
    sums = read_sums(
        "statements",
        target.pk,
        window,
        statements.COUNTERS,
        halves=statements.HALVES,
        key={"queryid": labels["queryid"]},
    )
    called = [
        (statements.statement_row(one, named[key]), named[key])
        for one in sums
        if one["calls"] > 0 and (key := statements.key_of(one)) in named
    ]
    own = own_userids(target, window)
    every = read_sums("statements", target.pk, window, ["total_exec_time"], key={"toplevel": True})
    whole, others = total_ms(every, ()), total_ms(every, own)
    rows: list[QueryRow] = []
    for row, known in called:
        of_all = row["userid"] in own or not own
        total = whole if of_all else others
        rows.append(
            {
                **row,
                "share_pct": 100 * row["total_exec_time"] / total if total else None,
                "share_of": WHOLE if of_all else OTHERS,
                "since_at": known["since_at"],
                "gone_at": statements.gone_by(known, window),
            }
        )
    return sorted(rows, key=lambda row: row["total_exec_time"], reverse=True)


def total_ms(sums: Sequence[Reading], without: Collection[int]) -> float:
    """Return the execution time of statements at top level, in ms, without those of some roles."""
    return float(sum(row["total_exec_time"] for row in sums if row["userid"] not in without))


def never_called(labels: Reading, window: Window) -> QueryRow:
    """Return the row of a statement that was not called in the window."""
    return {
        "id": labels["id"],
        "queryid": labels["queryid"],
        "userid": labels["userid"],
        "dbid": labels["dbid"],
        "toplevel": labels["toplevel"],
        "usename": labels["usename"],
        "datname": labels["datname"],
        "database": labels["datname"],
        "query": labels["query"],
        "calls": 0,
        "calls_late": 0,
        "total_exec_time": 0,
        "total_exec_time_late": 0,
        "total_exec_time_ms": 0,
        "mean_exec_time": None,
        "mean_exec_time_ms": None,
        "rows": 0,
        "rows_per_call": None,
        "shared_blks_hit": 0,
        "shared_blks_read": 0,
        "temp_blks_written": 0,
        "temp_bytes": 0,
        "wal_bytes": 0,
        "hit_pct": None,
        "share_pct": None,
        "complete": True,
        "slower": None,
        "share_of": WHOLE,
        "since_at": labels["since_at"],
        "gone_at": statements.gone_by(labels, window),
    }


def page(
    request: PageRequest, target: Target, window: Window, row: QueryRow, same: Sequence[QueryRow]
) -> HttpResponse:
    """Render the page of one statement."""
    key = statements.named_key_of(row)
    rates = read_rates("statements", target.pk, window, statements.COUNTERS, key=key)
    means = quotients(rates)
    marks = read_marks(target.pk, window)
    context: dict[str, Any] = {
        "row": row,
        "others": [one for one in same if one["id"] != row["id"]],
        "verdict": verdict(target, window, row),
        "tiles": tiles(row, rates, means),
        "charts": charts_of(target, window, rates, means, marks),
        "is_baseline": is_baseline(target, row),
    }
    return render_page(
        request,
        "query.html",
        context,
        page="queries",
        target=target,
        window=window,
        reads=("statements",),
        findings=judge.find(target, None if window.is_live else window.end),
    )


def is_baseline(target: Target, row: QueryRow) -> bool:
    """Return whether a statement was already there when the target was first read."""
    earliest = HISTORY["statements"].latest._default_manager.filter(target_id=target.pk)
    first = earliest.order_by("since_at").values_list("since_at", flat=True).first()
    return bool(first == row["since_at"])


def quotients(rates: Series) -> Series:
    """Return ms and rows a call in each bucket; None where nothing was called."""
    columns = rates.values
    calls = columns["calls"]
    return Series(
        rates.times,
        {
            "mean_exec_time": divided(columns["total_exec_time"], calls),
            "rows_per_call": divided(columns["rows"], calls),
        },
    )


def divided(amounts: Sequence[float | None], calls: Sequence[float | None]) -> list[float | None]:
    """Return amount by calls, None where either is unknown or there was no call."""
    return [
        amount / count if amount is not None and count else None
        for amount, count in zip(amounts, calls, strict=True)
    ]


def verdict(target: Target, window: Window, row: QueryRow) -> Verdict:
    """Return how a statement fares in the window: what it cost, and whether it became slower."""
    standing = statements.find_standing(target, window)
    level, text = assess(row)
    if standing.text:
        level, text = standing.level, f"{standing.text} {text}"
    foot = "" if row["complete"] else "Its counters began anew in this window: a part is missing."
    return Verdict(level, text, foot, None)


def assess(row: QueryRow) -> tuple[str, str]:
    """Return a level and sentences with figures."""
    calls = row["calls"]
    if not calls:
        return "unknown", "It was not called in this window."
    spent = words.milliseconds(row["total_exec_time"])
    cost = f"It took {spent} in {words.count(calls, 'call')}"
    if row["share_pct"] is not None:
        cost = f"{cost}, {row['share_pct']:.1f} % of {row['share_of']}"
    late = row["calls_late"]
    if not late or late == calls:
        half = "second" if late else "first"
        return "good", f"{cost}. It was called in the {half} half of this window alone."
    before = (row["total_exec_time"] - row["total_exec_time_late"]) / (calls - late)
    after = row["total_exec_time_late"] / late
    figures = (
        f"{words.milliseconds(after)} a call in the second half of this window, "
        f"{words.milliseconds(before)} in the first"
    )
    if row["slower"]:
        factor = f", {after / before:.1f} times as much" if before else ""
        return "warning", f"It became slower: {figures}{factor}. {cost}."
    if after < before * FASTER_TIMES and before - after >= statements.SLOWER_MS:
        return "good", f"It became faster: {figures}. {cost}."
    return "good", f"{cost}. Its time a call is steady: {figures}."


def tiles(row: QueryRow, rates: Series, means: Series) -> list[Tile]:
    """Return the headline figures."""
    return [
        Tile(
            title="Total time",
            value=row["total_exec_time_ms"] / 1000,
            write=figures.duration,
            note="in this window",
        ),
        Tile(
            title="Calls",
            value=row["calls"],
            write=figures.short,
            spark=rates.values["calls"],
            note="in this window",
        ),
        Tile(
            title="Mean",
            value=row["mean_exec_time_ms"],
            write=figures.ms,
            spark=means.values["mean_exec_time"],
            level="warning" if row["slower"] else "",
            note="a call",
        ),
        Tile(title="Rows", value=row["rows_per_call"], write=figures.short, note="a call"),
        Tile(
            title="Cache hit",
            value=row["hit_pct"],
            write=figures.pct,
            note="of blocks in shared buffers",
        ),
        Tile(
            title="Share", value=row["share_pct"], write=figures.pct, note=f"of {row['share_of']}"
        ),
    ]


def charts_of(
    target: Target,
    window: Window,
    rates: Series,
    means: Series,
    marks: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the charts, top to bottom; all share the window and the marks."""
    shared: dict[str, Any] = {"marks": marks, "window": window, "since": target.created_at}
    blocks = {"shared_blks_hit": "Hit", "shared_blks_read": "Read"}
    lines: list[tuple[str, str, Series, Sequence[str], dict[str, Any]]] = [
        (
            "mean",
            "Mean time",
            means,
            ["mean_exec_time"],
            {
                "unit": "ms",
                "labels": {"mean_exec_time": "Mean"},
                "colours": {"mean_exec_time": "lock"},
                "note": "a call",
            },
        ),
        (
            "calls",
            "Calls",
            rates,
            ["calls"],
            {"unit": "per_s", "labels": {"calls": "Calls"}, "note": "a second"},
        ),
        (
            "rows",
            "Rows",
            means,
            ["rows_per_call"],
            {
                "unit": "rows",
                "labels": {"rows_per_call": "Rows"},
                "colours": {"rows_per_call": "cpu"},
                "note": "a call",
            },
        ),
        (
            "blocks",
            "Blocks",
            rates,
            list(blocks),
            {
                "unit": "per_s",
                "labels": blocks,
                "colours": {"shared_blks_hit": "cpu", "shared_blks_read": "io"},
                "note": "of 8 kB in shared buffers, a second",
            },
        ),
        (
            "temp",
            "Temporary blocks",
            rates,
            ["temp_blks_written"],
            {
                "unit": "per_s",
                "labels": {"temp_blks_written": "Written"},
                "colours": {"temp_blks_written": "ipc"},
                "note": "of 8 kB, a second",
            },
        ),
        (
            "wal",
            "WAL",
            rates,
            ["wal_bytes"],
            {
                "unit": "bytes",
                "labels": {"wal_bytes": "Written"},
                "colours": {"wal_bytes": "text"},
                "note": "a second",
            },
        ),
    ]
    return [
        {"id": name, **charts.chart(title, charts.picked(data, names), **options, **shared)}
        for name, title, data, names, options in lines
    ]
