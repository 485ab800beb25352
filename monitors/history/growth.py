"""What a gauge of each object came to over a window: its value at the end less that at the start."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from monitors.history.gauges import values_before
from monitors.history.source import Key, Source, fetch, source_of
from monitors.history.window import Window


@dataclass(frozen=True)
class Growth:
    """One object's gauge over a window; `began` is its first value in it where none is older."""

    began: float
    ended: float
    jumped: bool
    """Whether the figure is known by another method since: a part may be no growth."""

    @property
    def grown(self) -> float:
        """The end less the start; below 0 where it shrank."""
        return self.ended - self.began


def growth(
    probe_name: str, target_id: int, window: Window, field_name: str, by: str = ""
) -> dict[tuple[int, int], Growth]:
    """Return {(database id, key): growth} of the objects whose gauge changed in a window.

    The probe's key is one column. `by` is the fact that says how the figure is known;
    hours and days have none, so over long windows a jump is not told.
    """
    source = source_of(probe_name, target_id, window, None)
    moved = ends(source, window, field_name, by)
    if not moved:
        return {}
    places: Key = {source.history.sample.key[0]: sorted({row[1] for row in moved})}
    before = values_before(source, window, field_name, places)
    found: dict[tuple[int, int], Growth] = {}
    for database_id, key, first, last, gone, methods in moved:
        began = before.get((database_id, key), first)
        if began is None or last is None or gone:
            continue
        found[database_id, key] = Growth(began, last, methods > 1)
    return {key: one for key, one in found.items() if one.grown}


def ends(
    source: Source, window: Window, field_name: str, by: str
) -> list[tuple[int, int, float | None, float | None, bool, int]]:
    """Return (database_id, key, first, last, gone, number of methods) of what changed in a window."""
    counted = sql.SQL("count(DISTINCT {})").format(sql.Identifier(by)) if by else sql.SQL("1")
    if source.unit != "sample":
        counted = sql.SQL("1")
    value, time = sql.Identifier(field_name), source.time
    # Most objects have one row in a window, the first: they are left out before anything is sorted.
    return fetch(
        sql.SQL(
            "WITH moved AS MATERIALIZED ("
            "SELECT database_id, {key} FROM {table}"
            " WHERE {where} AND {time} >= %(start)s AND {time} < %(end)s"
            " GROUP BY database_id, {key} HAVING count(*) > 1 OR {known_before})"
            " SELECT database_id, {key},"
            " (array_agg({value} ORDER BY {time}) FILTER (WHERE {value} IS NOT NULL))[1],"
            " (array_agg({value} ORDER BY {time} DESC) FILTER (WHERE {value} IS NOT NULL))[1],"
            " (array_agg({gone} ORDER BY {time} DESC))[1], {counted}"
            " FROM moved JOIN {table} USING (database_id, {key})"
            " WHERE {where} AND {time} >= %(start)s AND {time} < %(end)s"
            " GROUP BY database_id, {key}"
        ).format(
            key=sql.Identifier(source.history.sample.key[0]),
            known_before=source.known_before,
            value=value,
            time=time,
            gone=source.gone,
            counted=counted,
            table=source.table,
            where=source.where(),
        ),
        {"start": window.start, "end": window.end},
    )
