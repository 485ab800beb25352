"""Bloat as its pages and exports show it: one row a table, TOAST table or btree index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.db.models import Q

from monitors import words
from monitors.advisor import Finding
from monitors.history import objects
from monitors.history.growth import Growth, growth
from monitors.history.objects import Objects
from monitors.history.source import Key
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Target
from monitors.rows.tables import databases_of, read_at_of, rows_at
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
COUNTED_BY = ("database_id", "schemaname", "relkind", "method", "not_estimated")
"""What `groups_of` tells apart: enough for every count and sum of the page."""
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
Row = dict[str, Any]
Grown = Mapping[tuple[int, int], Growth]


def objects_of(target: Target, window: Window) -> Objects:
    """Return the objects of the window's end, for our database to choose from."""
    return Objects("bloat", target.pk, None if window.is_live else window.end)


def growth_of(target: Target, window: Window) -> Grown:
    """Return {(database id, relid): growth} of what changed in a window."""
    return growth("bloat", target.pk, window, "bloat_bytes", by="method")


def bloat_of(target: Target, window: Window, key: Key) -> list[Row]:
    """Return the objects of the window's end that fit a key, without growth and level; see `completed`."""
    rows = rows_at("bloat", target, window, key)
    return completed(target, window, rows, {}, (), measured=measured_in(rows))


def measured_in(rows: Iterable[Mapping[str, Any]]) -> set[int]:
    """Return the ids of the databases of which something was ever measured: pgstattuple works there."""
    return {row["database_id"] for row in rows if row["method"] in MEASURED}


def completed(
    target: Target,
    window: Window,
    rows: Iterable[Row],
    grown: Grown,
    findings: Sequence[Finding],
    *,
    measured: Collection[int],
) -> list[Row]:
    """Add to objects what pages and exports say of them; leaves out those of unknown databases.

    Keys: `COLUMNS`, every column of the probe, and for the page `datid`, `name` (quoted, of a
    TOAST table its table's), `label` (with TOAST said), `kind`, `shown_pct` (None below 10 MB),
    `word` and `means` of the method, `why_not`, `growth` (None: unchanged in the window, or
    not known) and `level`. `measured` are the databases where pgstattuple works.
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


def groups_of(target: Target, window: Window) -> list[Row]:
    """Return how many objects there are of each kind, and what they waste, for counts and sums.

    Keys: those of `COUNTED_BY`, `database`, `objects`, `size_bytes`, `bloat_bytes` (sums, None:
    of none), `bloat_bytes_known` (of how many).
    """
    databases = databases_of(target, window)
    groups = objects_of(target, window).groups(COUNTED_BY, ("size_bytes", "bloat_bytes"))
    return [
        {**group, "database": databases[group["database_id"]].datname}
        for group in groups
        if group["database_id"] in databases
    ]


def levels_of(findings: Sequence[Finding]) -> dict[tuple[int | None, str], str]:
    """Return {(database id, label): level} of what findings name."""
    return {
        (one.database_id, one.object_name): one.level
        for one in reversed(findings)
        if one.advisor == "bloat"
    }


def bloat_row(
    row: Row,
    database: Database,
    grown: Grown,
    read_at: Mapping[int, Any],
) -> Row:
    """Add to an object's row what its page says of it; returns the same row."""
    change = grown.get((row["database_id"], row["relid"]))
    word, means = METHODS.get(row["method"] or "", ("", ""))
    if row["relkind"] == "i" and row["method"] == "approx":
        means = "By pgstatindex, which read every page."
    if is_doubtful(row):
        word, means = DOUBTFUL
    large = (row["size_bytes"] or 0) >= SHOWN_PCT_BYTES
    row["database"] = database.datname
    row["datid"] = database.datid
    row["name"] = name = name_of(row)
    row["label"] = f"TOAST of {name}" if row["relkind"] == "t" else name
    row["kind"] = kind_of(row)
    row["shown_pct"] = row["bloat_pct"] if large else None
    row["word"], row["means"] = word, means
    row["unknown_word"] = (row["not_estimated"] or "").replace("_", " ")
    row["why_not"] = WHY_NOT.get(row["not_estimated"] or "", "") if row["method"] is None else ""
    row["growth"] = change
    row["growth_bytes"] = round(change.grown) if change else None
    row["read_at"] = read_at.get(row["database_id"])
    return row


def kind_of(row: Mapping[str, Any]) -> str:
    """Return table, materialized view, TOAST or index."""
    return KINDS.get(row["relkind"], "table")


def name_of(row: Mapping[str, Any]) -> str:
    """Return `public.orders` or `public.orders_pkey`, quoted; of a TOAST table its table's."""
    name = row["indexrelname"] or row["relname"]
    return f"{words.quoted(row['schemaname'])}.{words.quoted(name)}" if name else str(row["relid"])


def is_index(row: Mapping[str, Any]) -> bool:
    """Whether a row is an index."""
    return bool(row["relkind"] == "i")


def wasted(rows: Iterable[Mapping[str, Any]]) -> int | None:
    """Return the wasted bytes of the objects, or groups, of which something is known; None: of none."""
    known = [row["bloat_bytes"] for row in rows if row["bloat_bytes"] is not None]
    return sum(known) if known else None


def counted_in(groups: Iterable[Mapping[str, Any]]) -> int:
    """Return how many objects some groups hold."""
    return sum(group["objects"] for group in groups)


def by_schema(groups: Iterable[Row]) -> list[Row]:
    """Return the schemas with what their tables and indexes waste, most first.

    Keys: database, schemaname, objects, unknown, size_bytes, table_bytes, index_bytes, bloat_bytes.
    """
    schemas: dict[tuple[str, str], list[Row]] = {}
    for group in groups:
        schemas.setdefault((group["database"], group["schemaname"] or ""), []).append(group)
    found = [
        {
            "database": database,
            "schemaname": schema,
            "objects": counted_in(mine),
            "unknown": counted_in(mine) - sum(group["bloat_bytes_known"] for group in mine),
            "size_bytes": sum(group["size_bytes"] or 0 for group in mine),
            "table_bytes": wasted(group for group in mine if not is_index(group)),
            "index_bytes": wasted(group for group in mine if is_index(group)),
            "bloat_bytes": wasted(mine),
        }
        for (database, schema), mine in schemas.items()
    ]
    return sorted(found, key=lambda row: -(row["bloat_bytes"] or 0))


def methods_of(groups: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return (word, how many objects are known by it), the most reliable first, unknown last."""
    counts: dict[str, int] = {}
    for group in groups:
        name = group["method"] or ""
        counts[name] = counts.get(name, 0) + group["objects"]
    named = [(word, counts[name]) for name, (word, _) in METHODS.items() if name in counts]
    return [*named, ("not known", counts[""])] if "" in counts else named


def of_table(target: Target, window: Window, table: Mapping[str, Any]) -> Row | None:
    """Return a table's own row, None where it is not read yet."""
    key = {"database_id": table["database_id"], "relid": table["relid"]}
    return next(iter(bloat_of(target, window, key)), None)


def last_known(target: Target, database: Database, relid: int) -> Row | None:
    """Return an object's row also after it is gone, None where it was never read."""
    rows = HISTORY["bloat"].latest._default_manager.filter(
        Q(target_id=target.pk, database_id=database.pk, relid=relid)
    )
    kept = rows.values().first()
    return {**bloat_row(kept, database, {}, {}), "level": ""} if kept else None
