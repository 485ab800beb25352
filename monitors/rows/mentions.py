"""The statements of a window that name one table, as its page and export show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from django.db.models import QuerySet

from monitors.history import objects
from monitors.history.counters import read_sums
from monitors.history.source import Key
from monitors.history.window import Window
from monitors.models import HISTORY, Target
from monitors.rows import statements
from monitors.rows.tables import TableRow, objects_of
from monitors.rules import mentions

COLUMNS = (
    "usename",
    "queryid",
    "toplevel",
    "query",
    "calls",
    "total_exec_time_ms",
    "mean_exec_time_ms",
    "rows",
    "names_schema",
    "maybe_another",
)
"""Keys of the export, in order."""

SHOWN = 10
READ_AT_MOST = 300
"""Texts that are looked through for the page, the most expensive first."""
READ_AT_ONCE = 25
BY_NAME_MAJOR = 18
"""Since which pg_stat_statements counts statements on tables of one name together."""
SUMS = ("calls", "total_exec_time", "rows")


class Cost(TypedDict):
    """What a statement cost in a window, before its text was read."""

    id: int  # of its latest row
    queryid: int
    toplevel: bool
    usename: str | None  # None: not read yet
    calls: int
    total_exec_time: float  # ms
    rows: int


class MentionRow(TypedDict):
    """One statement whose text names a table, with what it cost in a window."""

    id: int  # of its latest row
    queryid: int
    toplevel: bool
    usename: str | None  # None: not read yet
    query: str
    calls: int
    total_exec_time_ms: float
    mean_exec_time_ms: float
    rows: int
    names_schema: bool
    maybe_another: bool  # some or all of it may have been on a table of another schema


@dataclass(frozen=True)
class Named:
    """The most expensive statements that name a table."""

    rows: list[MentionRow] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Other schemas of the database with a table of that name."""
    is_cut: bool = False
    """Whether cheaper ones were not looked for."""


def statements_naming(target: Target, window: Window, table: TableRow) -> Named:
    """Return the top statements of a window whose text names a table.

    Some or all of it may have been on a table of one of the `others`: where no schema is
    named, or the server counts them together.
    """
    others = schemas_with(target, window, table)
    costs = costs_of(target, window, table)
    rows: list[MentionRow] = []
    for row in find_in(costs[:READ_AT_MOST], target, table, others):
        if len(rows) == SHOWN:
            return Named(rows, others, is_cut=True)
        rows.append(row)
    return Named(rows, others, is_cut=len(costs) > READ_AT_MOST)


def every_statement(target: Target, window: Window, table: TableRow) -> Iterator[MentionRow]:
    """Yield all statements of a window whose text names a table, the most expensive first."""
    costs = costs_of(target, window, table)
    yield from find_in(costs, target, table, schemas_with(target, window, table))


def schemas_with(target: Target, window: Window, table: TableRow) -> list[str]:
    """Return the other schemas of a table's database that had a table of its name at the window's end."""
    if table["relname"] is None:
        return []
    rows = objects_of(target, window).rows(
        objects.among("database_id", [table["database_id"]]),
        objects.among("relname", [table["relname"]]),
    )
    names = (row["schemaname"] for row in rows if row["relid"] != table["relid"])
    return sorted(name for name in names if name)


def holding(target: Target, table: TableRow) -> QuerySet[Any]:
    """Return the statements of a table's database whose text holds its name anywhere."""
    latest = HISTORY["statements"].latest._default_manager
    if table["relname"] is None:
        return latest.none()
    word = mentions.sought(table["relname"])
    # A name with capitals is only ever written in quotes, just as it is.
    held = "contains" if word != word.lower() else "icontains"
    return latest.filter(target_id=target.pk, dbid=table["datid"], **{f"query__{held}": word})


def costs_of(target: Target, window: Window, table: TableRow) -> list[Cost]:
    """Return what those statements cost in a window, dearest first."""
    held = {
        tuple(row[:4]): (row[4], row[5])
        for row in holding(target, table).values_list(
            *statements.KEY, "id", "usename"
        )
    }  # fmt: skip
    if not held:
        return []
    key: Key = {"dbid": table["datid"], "queryid": sorted({one[0] for one in held})}
    sums = read_sums("statements", target.pk, window, SUMS, key=key)
    called: list[Cost] = [
        {
            "id": held[place][0],
            "queryid": row["queryid"],
            "toplevel": row["toplevel"],
            "usename": held[place][1],
            "calls": row["calls"],
            "total_exec_time": row["total_exec_time"],
            "rows": row["rows"],
        }
        for row in sums
        if row["calls"] > 0 and (place := statements.key_of(row)) in held
    ]
    return sorted(called, key=lambda row: row["total_exec_time"], reverse=True)


def find_in(
    costs: Sequence[Cost], target: Target, table: TableRow, others: Sequence[str]
) -> Iterator[MentionRow]:
    """Yield the rows of those statements that name the table; texts are read some at a time."""
    latest = HISTORY["statements"].latest._default_manager
    merged = bool(others) and (target.major or 0) >= BY_NAME_MAJOR
    own, name = table["schemaname"] or "", table["relname"] or ""
    schemas = [schema for schema in (own, *(others if merged else [])) if schema]
    for start in range(0, len(costs), READ_AT_ONCE):
        part = costs[start : start + READ_AT_ONCE]
        wanted = latest.filter(pk__in=[row["id"] for row in part])
        texts = dict(wanted.values_list("pk", "query"))
        for row in part:
            text = texts.get(row["id"]) or ""
            how = mentions.named(text, schemas, name)
            if how:
                sure = not others or (how == mentions.SCHEMA and not merged)
                yield mention_row(row, text, how, is_sure=sure)


def mention_row(row: Cost, text: str, how: str, *, is_sure: bool) -> MentionRow:
    """Return one statement as a row."""
    return {
        "id": row["id"],
        "queryid": row["queryid"],
        "toplevel": row["toplevel"],
        "usename": row["usename"],
        "query": text,
        "calls": row["calls"],
        "total_exec_time_ms": row["total_exec_time"],
        "mean_exec_time_ms": row["total_exec_time"] / row["calls"],
        "rows": row["rows"],
        "names_schema": how == mentions.SCHEMA,
        "maybe_another": not is_sure,
    }
