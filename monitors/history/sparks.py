"""In short: small lines of many objects at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import sql

from monitors.history.gauges import changes_in, values_before
from monitors.history.source import (
    Grid,
    Key,
    bucket_of,
    draw,
    fetch,
    grid_of,
    parameters_of,
    source_of,
)
from monitors.history.window import Window


def draw_sparks(
    probe_name: str,
    target_id: int,
    window: Window,
    field_name: str,
    keys: Iterable[Key],
    points: int = 30,
) -> list[list[float | None]]:
    """Return a short line of a gauge for each key (with its database_id), gaps as None.

    Four reads for all keys together, however many they are.
    """
    wanted = list(keys)
    source = source_of(probe_name, target_id, window, None)
    first = source.history.sample.key[0]
    some = {first: [key[first] for key in wanted]}
    grid = grid_of(source, window, points)
    base = values_before(source, window, field_name, some)
    changes: dict[tuple[Any, ...], list[tuple[int, float | None]]] = {}
    for bucket, *object_key, value in changes_in(source, grid, window, field_name, some):
        changes.setdefault(tuple(object_key), []).append((bucket, value))
    names = ("database_id", *source.history.sample.key)
    lines = []
    for key in wanted:
        name = tuple(key.get(part, 0) for part in names)
        steps = hold_values(grid, base.get(name), changes.get(name, []))
        lines.append(draw(grid, {"": steps}).values[""])
    return lines


def hold_values(
    grid: Grid, value: float | None, changes: list[tuple[int, float | None]]
) -> dict[int, float | None]:
    """Return one object's gauge at each bucket's end: it holds until it changes."""
    column = {}
    following = iter(changes)
    change = next(following, None)
    for bucket in grid.ends:
        while change is not None and change[0] <= bucket:
            value = change[1]
            change = next(following, None)
        column[bucket] = value
    return column


def draw_rate_sparks(
    probe_name: str,
    target_id: int,
    window: Window,
    field_name: str,
    keys: Iterable[Key],
    points: int = 30,
) -> list[list[float | None]]:
    """Return a short line of a counter for each key: what it grew by in each bucket, gaps as None.

    Two reads for all keys together. A bucket in which it started anew is None.
    """
    wanted = list(keys)
    source = source_of(probe_name, target_id, window, None)
    sample = source.history.sample
    first = sample.key[0]
    grid = grid_of(source, window, points)
    rows = fetch(
        sql.SQL(
            "SELECT database_id, {key}, {bucket}, bool_or({restarted}), sum({value}) FROM {table}"
            " WHERE {where} AND {time} >= %(start)s AND {time} < %(end)s"
            " GROUP BY database_id, {key}, {bucket}"
        ).format(
            key=sql.SQL(", ").join(map(sql.Identifier, sample.key)),
            bucket=bucket_of(source),
            restarted=source.restarted,
            value=sql.Identifier(field_name),
            table=source.table,
            where=source.where({first: [key[first] for key in wanted]}),
            time=source.time,
        ),
        parameters_of(grid, window),
    )
    grown: dict[tuple[Any, ...], dict[int, float | None]] = {}
    for *object_key, bucket, restarted, amount in rows:
        value = None if restarted else float(amount or 0)
        grown.setdefault(tuple(object_key), {})[bucket] = value
    names = ("database_id", *sample.key)
    lines = []
    for key in wanted:
        found = grown.get(tuple(key.get(part, 0) for part in names), {})
        column = {bucket: found.get(bucket, 0.0) for bucket in grid.ends}
        lines.append(draw(grid, {"": column}).values[""])
    return lines
