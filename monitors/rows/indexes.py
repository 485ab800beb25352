"""The indexes of one table as its page shows them: how much each is used, and how large it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, cast

from monitors.history import objects
from monitors.history.counters import read_sums
from monitors.history.freshness import read_at
from monitors.history.latest import as_unread, rebuild
from monitors.history.objects import Objects
from monitors.history.resets import Counting, counting_of
from monitors.history.source import Key
from monitors.history.window import Window
from monitors.models import HISTORY, Target
from monitors.rows.tables import TableRow

BLOCK_BYTES = 8192
"""Of a page, as nearly every server is built."""

LAST_SCAN_MAJOR = 16

LEFTOVER = re.compile(r"_cc(new|old)[0-9]*$")
"""How REINDEX CONCURRENTLY names the index that it works on."""


class IndexReading(TypedDict):
    """What is taken over of an index as last read; None: the server did not say, or it was not read."""

    database_id: int  # our own id
    indexrelid: int
    indexrelname: str | None
    relid: int | None  # of its table
    indisunique: bool | None
    indisprimary: bool | None
    indisvalid: bool | None
    indexdef: str | None
    idx_scan: int | None  # since its counters began; None: they began anew since the moment shown
    last_idx_scan: datetime | None  # 16 on
    gone_at: datetime | None  # of one that was dropped


class IndexRow(IndexReading):
    """One index as its table's page shows it."""

    scans: int | None  # grown in the window; None: counters began anew in it
    tuples: int | None  # the same of the entries that were read
    size_bytes: int | None  # by relpages
    is_leftover: bool  # left by a REINDEX CONCURRENTLY that failed


READ = tuple(IndexReading.__annotations__)


def indexes_of(target: Target, window: Window, table: TableRow) -> list[IndexRow]:
    """Return a table's indexes, the primary key first, then by name."""
    rows = stood(target, window, table["database_id"], "relid", table["relid"])
    grown = {one["indexrelid"]: one for one in read_growth(target, window, rows)}
    found = [index_row(row, grown.get(row["indexrelid"])) for row in rows]
    return sorted(found, key=lambda row: (not row["indisprimary"], row["indexrelname"] or ""))


def stood(
    target: Target, window: Window, database_id: int, column: str, value: int
) -> list[dict[str, Any]]:
    """Return the indexes that a window's end shows in one database, by one of their columns.

    In the past idx_scan is None where its counter began anew since; other counters are not rebuilt.
    """
    at = None if window.is_live else window.end
    rows = Objects("indexes", target.pk, at).rows(
        objects.among("database_id", [database_id]), objects.among(column, [value])
    )
    if at is not None:
        key: Key = {"database_id": database_id, "indexrelid": [row["indexrelid"] for row in rows]}
        rebuild(HISTORY["indexes"], target.pk, at, rows, ["idx_scan"], key)
    return rows


def find(
    target: Target, window: Window, database_id: int, indexrelid: int
) -> dict[str, Any] | None:
    """Return an index as a window's end shows it, one that was gone as it last was; None: never read."""
    rows = stood(target, window, database_id, "indexrelid", indexrelid)
    if rows:
        return rows[0]
    latest = HISTORY["indexes"].latest._default_manager.filter(
        target_id=target.pk, database_id=database_id, indexrelid=indexrelid
    )
    kept = latest.values().first()
    if kept is None or window.is_live:
        return kept
    return as_unread("indexes", kept, window.end)


def read_growth(
    target: Target, window: Window, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return what the scans of indexes of one database grew by in a window: those that were used."""
    if not rows:
        return []
    return read_sums(
        "indexes",
        target.pk,
        window,
        ["idx_scan", "idx_tup_read"],
        database_id=rows[0]["database_id"],
        key={"indexrelid": [row["indexrelid"] for row in rows]},
    )


def index_row(row: Mapping[str, Any], grown: Mapping[str, Any] | None) -> IndexRow:
    """Return one index as read with what it grew by; nothing grown is no change at all, if it was read."""
    was_read = row["relpages"] is not None  # every reading has them
    known = grown or {"idx_scan": 0, "idx_tup_read": 0, "complete": was_read}
    pages = row["relpages"] or None  # an index has one at least: 0 is "never noted"
    return {
        **cast(IndexReading, {name: row[name] for name in READ}),
        "scans": known["idx_scan"] if known["complete"] else None,
        "tuples": known["idx_tup_read"] if known["complete"] else None,
        "size_bytes": None if pages is None else pages * BLOCK_BYTES,
        "is_leftover": row["indisvalid"] is False
        and bool(LEFTOVER.search(row["indexrelname"] or "")),
    }


def counted_since(target: Target, window: Window, database_id: int) -> Counting:
    """Return since when the server had counted scans in a database by the window's end."""
    return counting_of(target, "indexes", window, database_id)


def are_read(target: Target, window: Window, database_id: int) -> bool:
    """Return whether the indexes of a database were read by the window's end."""
    return database_id in read_at(target, "indexes", None if window.is_live else window.end)


def has_last_scan(target: Target) -> bool:
    """Return whether the server says when an index was last used (16 on)."""
    return (target.major or 0) >= LAST_SCAN_MAJOR
