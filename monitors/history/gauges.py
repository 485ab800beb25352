"""How much: the values that a server said, over a window."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from psycopg import sql

from monitors.history.source import (
    POINTS,
    Grid,
    Key,
    Series,
    Source,
    bucket_of,
    draw,
    fetch,
    grid_of,
    parameters_of,
    source_of,
)
from monitors.history.window import Window


def read_gauges(  # noqa: PLR0913 - what to read, of what, when
    probe_name: str,
    target_id: int,
    window: Window,
    fields: Sequence[str],
    *,
    database_id: int | None = None,
    key: Key | None = None,
    points: int = POINTS,
) -> Series:
    """Return the last value of each gauge in each bucket.

    Without a key, the sum over all objects of the database or target.
    """
    source = source_of(probe_name, target_id, window, database_id)
    grid = grid_of(source, window, points)
    is_one = key is not None and set(source.history.sample.key) <= set(key)
    columns = {name: add_up(source, grid, window, name, key) for name in fields}
    if not is_one:
        columns = {name: or_zero(grid, column) for name, column in columns.items()}
    return draw(grid, columns)


def read_gauges_by(
    probe_name: str, target_id: int, window: Window, field_name: str, by: str, points: int = POINTS
) -> Series:
    """Return one column a value of a key column, each summed over the other key columns.

    By `wait_event_type` only what is active counts.
    """
    source = source_of(probe_name, target_id, window, None)
    grid = grid_of(source, window, points)
    only = {"state": "active"} if by == "wait_event_type" else {}
    found = fetch(
        sql.SQL(
            "SELECT DISTINCT {by} FROM {table} WHERE {where} AND {time} < %(end)s"
            " AND {time} >= %(early)s"
        ).format(
            by=sql.Identifier(by), table=source.table, where=source.where(only), time=source.time
        ),
        {"end": window.end, "early": window.start - timedelta(days=1)},
    )
    columns = {
        value: or_zero(grid, add_up(source, grid, window, field_name, {**only, by: value}))
        for (value,) in sorted(found)
    }
    return draw(grid, columns)


def add_up(
    source: Source, grid: Grid, window: Window, name: str, key: Key | None
) -> dict[int, float | None]:
    """Return a gauge at each bucket's end, summed over the objects that fit the key.

    None while there is no such object. Starts from what held before the window and adds what each change changed.
    """
    current, total, present = stood_before(source, window, name, key)
    rows = changes_in(source, grid, window, name, key)
    changes = iter(rows)
    row = next(changes, None)
    column: dict[int, float | None] = {}
    for bucket in grid.ends:
        while row is not None and row[0] <= bucket:
            *object_key, value = row[1:]
            former = current.get(tuple(object_key))
            current[tuple(object_key)] = value
            total += (value or 0) - (former or 0)
            present += (value is not None) - (former is not None)
            row = next(changes, None)
        column[bucket] = total if present else None
    return column


def stood_before(
    source: Source, window: Window, name: str, key: Key | None
) -> tuple[dict[tuple[Any, ...], float | None], float, int]:
    """Return a gauge as it stood when the window began: by database and key, sum, how many.

    Sum and number are those of all objects; the single values may be only those of the
    objects that changed since: of ten thousand most did not, and our database adds them up.
    """
    if source.unit != "sample":  # a day names every object, changed or not
        values = values_before(source, window, name, key)
        known = [value for value in values.values() if value is not None]
        return values, sum(known), len(known)
    [(rest, count)] = fetch(
        sql.SQL(
            "SELECT coalesce(sum({value}), 0), count({value}) FROM {table} WHERE {where}"
            " AND changed_at < %(start)s AND gone_at IS NULL"
        ).format(
            value=sql.Identifier(name),
            table=sql.Identifier(source.history.latest._meta.db_table),
            where=source.where(key),
        ),
        {"start": window.start},
    )
    changed = changed_since(source, window, name, key)
    values = {tuple(row[:-2]): row[-1] for row in changed if row[-2] is not True}
    known = [value for value in values.values() if value is not None]
    whole = int(rest) if isinstance(rest, Decimal) else rest  # the sum of bigint is numeric
    return values, whole + sum(known), count + len(known)


def changes_in(
    source: Source, grid: Grid, window: Window, name: str, key: Key | None
) -> list[tuple[Any, ...]]:
    """Return (bucket, database_id, key …, value) of each change in a window; None where it left."""
    keys = ("database_id", *source.history.sample.key)
    return fetch(
        sql.SQL(
            "SELECT {bucket}, {keys}, CASE WHEN {gone} THEN NULL ELSE {value} END"
            " FROM {table} WHERE {where} AND {time} >= %(start)s AND {time} < %(end)s"
            " ORDER BY {time}"
        ).format(
            bucket=bucket_of(source),
            keys=sql.SQL(", ").join(map(sql.Identifier, keys)),
            gone=source.gone,
            value=sql.Identifier(name),
            table=source.table,
            where=source.where(key),
            time=source.time,
        ),
        parameters_of(grid, window),
    )


def or_zero(grid: Grid, column: dict[int, float | None]) -> dict[int, float | None]:
    """Return a sum over objects where none of them is 0, not unknown."""
    return {bucket: column.get(bucket) or 0 for bucket in grid.ends}


def values_before(
    source: Source, window: Window, name: str, key: Key | None
) -> dict[tuple[Any, ...], float | None]:
    """Return a gauge of each object as it stood when the window began, by database and key."""
    history = source.history
    keys = ("database_id", *history.sample.key)
    key_list = sql.SQL(", ").join(map(sql.Identifier, keys))
    found = fetch(
        sql.SQL(
            "SELECT {keys}, {value} FROM {table} WHERE {where}"
            " AND changed_at < %(start)s AND gone_at IS NULL"
        ).format(
            keys=key_list,
            value=sql.Identifier(name),
            table=sql.Identifier(history.latest._meta.db_table),
            where=source.where(key),
        ),
        {"start": window.start},
    )
    values = {tuple(row[:-1]): row[-1] for row in found}
    for row in changed_since(source, window, name, key):
        if row[-2] is not True:
            values[tuple(row[:-2])] = row[-1]
    return values


def changed_since(
    source: Source, window: Window, name: str, key: Key | None
) -> list[tuple[Any, ...]]:
    """Return (database and key, gone, value) before the window, of what changed since its start."""
    keys = ("database_id", *source.history.sample.key)
    key_list = sql.SQL(", ").join(map(sql.Identifier, keys))
    same = sql.SQL(" AND ").join(
        sql.SQL("s.{0} = k.{0}").format(sql.Identifier(part)) for part in keys
    )
    return fetch(
        sql.SQL(
            "WITH k AS (SELECT {keys} FROM {table} WHERE {where}"
            " AND {time} >= %(start)s GROUP BY {keys} HAVING {known})"
            " SELECT {k_keys}, b.gone, b.value FROM k CROSS JOIN LATERAL ("
            " SELECT {gone} AS gone, {value} AS value FROM {table} AS s"
            " WHERE s.target_id = {target} AND {same} AND s.{time} < %(start)s"
            " AND s.{time} >= %(early)s ORDER BY s.{time} DESC LIMIT 1) AS b"
        ).format(
            keys=key_list,
            known=source.known_before,
            k_keys=sql.SQL(", ").join(sql.SQL("k.{}").format(sql.Identifier(p)) for p in keys),
            table=source.table,
            where=source.where(key),
            time=source.time,
            gone=source.gone,
            value=sql.Identifier(name),
            target=sql.Literal(source.target_id),
            same=same,
        ),
        {
            "start": window.start,
            "early": window.start
            - {"sample": timedelta(days=8)}.get(source.unit, timedelta(days=400)),
        },
    )
