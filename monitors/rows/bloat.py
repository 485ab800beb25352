"""Bloat as its pages and exports show it: one row a table, TOAST table or btree index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, cast

from monitors import words
from monitors.advisor import Finding
from monitors.history import objects
from monitors.history.growth import Growth, growth
from monitors.history.objects import Objects
from monitors.history.source import Key
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Target
from monitors.rows.tables import TableRow, databases_of, read_at_of, rows_at
from monitors.rules.bloat import MEASURED, is_doubtful

COLUMNS = (
    "database",
    "schemaname",
    "relname",
    "indexrelname",
    "relid",
    "relkind",
    "size_bytes",
    "bloat_bytes",
    "bloat_pct",
    "method",
    "measured_at",
    "estimate_bytes",
    "stats_at",
    "vacuumed_at",
    "not_estimated",
    "fillfactor",
    "reltuples",
    "relfilenode",
    "growth_bytes",
    "read_at",
)
"""Keys of the export, in order; computed ones carry their unit."""

SHOWN_PCT_BYTES = 10 * 1024**2
"""Of a smaller object no share is shown: a few pages are no trouble, whatever their share."""

METHODS = {
    "exact": ("exact", "Every page was read by pgstattuple."),
    "approx": (
        "measured",
        "By pgstattuple: pages that hold changes were read, of others the free space is known.",
    ),
    "after-rewrite": (
        "after rewrite",
        "By the bytes a row that it had when it was last rewritten.",
    ),
    "estimate": ("estimate", "By statistics, good to about 6 points where they are fresh."),
}
"""A method's word and what it means, the most reliable first."""

DOUBTFUL = (
    "estimate, doubtful",
    "VACUUM ran after the last ANALYZE and extrapolated the number of rows: this may be 16 points"
    " off. ANALYZE it, or measure it.",
)
"""The same of an estimate that is not to be relied on."""

WHY_NOT = {
    "never_analyzed": "It had not been vacuumed or analyzed when bloat was last read: its rows were not counted.",
    "toast": "PostgreSQL keeps no statistics of TOAST tables: pgstattuple measures them.",
    "unreadable": "The login may not see its statistics.",
    "name_column": "It has a column of the type name, of which statistics say a false width.",
    "no_statistics": "A column has no statistics: ANALYZE makes them.",
}
"""Why there is no estimate, by `not_estimated`."""

NOT_MEASURED = (
    "Its turn has not come, it was locked, or it is too large to be measured in passing:"
    " it can be measured exactly."
)

KINDS = {"i": "index", "t": "TOAST", "m": "materialized view"}
ORDERS = {
    **{
        name: objects.text_of(name)
        for name in ("schemaname", "relname", "indexrelname", "relkind", "method", "not_estimated")
    },
    **{
        name: objects.column(name)
        for name in (
            "relid",
            "size_bytes",
            "bloat_bytes",
            "bloat_pct",
            "measured_at",
            "estimate_bytes",
            "stats_at",
            "vacuumed_at",
            "fillfactor",
            "reltuples",
            "relfilenode",
        )
    },
    "name": objects.name_of("schemaname", "indexrelname", "relname"),
}
"""What our database can order objects by."""
Grown = Mapping[tuple[int, int], Growth]


class BloatReading(TypedDict):
    """What is taken over of an object as last read; None: the server did not say, or it was not read."""

    database_id: int  # our own id
    relid: int  # of the object itself
    schemaname: str | None
    relname: str | None  # the table, also of an index or TOAST table
    indexrelname: str | None  # None: no index
    relkind: str | None
    tablerelid: int | None  # the table, also of an index or TOAST table
    relfilenode: int | None
    fillfactor: int | None  # pct
    reltuples: float | None  # -1: never vacuumed or analyzed
    size_bytes: int | None
    bloat_bytes: int | None  # wasted beyond what fillfactor reserves
    bloat_pct: float | None  # of size_bytes
    method: str | None  # of `METHODS`; None: how much is wasted is not known
    measured_at: datetime | None  # when the figure was first known
    estimate_bytes: int | None  # wasted by statistics
    not_estimated: str | None  # of `WHY_NOT`
    stats_at: datetime | None  # last analyze of the table
    vacuumed_at: datetime | None  # last vacuum of the table
    fresh_at: datetime | None  # when it was last rewritten, as far as was seen


class BloatRow(BloatReading):
    """One object as its page and exports show it."""

    database: str
    datid: int
    name: str  # quoted, of a TOAST table its table's; its oid where no name is known
    label: str  # the same with TOAST said
    kind: str  # table, materialized view, TOAST or index
    shown_pct: float | None  # None below 10 MB
    word: str  # of the method, '' where nothing is known
    means: str  # the method in a sentence
    unknown_word: str  # why nothing is known, in short
    why_not: str  # the same in a sentence; '' where something is known
    growth: Growth | None  # None: unchanged in the window, or not known
    growth_bytes: int | None
    read_at: datetime | None
    level: str  # of its worst finding, '' without one


READ = tuple(BloatReading.__annotations__)


def objects_of(target: Target, window: Window) -> Objects:
    """Return the objects of the window's end, for our database to choose from."""
    return Objects("bloat", target.pk, None if window.is_live else window.end)


def growth_of(target: Target, window: Window) -> Grown:
    """Return {(database id, relid): growth} of what changed in a window."""
    return growth("bloat", target.pk, window, "bloat_bytes", by="method")


def bloat_of(target: Target, window: Window, key: Key) -> list[BloatRow]:
    """Return the objects of the window's end that fit a key, without growth and level."""
    rows = rows_at("bloat", target, window, key)
    return complete(target, window, rows, {}, (), measured=measured_in(rows))


def measured_in(rows: Iterable[Mapping[str, Any]]) -> set[int]:
    """Return the ids of the databases of which something was ever measured: pgstattuple works there."""
    return {row["database_id"] for row in rows if row["method"] in MEASURED}


def complete(
    target: Target,
    window: Window,
    rows: Iterable[Mapping[str, Any]],
    grown: Grown,
    findings: Sequence[Finding],
    *,
    measured: Collection[int],
) -> list[BloatRow]:
    """Return objects as read as pages and exports show them; leaves out those of unknown databases.

    `measured` are the databases where pgstattuple works.
    """
    databases = databases_of(target, window)
    read_at = read_at_of(target, window, "bloat")
    levels = levels_of(findings)
    found = [
        bloat_row(row, databases[row["database_id"]], grown, read_at)
        for row in rows
        if row["database_id"] in databases
    ]
    for row in found:
        if row["method"] is None and row["database_id"] in measured:
            row["unknown_word"], row["why_not"] = "not measured yet", NOT_MEASURED
        row["level"] = levels.get((row["database_id"], row["label"]), "")
    return found


def levels_of(findings: Sequence[Finding]) -> dict[tuple[int | None, str], str]:
    """Return {(database id, label): level} of what findings name."""
    return {
        (one.database_id, one.object_name): one.level
        for one in reversed(findings)
        if one.advisor == "bloat"
    }


def bloat_row(
    row: Mapping[str, Any],
    database: Database,
    grown: Grown,
    read_at: Mapping[int, datetime],
) -> BloatRow:
    """Return an object as read with what its page says of it, without findings."""
    change = grown.get((row["database_id"], row["relid"]))
    word, means = words_of(row)
    large = (row["size_bytes"] or 0) >= SHOWN_PCT_BYTES
    name = name_of(row)
    return {
        **cast(BloatReading, {column: row[column] for column in READ}),
        "database": database.datname,
        "datid": database.datid,
        "name": name,
        "label": f"TOAST of {name}" if row["relkind"] == "t" else name,
        "kind": kind_of(row),
        "shown_pct": row["bloat_pct"] if large else None,
        "word": word,
        "means": means,
        "unknown_word": (row["not_estimated"] or "").replace("_", " "),
        "why_not": WHY_NOT.get(row["not_estimated"] or "", "") if row["method"] is None else "",
        "growth": change,
        "growth_bytes": round(change.grown) if change else None,
        "read_at": read_at.get(row["database_id"]),
        "level": "",
    }


def words_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return how an object's figure is known, as a word and a sentence; '' where none is."""
    if is_doubtful(row):
        return DOUBTFUL
    word, means = METHODS.get(row["method"] or "", ("", ""))
    if row["relkind"] == "i" and row["method"] == "approx":
        means = "By pgstatindex, which read every page."
    return word, means


def kind_of(row: Mapping[str, Any]) -> str:
    """Return table, materialized view, TOAST or index."""
    return KINDS.get(row["relkind"], "table")


def name_of(row: Mapping[str, Any]) -> str:
    """Return `public.orders` or `public.orders_pkey`, quoted; of a TOAST table its table's."""
    name = row["indexrelname"] or row["relname"]
    return f"{words.quoted(row['schemaname'])}.{words.quoted(name)}" if name else str(row["relid"])


def of_table(target: Target, window: Window, table: TableRow) -> BloatRow | None:
    """Return a table's own row, None where it is not read yet."""
    key = {"database_id": table["database_id"], "relid": table["relid"]}
    return next(iter(bloat_of(target, window, key)), None)


def last_known(target: Target, window: Window, database: Database, relid: int) -> BloatRow | None:
    """Return an object's row also after it is gone, None where it was never read, or changed since the window."""
    rows = HISTORY["bloat"].latest._default_manager.filter(
        target_id=target.pk, database_id=database.pk, relid=relid
    )
    if not window.is_live:
        rows = rows.filter(changed_at__lte=window.end)
    kept = rows.values().first()
    return bloat_row(kept, database, {}, {}) if kept else None
