"""A partitioned table as the sum of its partitions: it has no rows of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from monitors.history import objects
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import tables
from monitors.rows.tables import TableRow


class WholeRow(TableRow):
    """One table with its partitions, the largest first, of which it shows the sums; [] of another one."""

    partitions: list[TableRow]


def partitions_of(target: Target, window: Window, row: TableRow) -> list[TableRow]:
    """Return all partitions of a table, those of its partitions too, the largest first."""
    known = tables.objects_of(target, window)
    here = objects.among("database_id", [row["database_id"]])
    found: list[dict[str, Any]] = []
    parents = [row["relid"]]
    while parents:
        children = known.rows(here, objects.among("parentrelid", parents))
        found += children
        kind = tables.PARTITIONED
        parents = [child["relid"] for child in children if child["relkind"] == kind]
    rows = tables.complete(target, window, found, [])
    return sorted(rows, key=lambda one: -(one["size_bytes"] or 0))


def leaves_of(partitions: Sequence[TableRow]) -> list[TableRow]:
    """Return the partitions that hold rows."""
    return [one for one in partitions if one["relkind"] != tables.PARTITIONED]


def sum_up(row: TableRow, partitions: list[TableRow]) -> WholeRow:
    """Return a partitioned table's row with the sums of its partitions; None where none is known.

    Of its dead rows also where a rewrite left those of one partition unknown.
    """
    leaves = leaves_of(partitions)
    live = total(one["n_live_tup"] for one in leaves)
    counted = [one for one in leaves if one["n_dead_tup"] is not None or one["rewritten_dead_tup"]]
    is_whole = all(one["n_dead_tup"] is not None for one in counted)
    dead = total(one["n_dead_tup"] for one in leaves) if is_whole else None
    said = sum((one["n_dead_tup"] or 0) + (one["rewritten_dead_tup"] or 0) for one in counted)
    return {
        **row,
        "n_live_tup": live,
        "n_dead_tup": dead,
        "rewritten_dead_tup": None if is_whole else said,
        "n_mod_since_analyze": total(one["n_mod_since_analyze"] for one in leaves),
        "n_ins_since_vacuum": total(one["n_ins_since_vacuum"] for one in leaves),
        "size_bytes": total(one["size_bytes"] for one in leaves),
        "dead_pct": tables.share_pct(dead, live),
        "partitions": partitions,
    }


def total(values: Iterable[int | None]) -> int | None:
    """Return the sum of the values that are known, None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
