"""The indexes of one table as its page shows them: how much each is used, and how large it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, cast

from monitors.history.counters import read_sums
from monitors.history.window import Window
from monitors.models import HISTORY, ProbeState, Target
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
    idx_scan: int | None  # since its counters began
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
    latest = HISTORY["indexes"].latest._default_manager.filter(
        target_id=target.pk, database_id=table["database_id"], relid=table["relid"], gone_at=None
    )
    rows = list(latest.values())
    grown = {one["indexrelid"]: one for one in read_growth(target, window, rows)}
    found = [index_row(row, grown.get(row["indexrelid"])) for row in rows]
    return sorted(found, key=lambda row: (not row["indisprimary"], row["indexrelname"] or ""))


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
    """Return one index as read with what it grew by; nothing grown is no change at all."""
    known = grown or {"idx_scan": 0, "idx_tup_read": 0, "complete": True}
    pages = row["relpages"] or None  # an index has one at least: 0 is "never noted"
    return {
        **cast(IndexReading, {name: row[name] for name in READ}),
        "scans": known["idx_scan"] if known["complete"] else None,
        "tuples": known["idx_tup_read"] if known["complete"] else None,
        "size_bytes": None if pages is None else pages * BLOCK_BYTES,
        "is_leftover": row["indisvalid"] is False
        and bool(LEFTOVER.search(row["indexrelname"] or "")),
    }


def counted_since(target: Target, database_id: int) -> datetime | None:
    """Return since when the server has counted scans in a database, None: not said."""
    states = ProbeState.objects.filter(target=target, database=database_id, probe="indexes")
    return states.values_list("reset_at", flat=True).first()


def are_read(target: Target, database_id: int) -> bool:
    """Return whether the indexes of a database were read yet."""
    states = ProbeState.objects.filter(
        target=target, database=database_id, probe="indexes", taken_at__isnull=False
    )
    return states.exists()


def has_last_scan(target: Target) -> bool:
    """Return whether the server says when an index was last used (16 on)."""
    return (target.major or 0) >= LAST_SCAN_MAJOR
