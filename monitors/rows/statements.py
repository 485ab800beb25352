"""The statements of a target as its pages and exports show them: one row a statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, TypedDict

from django.db.models import Sum
from django.db.models.functions import Left
from django.utils import timezone

from monitors.findings.standing import Standing, standing_of
from monitors.history.counters import read_sums
from monitors.history.resets import Counting, counting_of
from monitors.history.source import Key
from monitors.history.sparks import draw_rate_sparks
from monitors.history.window import Window
from monitors.models import HISTORY, Mark, Snapshot, Target
from monitors.probe import Reading
from monitors.rows import configuration

COLUMNS = (
    "database",
    "usename",
    "queryid",
    "toplevel",
    "query",
    "calls",
    "total_exec_time_ms",
    "mean_exec_time_ms",
    "rows",
    "rows_per_call",
    "shared_blks_hit",
    "shared_blks_read",
    "temp_blks_written",
    "wal_bytes",
    "share_pct",
)
"""Keys of the export, in order; computed ones carry their unit."""

KEY = ("queryid", "userid", "dbid", "toplevel")
COUNTERS = (
    "calls",
    "total_exec_time",
    "rows",
    "shared_blks_hit",
    "shared_blks_read",
    "temp_blks_written",
    "wal_bytes",
)
HALVES = ("calls", "total_exec_time")
NAMES = ("id", "usename", "datname")

PREVIEW = 200
"""Characters of a statement that a list shows; it cuts them to the width of its column."""

SLOWER_TIMES, SLOWER_CALLS, SLOWER_MS = 1.5, 5, 1.0
"""A statement became slower: so many times its mean of the window's first half, with at
least so many calls in each half and so many milliseconds more."""

MAX_SETTING = "pg_stat_statements.max"

BLOCK_BYTES = 8192
"""Of a block, as nearly every server is built."""

HUNDRED = 100


class StatementRow(TypedDict):
    """One statement of one role in one database, with what it cost in a window."""

    id: int  # of its latest row
    queryid: int
    userid: int
    dbid: int
    toplevel: bool
    usename: str | None  # None, as that of its database: not read yet
    datname: str | None
    database: str | None  # the same
    query: str | None  # None: not read yet, or not asked for
    calls: int
    calls_late: int  # in the window's second half
    total_exec_time: float  # ms
    total_exec_time_late: float
    total_exec_time_ms: float  # the same
    mean_exec_time: float | None  # ms; None, as what else is a call: it was not called
    mean_exec_time_ms: float | None  # the same
    rows: int
    rows_per_call: float | None
    shared_blks_hit: int
    shared_blks_read: int
    temp_blks_written: int
    temp_bytes: int
    wal_bytes: int
    hit_pct: float | None  # None: no block was touched
    share_pct: float | None  # of the time at top level; None: there was none
    complete: bool  # False: its counters began anew inside the window
    slower: tuple[float, float] | None  # see `slower_of`


class DrawnStatementRow(StatementRow):
    """A statement as a line of the page."""

    spark: list[float | None]  # the course of its execution time


def statements_of(
    target: Target, window: Window, *, with_texts: bool = False
) -> list[StatementRow]:
    """Return every statement that was called in a window, with what it cost there.

    Without `with_texts` their `query` is None: `with_previews` adds it to some.
    """
    sums = read_sums("statements", target.pk, window, COUNTERS, halves=HALVES)
    called = [row for row in sums if row["calls"] > 0]
    labels = labels_of(target, with_texts=with_texts)
    known = [(row, labels[key]) for row in called if (key := key_of(row)) in labels]
    return share_anew([statement_row(row, names) for row, names in known])


def share_anew(rows: Sequence[StatementRow]) -> list[StatementRow]:
    """Return rows with `share_pct` of the execution time of those at top level among them."""
    total = sum(row["total_exec_time"] for row in rows if row["toplevel"])
    return [
        {**row, "share_pct": HUNDRED * row["total_exec_time"] / total if total else None}
        for row in rows
    ]


key_of = itemgetter(*KEY)
"""Returns what names a statement within its target."""


def named_key_of(row: Reading) -> Key:
    """Return the same by column."""
    return dict(zip(KEY, key_of(row), strict=True))


def labels_of(target: Target, *, with_texts: bool) -> dict[tuple[Any, ...], Reading]:
    """Return the names, and texts, of every statement that history knows, by key."""
    latest = HISTORY["statements"].latest._default_manager.filter(target_id=target.pk)
    names = (*NAMES, "query") if with_texts else NAMES
    end = len(KEY)
    rows = latest.values_list(*KEY, *names)
    return {row[:end]: dict(zip(names, row[end:], strict=True)) for row in rows}


def with_previews(rows: Iterable[StatementRow]) -> list[StatementRow]:
    """Return rows with the beginning of their text as `query`; None was not read yet."""
    found = list(rows)
    latest = HISTORY["statements"].latest._default_manager
    wanted = latest.filter(pk__in=[row["id"] for row in found])
    texts = dict(wanted.values_list("pk", Left("query", PREVIEW)))
    return [{**row, "query": texts.get(row["id"])} for row in found]


def statement_row(row: Reading, labels: Reading) -> StatementRow:
    """Return one statement with what is computed from its sums; its share is not known yet."""
    calls, spent = row["calls"], row["total_exec_time"]
    blocks = row["shared_blks_hit"] + row["shared_blks_read"]
    return {
        "id": labels["id"],
        "queryid": row["queryid"],
        "userid": row["userid"],
        "dbid": row["dbid"],
        "toplevel": row["toplevel"],
        "usename": labels["usename"],
        "datname": labels["datname"],
        "database": labels["datname"],
        "query": labels.get("query"),
        "calls": calls,
        "calls_late": row["calls_late"],
        "total_exec_time": spent,
        "total_exec_time_late": row["total_exec_time_late"],
        "total_exec_time_ms": spent,
        "mean_exec_time": spent / calls,
        "mean_exec_time_ms": spent / calls,
        "rows": row["rows"],
        "rows_per_call": row["rows"] / calls,
        "shared_blks_hit": row["shared_blks_hit"],
        "shared_blks_read": row["shared_blks_read"],
        "temp_blks_written": row["temp_blks_written"],
        "temp_bytes": row["temp_blks_written"] * BLOCK_BYTES,
        "wal_bytes": row["wal_bytes"],
        "hit_pct": HUNDRED * row["shared_blks_hit"] / blocks if blocks else None,
        "share_pct": None,
        "complete": row["complete"],
        "slower": slower_of(row),
    }


def slower_of(row: Reading) -> tuple[float, float] | None:
    """Return a statement's mean ms in the window's first and second half where it became slower."""
    late_calls, late_ms = row["calls_late"], row["total_exec_time_late"]
    calls, spent = row["calls"] - late_calls, row["total_exec_time"] - late_ms
    if min(calls, late_calls) < SLOWER_CALLS or not row["complete"]:
        return None
    before, after = spent / calls, late_ms / late_calls
    if after < before * SLOWER_TIMES or after - before < SLOWER_MS:
        return None
    return before, after


def lost_ms(row: StatementRow) -> float:
    """Return how many ms a statement's slowing down cost in the window's second half."""
    before, after = row["slower"] or (0.0, 0.0)
    return (after - before) * row["calls_late"]


def with_sparks(
    target: Target, window: Window, rows: Sequence[StatementRow]
) -> list[DrawnStatementRow]:
    """Return the rows of one page of the table with the course of their execution time."""
    keys = [{"database_id": 0, **named_key_of(row)} for row in rows]
    lines = draw_rate_sparks("statements", target.pk, window, "total_exec_time", keys)
    return [{**row, "spark": line} for row, line in zip(rows, lines, strict=True)]


def find_standing(target: Target, window: Window) -> Standing:
    """Return what keeps a page of statements from showing the present; nothing for the past."""
    if not window.is_live:
        return Standing("", "", None)
    return standing_of(target, ("statements",), timezone.now())


EVICTED_PCT, EVICTED_LEAST = 5, 10
"""What pg_stat_statements drops in one round: of all that it holds, and at least."""


def evictions_of(target: Target, window: Window) -> str:
    """Return a sentence on what pg_stat_statements dropped in a window, '' where it kept all."""
    snapshots = Snapshot.objects.filter(
        target_id=target.pk,
        probe="statements",
        taken_at__gte=window.start,
        taken_at__lt=window.end,
    )
    rounds = int(snapshots.aggregate(total=Sum("evicted"))["total"] or 0)
    if not rounds:
        return ""
    settings = configuration.settings_of(target, None if window.is_live else window.end)
    held = next((one["setting"] for one in settings if one["name"] == MAX_SETTING), None)
    of = f"the {int(held):,} that it holds" if held else MAX_SETTING
    each = f"at least {max(int(held) * EVICTED_PCT // 100, EVICTED_LEAST):,}" if held else "some"
    many = "once" if rounds == 1 else f"{rounds:,} times"
    return (
        f"pg_stat_statements was full {many} in this window and dropped {each} of its "
        f"statements each time ({EVICTED_PCT} % of {of}, but never fewer than {EVICTED_LEAST}): "
        f"totals may be incomplete. "
        f"A greater {MAX_SETTING} keeps more, after a restart."
    )


def resets_of(marks: Sequence[Reading]) -> list[datetime]:
    """Return when pg_stat_statements was reset, of a window's marks."""
    return [
        mark["at"]
        for mark in marks
        if mark["kind"] == Mark.Kind.RESET and "pg_stat_statements" in mark["text"]
    ]


def gone_by(labels: Reading, window: Window) -> datetime | None:
    """Return when a statement was seen to be gone, None where it was not by the window's end."""
    gone_at: datetime | None = labels["gone_at"]
    return gone_at if gone_at is not None and gone_at <= window.end else None


def counted_since(target: Target, window: Window) -> Counting:
    """Return since when the server had counted by the window's end."""
    return counting_of(target, "statements", window)
