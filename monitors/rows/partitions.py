"""A partitioned table as the sum of its partitions: it has no rows of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitors.history import objects
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import tables

SUMMED = ("n_live_tup", "n_dead_tup", "n_mod_since_analyze", "n_ins_since_vacuum", "size_bytes")

Row = dict[str, Any]


def partitions_of(target: Target, window: Window, row: Row) -> list[Row]:
    """Return all partitions of a table, those of its partitions too, the largest first."""
    known = tables.objects_of(target, window)
    here = objects.among("database_id", [row["database_id"]])
    found: list[Row] = []
    parents = [row["relid"]]
    while parents:
        children = known.rows(here, objects.among("parentrelid", parents))
        found += children
        kind = tables.PARTITIONED
        parents = [child["relid"] for child in children if child["relkind"] == kind]
    rows = tables.completed(target, window, found, [])
    return sorted(rows, key=lambda one: -(one["size_bytes"] or 0))


def leaves_of(partitions: Sequence[Row]) -> list[Row]:
    """Return the partitions that hold rows."""
    return [one for one in partitions if one["relkind"] != tables.PARTITIONED]


def summed(row: Row, partitions: Sequence[Row]) -> Row:
    """Return a partitioned table's row with the sums of its partitions; None where none is known."""
    leaves = leaves_of(partitions)
    sums = {}
    for name in SUMMED:
        known = [one[name] for one in leaves if one[name] is not None]
        sums[name] = sum(known) if known else None
    share = tables.share_pct(sums["n_dead_tup"], sums["n_live_tup"])
    return {**row, **sums, "dead_pct": share}
