"""How many objects were there at once: the most in each stretch of a window."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import Any

from psycopg import sql

from monitors.history.gauges import values_before
from monitors.history.source import (
    POINTS,
    Grid,
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


def most_at_once(
    probe_name: str, target_id: int, window: Window, flag: str, points: int = POINTS
) -> Series:
    """Return in the column `most` how many objects had a flag at once, the most in each bucket.

    For probes without rollups. An object counts from the reading that shows it to the
    one that no longer does.
    """
    source = source_of(probe_name, target_id, window, None)
    grid = grid_of(source, window, points)
    before = values_before(source, window, flag, None)
    present = {key for key, value in before.items() if value}
    column: dict[int, float | None] = {}
    changes = [
        (bucket, {key: value for _bucket, _moment, key, value in rows})
        for (bucket, _moment), rows in groupby(
            changes_in(source, grid, window, flag), key=lambda row: row[:2]
        )
    ]
    place = 0
    for bucket in grid.ends:
        most = len(present)
        while place < len(changes) and changes[place][0] <= bucket:
            for key, value in changes[place][1].items():
                (present.add if value else present.discard)(key)
            most = max(most, len(present))
            place += 1
        column[bucket] = most
    return draw(grid, {"most": column})


def changes_in(
    source: Source, grid: Grid, window: Window, flag: str
) -> list[tuple[int, datetime, tuple[Any, ...], bool | None]]:
    """Return (bucket, moment, database and key, flag) of each change in a window, in order.

    The flag is None of an object that left.
    """
    keys = ("database_id", *source.history.sample.key)
    rows = fetch(
        sql.SQL(
            "SELECT {bucket}, {time}, CASE WHEN {gone} THEN NULL ELSE {flag} END, {keys}"
            " FROM {table} WHERE {where} AND {time} >= %(start)s AND {time} < %(end)s"
            " ORDER BY {time}"
        ).format(
            bucket=bucket_of(source),
            time=source.time,
            gone=source.gone,
            flag=sql.Identifier(flag),
            keys=sql.SQL(", ").join(map(sql.Identifier, keys)),
            table=source.table,
            where=source.where(),
        ),
        parameters_of(grid, window),
    )
    return [(bucket, moment, tuple(key), value) for bucket, moment, value, *key in rows]
