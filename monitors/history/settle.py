"""Settles what is believed of each object of a measured probe, before a snapshot is stored.

What the probe's SQL says, what was measured and what was known are put together
by `monitors/rules/bloat.py`; here stands which objects that concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from monitors import words
from monitors.models.history import Change
from monitors.probe import Measuring, Row, Sample
from monitors.rules import bloat

Key = tuple[Any, ...]
Figures = Mapping[str, Any]
Measure = Callable[[list[Key]], dict[Key, tuple[str, Figures]]]
"""Given keys in the order of their urgency, returns relkind and figures of those measured."""

MARKED_BYTES = 1024**2
"""A smaller object's rewrite leaves no mark: a staging table is emptied each minute."""


@dataclass(frozen=True)
class Rewritten:
    """An object that got a new file since the last snapshot."""

    before: Figures
    now: Figures


@dataclass(frozen=True)
class Shape:
    """The columns of a sample as `history/store.py` keeps them: those of the SQL, and the others."""

    names: tuple[str, ...]
    refined: tuple[str, ...]
    keys: int

    def named(self, row: Row) -> dict[str, Any]:
        """Return a row of the SQL by column, or a whole row."""
        return dict(zip((*self.names, *self.refined), row, strict=False))

    def known(self, refined: Row) -> dict[str, Any]:
        """Return the refined columns by name."""
        return dict(zip(self.refined, refined, strict=True))

    def row_of(self, known: Figures) -> Row:
        """Return refined columns in their order."""
        return tuple(known[name] for name in self.refined)


def shape_of(sample: type[Sample]) -> Shape:
    """Return a sample's columns."""
    return Shape(sample.columns(), sample.refined, len(sample.key))


def settle(
    comparison: Any,
    sample: type[Sample],
    measuring: Measuring,
    at: datetime,
    measure: Measure | None,
) -> list[Rewritten]:
    """Settle what changed, what was measured too long ago and what is measured now.

    `comparison` is `store.Comparison`, brought up to date in place. Returns what was rewritten.
    """
    shape = shape_of(sample)
    places = {row[: shape.keys]: i for i, (_, _, row) in enumerate(comparison.changed)}
    rewritten = settle_changed(comparison, shape, at)
    settle_expired(comparison, shape, places, at)
    if measure is not None:
        wanted = urgent(comparison, shape, measuring, at)
        for key, (relkind, seen) in measure(wanted).items():
            row, refined = comparison.rows[key]
            known = judged(shape.named(row), shape.known(refined), relkind, seen, bloat.APPROX, at)
            keep(comparison, shape, places, key, known)
    return rewritten


def settle_changed(comparison: Any, shape: Shape, at: datetime) -> list[Rewritten]:
    """Settle the objects that changed; a rebuilt index follows the one of its table and name."""
    # REINDEX CONCURRENTLY gives an index another oid; a table made again has another one itself.
    replaced = {
        (row["tablerelid"], row["indexrelname"]): row
        for row in map(shape.named, comparison.gone_rows)
        if row["indexrelname"]
    }
    rewritten = []
    for place, (change, before, whole) in enumerate(comparison.changed):
        now = shape.named(whole)
        former = shape.named(before) if before is not None else None
        if change == Change.APPEARED and now["indexrelname"]:
            former = replaced.get((now["tablerelid"], now["indexrelname"]))
        known = {name: now[name] for name in shape.refined}
        refined = shape.row_of(bloat.settled(former, now, known, at))
        row = whole[: len(shape.names)]
        comparison.changed[place] = (change, before, row + refined)
        comparison.rows[row[: shape.keys]] = (row, refined)
        if former is not None and bloat.is_rewritten(former, now):
            rewritten.append(Rewritten(former, now))
    return rewritten


def settle_expired(comparison: Any, shape: Shape, places: dict[Key, int], at: datetime) -> None:
    """Settle again what did not change, but was measured too long ago."""
    method, when = shape.refined.index("method"), shape.refined.index("measured_at")
    oldest = at - bloat.MEASURED_FOR
    expired = [
        key
        for key, (_, refined) in comparison.rows.items()
        if refined[method] in bloat.MEASURED and refined[when] < oldest
    ]
    for key in expired:
        row, refined = comparison.rows[key]
        now = shape.named(row)
        known = bloat.settled(now, now, shape.known(refined), at)
        keep(comparison, shape, places, key, known)


def urgent(comparison: Any, shape: Shape, measuring: Measuring, at: datetime) -> list[Key]:
    """Return the objects that want to be measured most, at most as many as are asked about."""
    weights: list[tuple[float, Key]] = []
    for key, (row, refined) in comparison.rows.items():
        known, now = shape.known(refined), shape.named(row)
        recent = known["method"] in bloat.MEASURED and known["measured_at"] is not None
        if recent and (at - known["measured_at"]).total_seconds() < measuring.again_seconds:
            continue
        if now["relpages_bytes"] != 0:
            weights.append((bloat.urgency(known, now, at), key))
    weights.sort(key=lambda one: -one[0])
    return [key for _, key in weights[: 2 * measuring.objects]]


def judged(
    now: Figures, known: Figures, relkind: str, seen: Figures, method: str, at: datetime
) -> dict[str, Any]:
    """Return what a measurement says of an object."""
    size, fillfactor = int(seen["size"]), now["fillfactor"]
    if relkind == "i":
        waste = bloat.btree_waste(
            size=size,
            leaf_pages=seen["leaf_pages"],
            density=seen["density"],
            empty=seen["empty"],
            deleted=seen["deleted"],
            fillfactor=fillfactor,
        )
    else:
        waste = bloat.heap_waste(
            size=size,
            dead=seen["dead"],
            free=seen["free"],
            rows=seen["rows"],
            fillfactor=fillfactor,
            toast=relkind == "t",
        )
    return bloat.measured(now, known, size=size, waste=waste, method=method, at=at)


def keep_exact(
    comparison: Any,
    sample: type[Sample],
    key: Key,
    relkind: str,
    seen: Figures,
    at: datetime,
) -> None:
    """Write an exact measurement of one object into a comparison."""
    shape = shape_of(sample)
    row, refined = comparison.rows[key]
    known = judged(shape.named(row), shape.known(refined), relkind, seen, bloat.EXACT, at)
    keep(comparison, shape, {}, key, known)


def keep(comparison: Any, shape: Shape, places: dict[Key, int], key: Key, known: Figures) -> None:
    """Write an object's refined columns into a comparison, as a change where it is none yet."""
    row, former = comparison.rows[key]
    refined = shape.row_of(known)
    comparison.rows[key] = (row, refined)
    if key in places:
        change, before, _ = comparison.changed[places[key]]
        comparison.changed[places[key]] = (change, before, row + refined)
    elif refined != former:
        places[key] = len(comparison.changed)
        comparison.changed.append((Change.CHANGED, row + former, row + refined))


def words_of(one: Rewritten) -> str:
    """Return what a rewrite did, as `public.orders was rewritten: 1.2 GB → 300 MB`."""
    name = words.quoted(one.now["schemaname"], one.now["relname"])
    if one.now["indexrelname"]:
        name = f"Index {words.quoted(one.now['schemaname'], one.now['indexrelname'])}"
    elif one.now["relkind"] == "t":
        name = f"TOAST of {name}"
    sizes = [
        "not known" if size is None else words.size(size)
        for size in (one.before["relpages_bytes"], one.now["relpages_bytes"])
    ]
    return f"{name} was rewritten: {' → '.join(sizes)}."[:300]


def is_marked(one: Rewritten) -> bool:
    """Tell whether a rewrite stands on the charts: it is no small one, and emptied nothing.

    ALTER TABLE leaves no number of rows: what is empty is told by its pages.
    """
    before, now = one.before["relpages_bytes"] or 0, one.now["relpages_bytes"] or 0
    empty = bloat.BLOCK_BYTES if one.now["indexrelname"] else 0  # the first page of a btree
    return max(before, now) >= MARKED_BYTES and now > empty
