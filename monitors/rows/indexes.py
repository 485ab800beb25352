"""The indexes of one table as its page shows them: how much each is used, and how large it is."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from monitors.history.counters import read_sums
from monitors.history.window import Window
from monitors.models import HISTORY, ProbeState, Target

BLOCK_BYTES = 8192
"""Of a page, as nearly every server is built."""

LAST_SCAN_MAJOR = 16

LEFTOVER = re.compile(r"_cc(new|old)[0-9]*$")
"""How REINDEX CONCURRENTLY names the index that it works on."""

Row = dict[str, Any]


def indexes_of(target: Target, window: Window, table: Row) -> list[Row]:
    """Return a table's indexes, the primary key first, then by name.

    Keys: the columns of the probe's latest rows, `scans` and `tuples` (grown in
    the window; None where counters began anew in it), `size_bytes` (by relpages).
    """
    latest = HISTORY["indexes"].latest._default_manager.filter(
        target_id=target.pk, database_id=table["database_id"], relid=table["relid"], gone_at=None
    )
    rows = list(latest.values())
    grown = {one["indexrelid"]: one for one in grown_in(target, window, rows)}
    found = [index_row(row, grown.get(row["indexrelid"])) for row in rows]
    return sorted(found, key=lambda row: (not row["indisprimary"], row["indexrelname"] or ""))


def grown_in(target: Target, window: Window, rows: list[Row]) -> list[Row]:
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


def index_row(row: Row, grown: Row | None) -> Row:
    """Return one index with what it grew by; nothing grown is no change at all."""
    known = grown or {"idx_scan": 0, "idx_tup_read": 0, "complete": True}
    pages = row["relpages"] or None  # an index has one at least: 0 is "never noted"
    return {
        **row,
        "scans": known["idx_scan"] if known["complete"] else None,
        "tuples": known["idx_tup_read"] if known["complete"] else None,
        "size_bytes": None if pages is None else pages * BLOCK_BYTES,
        "is_leftover": row["indisvalid"] is False
        and bool(LEFTOVER.search(row["indexrelname"] or "")),
    }


def counted_since(target: Target, table: Row) -> datetime | None:
    """Return since when the server has counted scans in the table's database, None: not said."""
    states = ProbeState.objects.filter(
        target=target, database=table["database_id"], probe="indexes"
    )
    return states.values_list("reset_at", flat=True).first()


def are_read(target: Target, table: Row) -> bool:
    """Return whether the indexes of the table's database were read yet."""
    states = ProbeState.objects.filter(
        target=target, database=table["database_id"], probe="indexes", taken_at__isnull=False
    )
    return states.exists()


def has_last_scan(target: Target) -> bool:
    """Return whether the server says when an index was last used (16 on)."""
    return (target.major or 0) >= LAST_SCAN_MAJOR
