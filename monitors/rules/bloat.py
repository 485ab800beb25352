"""Bloat as arithmetic: what measurements waste, and which of several figures to believe.

Wasted is what a rewrite would give back: what an object takes beyond the pages
that its rows fill at its fillfactor. Pure functions of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

BLOCK_BYTES = 8192
"""Of a page, as nearly every server is built."""
PAGE_HEADER_BYTES = 24
FULL_PCT = 100

ESTIMATE, APPROX, EXACT, AFTER_REWRITE = "estimate", "approx", "exact", "after-rewrite"
MEASURED = frozenset({APPROX, EXACT})

MEASURED_FOR = timedelta(days=7)
"""How long a measurement is preferred to what statistics say."""
CHANGED_SHARE = 0.1
"""Pages or rows that came or went, as a share: more, and a measurement is of another table."""
CALIBRATED_BYTES = 32 * BLOCK_BYTES
"""A smaller fresh object says too little of its bytes a row: pages are whole."""

UNKNOWN_BYTES = 1024**2
"""What an object is taken for that was never vacuumed or analyzed, and is locked."""

Figures = Mapping[str, Any]


TOAST_FITS, TOAST_SHORT = 4, 6
"""Chunks of TOAST are cut so that four fill a page; shorter ones than six to a page are others."""


def heap_waste(
    *, size: int, dead: float, free: float, rows: float, fillfactor: int, toast: bool = False
) -> int:
    """Return the bytes that a table wastes, from what pgstattuple found: bytes, bytes, bytes, rows.

    Rows count as equally wide, and a page holds a whole number of them: the tail
    of a page in which no further row fits is no waste, since no rewrite gives it back.
    Long chunks of TOAST count as four to a page.
    """
    used = size - dead - free - PAGE_HEADER_BYTES * (size // BLOCK_BYTES)
    if rows <= 0 or used <= 0:
        return size
    reserve = BLOCK_BYTES * (FULL_PCT - fillfactor) // FULL_PCT
    fits = max(1, math.floor((BLOCK_BYTES - PAGE_HEADER_BYTES - reserve) / (used / rows) + 1e-9))
    if toast and fits <= TOAST_SHORT:
        fits = min(fits, TOAST_FITS)
    return max(0, size - math.ceil(rows / fits) * BLOCK_BYTES)


def btree_waste(
    *, size: int, leaf_pages: int, density: float, empty: int, deleted: int, fillfactor: int
) -> int:
    """Return the bytes that a btree wastes, from what pgstatindex found: pages and percent.

    Density alone misleads: a page that was emptied and deleted has none.
    """
    sparse = 0.0
    if leaf_pages and not math.isnan(density):
        sparse = leaf_pages * max(0.0, 1 - density / fillfactor)
    return min(size, round((sparse + empty + deleted) * BLOCK_BYTES))


def is_rewritten(before: Figures | None, now: Figures) -> bool:
    """Tell whether an object got a new file since the last snapshot."""
    return bool(
        before
        and before["relfilenode"]
        and now["relfilenode"]
        and before["relfilenode"] != now["relfilenode"]
    )


def fresh_bytes_per_row(now: Figures) -> float | None:
    """Return the bytes a row of an object that was just written, None where it tells nothing.

    TRUNCATE writes a new file too: what is empty is not fresh. What was filled again before
    the next snapshot may not be either; then less waste is told than there is, never more.
    """
    rows, size = now["reltuples"], now["relpages_bytes"]
    if not rows or rows < 0 or (size or 0) < CALIBRATED_BYTES:
        return None
    return float(size / rows)


def differs(value: float | None, other: float | None) -> bool:
    """Tell whether a number of pages or rows has changed by more than CHANGED_SHARE."""
    if value is None or other is None:
        return value is not other
    return abs(value - other) > CHANGED_SHARE * max(abs(other), 1)


def still_holds(known: Figures, now: Figures, at: datetime) -> bool:
    """Tell whether a measurement still speaks of the object as it is."""
    if known["method"] not in MEASURED or known["measured_at"] is None:
        return False
    young = at - known["measured_at"] <= MEASURED_FOR
    same = not differs(now["relpages_bytes"], known["seen_bytes"]) and not differs(
        now["reltuples"], known["seen_tuples"]
    )
    return young and same


def settled(before: Figures | None, now: Figures, known: Figures, at: datetime) -> dict[str, Any]:
    """Return what is to be believed of an object: size, waste, by which method, since when.

    `before` is its last row (None: it just appeared), `now` this one, `known` what was
    settled last. A measurement comes first while it holds, then the calibration by
    the last rewrite, then what statistics say; None where nothing is known.
    """
    fresh, fresh_at = known["fresh_bytes_per_row"], known["fresh_at"]
    rewritten = is_rewritten(before, now)
    if rewritten:
        fresh = fresh_bytes_per_row(now)
        fresh_at = at if fresh else None
    elif before is not None and before["fillfactor"] != now["fillfactor"]:
        fresh = fresh_at = None
    calibration = {"fresh_bytes_per_row": fresh, "fresh_at": fresh_at}
    if not rewritten and still_holds(known, now, at):
        return {**known, **calibration}
    return {**believed(now, fresh, known, at), **calibration}


def believed(now: Figures, fresh: float | None, known: Figures, at: datetime) -> dict[str, Any]:
    """Return size, waste, method and moment of an object that no measurement speaks of."""
    size, rows = now["relpages_bytes"], now["reltuples"]
    waste: int | None = now["estimate_bytes"]
    method = ESTIMATE if waste is not None else None
    if fresh and size is not None and rows is not None and rows >= 0:
        waste, method = max(0, round(size - fresh * rows)), AFTER_REWRITE
    same = (size, waste, method) == (known["size_bytes"], known["bloat_bytes"], known["method"])
    when = known["measured_at"] if same else at
    return figures(size, waste, method, when if method else None)


def measured(
    now: Figures, known: Figures, *, size: int, waste: int, method: str, at: datetime
) -> dict[str, Any]:
    """Return what is to be believed of an object that was just measured."""
    return {
        **figures(size, waste, method, at),
        "seen_bytes": now["relpages_bytes"],
        "seen_tuples": now["reltuples"],
        "fresh_bytes_per_row": known["fresh_bytes_per_row"],
        "fresh_at": known["fresh_at"],
    }


def figures(
    size: int | None, waste: int | None, method: str | None, at: datetime | None
) -> dict[str, Any]:
    """Return the figures that people see; the share is 0 of an object without pages."""
    share = None if waste is None else FULL_PCT * waste / size if size else 0.0
    return {
        "size_bytes": size,
        "bloat_bytes": waste,
        "bloat_pct": share,
        "method": method,
        "measured_at": at,
        "seen_bytes": None,
        "seen_tuples": None,
    }


DOUBTED = 4
"""How many times sooner an object is measured whose estimate is doubtful."""


def is_doubtful(row: Figures) -> bool:
    """Tell whether a table's estimate rests on rows that were extrapolated and not counted.

    A VACUUM that skips pages takes these to be as densely filled as all were before; only
    ANALYZE puts it right. Such an estimate was seen 16 points off.
    """
    if row["method"] != ESTIMATE or row["relkind"] == "i" or row["vacuumed_at"] is None:
        return False
    return row["stats_at"] is None or bool(row["vacuumed_at"] > row["stats_at"])


def urgency(known: Figures, now: Figures, at: datetime) -> float:
    """Return how much an object wants to be measured: its waste times the age of its measurement."""
    when = known["measured_at"] if known["method"] in MEASURED else None
    age = (at - when).total_seconds() if when else MEASURED_FOR.total_seconds() * 4
    size = now["relpages_bytes"]
    if size is None:
        size = UNKNOWN_BYTES
    waste = known["bloat_bytes"]
    if waste is None:
        waste = size // 2
    sooner = DOUBTED if is_doubtful({**now, "method": known["method"]}) else 1
    return float(sooner * age * max(waste, size // 100, 1))
