"""How fast and how many: what counters grew by in a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.models import Min
from psycopg import sql

from monitors.history.source import (
    DAYS_SPAN,
    POINTS,
    SUMMED_SPAN,
    UNIT_SECONDS,
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
from monitors.models import ProbeState


def read_rates(  # noqa: PLR0913 - what to read, of what, when
    probe_name: str,
    target_id: int,
    window: Window,
    fields: Sequence[str],
    *,
    database_id: int | None = None,
    key: Key | None = None,
    points: int = POINTS,
) -> Series:
    """Return counters per second: what they grew by between two good snapshots, over that time.

    None where counters started anew, and where there is no snapshot before.
    """
    source = source_of(probe_name, target_id, window, database_id)
    grid = grid_of(source, window, points)
    rows = fetch(
        sql.SQL(
            "SELECT {bucket}, coalesce(bool_or({restarted}), false), {sums} FROM {table}"
            " WHERE {where} AND {time} >= %(start)s AND {time} < %(end)s GROUP BY 1"
        ).format(
            bucket=bucket_of(source),
            restarted=source.restarted,
            sums=sql.SQL(", ").join(
                sql.SQL("sum({})").format(sql.Identifier(name)) for name in fields
            ),
            table=source.table,
            where=source.where(key),
            time=source.time,
        ),
        parameters_of(grid, window),
    )
    grown = {row[0]: row[1:] for row in rows}
    columns: dict[str, dict[int, float | None]] = {name: {} for name in fields}
    before: datetime | None = None
    for bucket, moment in grid.ends.items():
        seconds = elapsed_seconds(source, grid, bucket, before, moment)
        restarted, *sums = grown.get(bucket, (False, *[0] * len(fields)))
        for name, amount in zip(fields, sums, strict=True):
            known = seconds is not None and not restarted
            columns[name][bucket] = float(amount or 0) / (seconds or 1) if known else None
        before = moment
    return draw(grid, columns)


def elapsed_seconds(
    source: Source, grid: Grid, bucket: int, before: datetime | None, moment: datetime
) -> float | None:
    """Return how long a bucket's differences took, None where that is not known."""
    if source.unit != "sample":
        return grid.spanned.get(bucket) or None
    if before is None or grid.has_gap(before, moment):
        return None
    return (moment - before).total_seconds()


def read_totals(
    probe_name: str, target_id: int, window: Window, *, database_id: int | None = None
) -> list[dict[str, Any]]:
    """Return for each object that changed what its counters grew by in the window.

    Keys: database_id, the sample's key, its counters, and `complete`: False
    where counters were reset inside, or the object was thrown out, so that a part was
    never seen.
    """
    source = source_of(probe_name, target_id, window, database_id)
    sample = source.history.sample
    names = ("database_id", *sample.key)
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    parts = [(source, [(window.start, window.end)])]
    if source.unit != "sample":
        parts = parts_of(source, window)
    rows = fetch(
        sql.SQL(
            "SELECT {columns}, {sums}, NOT bool_or(incomplete) FROM ({rows}) AS p GROUP BY {columns}"
        ).format(
            columns=columns,
            sums=sql.SQL(", ").join(sum_of(source, name) for name in sample.counters),
            rows=rows_of(parts, names, sample.counters, None),
        ),
        {},
    )
    return [dict(zip((*names, *sample.counters, "complete"), row, strict=True)) for row in rows]


def read_sums(  # noqa: PLR0913 - what to read, of what, when
    probe_name: str,
    target_id: int,
    window: Window,
    fields: Sequence[str],
    *,
    halves: Sequence[str] = (),
    database_id: int | None = None,
    key: Key | None = None,
) -> list[dict[str, Any]]:
    """Return for each object that changed what some counters grew by in the window.

    As `totals`, but for few counters and quicker: whole hours of shorter windows too are
    read as such, samples only at the ends. `halves` names counters whose
    growth in the second half is returned too, as NAME_late.
    """
    source = source_of(probe_name, target_id, window, database_id)
    names = ("database_id", *source.history.sample.key)
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    rows = fetch(
        sql.SQL(
            "SELECT {columns}, {sums}, NOT bool_or(incomplete) FROM ({parts}) AS p GROUP BY {columns}"
        ).format(
            columns=columns,
            sums=sql.SQL(", ").join(
                [
                    *(sum_of(source, name) for name in fields),
                    *(
                        sum_of(source, name, sql.SQL(" FILTER (WHERE at >= %(middle)s)"))
                        for name in halves
                    ),
                ]
            ),
            parts=rows_of(parts_of(source, window), names, fields, key),
        ),
        {"middle": window.start + window.length / 2},
    )
    late = [f"{name}_late" for name in halves]
    known = (*names, *fields, *late, "complete")
    return [dict(zip(known, row, strict=True)) for row in rows]


def read_growth(
    probe_name: str,
    target_id: int,
    window: Window,
    fields: Sequence[str],
    *,
    database_id: int | None = None,
) -> dict[str, float]:
    """Return what some counters of all objects together grew by in the window: {field: sum}."""
    source = source_of(probe_name, target_id, window, database_id)
    [row] = fetch(
        sql.SQL("SELECT {sums} FROM ({parts}) AS p").format(
            sums=sql.SQL(", ").join(sum_of(source, name) for name in fields),
            parts=rows_of(parts_of(source, window), (), fields, None),
        ),
        {},
    )
    return dict(zip(fields, row, strict=True))


Span = tuple[datetime, datetime]
"""From, until before."""
NO_CONDITION = sql.SQL("")


def sum_of(source: Source, name: str, condition: sql.Composable = NO_CONDITION) -> sql.Composed:
    """Return the expression that adds a counter up in its own type, 0 where there is none."""
    kind = source.history.sample._meta.get_field(name).db_type(connection) or "bigint"
    return sql.SQL("coalesce(sum({name}){condition}, 0)::{kind}").format(
        name=sql.Identifier(name),
        condition=condition,
        kind=sql.SQL(kind),
    )


Part = tuple["Source", list[Span]]
"""Where some spans are read from."""


def rows_of(
    parts: Sequence[Part], names: Sequence[str], fields: Sequence[str], key: Key | None
) -> sql.Composed:
    """Return the query of the rows of some parts: columns, `at` and `incomplete`."""
    return sql.SQL(" UNION ALL ").join(
        sql.SQL(
            "SELECT {columns}, {time} AS at, {incomplete} AS incomplete"
            " FROM {table} WHERE {where} AND {spans}"
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, (*names, *fields))),
            time=part.time,
            incomplete=part.incomplete,
            table=part.table,
            where=part.where(key),
            spans=within(part, spans),
        )
        for part, spans in parts
    )


def within(source: Source, spans: Sequence[Span]) -> sql.Composed:
    """Return the condition that a row's time lies in one of some spans."""
    either = [
        sql.SQL("({time} >= {start} AND {time} < {end})").format(
            time=source.time, start=sql.Literal(start), end=sql.Literal(end)
        )
        for start, end in spans
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(either))


def parts_of(source: Source, window: Window) -> list[Part]:
    """Return which spans of a window are read from days, hours and samples: the coarsest that fit.

    What hours and days lack is read from samples, however long nobody summed them up.
    """
    rest = [(window.start, window.end)]
    found: list[Part] = []
    if source.history.hours is not None and window.length > SUMMED_SPAN:
        end = min(window.end, rolled_until(source) or window.end)
        units = ["hour"]
        if source.unit != "sample" and window.length > DAYS_SPAN:
            units = ["day", "hour"]
        for unit in units:
            whole = [
                span for start, last in rest for span in whole_units(start, min(last, end), unit)
            ]
            if whole:
                found.append((replace(source, unit=unit), whole))
                rest = outside(rest, whole)
    return [*found, (replace(source, unit="sample"), rest)] if rest else found


def whole_units(start: datetime, end: datetime, unit: str) -> list[Span]:
    """Return the span of the whole hours or days between two moments, none where there is none."""
    step = UNIT_SECONDS[unit]
    first = -(-start.timestamp() // step) * step
    last = end.timestamp() // step * step
    if first >= last:
        return []
    return [(datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC))]


def rolled_until(source: Source) -> datetime | None:
    """Return from when on hours and days lack what was stored, None where they lack nothing."""
    states = ProbeState.objects.filter(
        target_id=source.target_id, probe=source.history.probe.name, unrolled_at__isnull=False
    )
    if source.database_id:
        states = states.filter(database_id=source.database_id)
    first: datetime | None = states.aggregate(first=Min("unrolled_at"))["first"]
    return first


def outside(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """Return what of some spans is not in others, which are in order and do not overlap."""
    rest: list[Span] = []
    for start, end in spans:
        begin = start
        for first, last in taken:
            if first >= end or last <= begin:
                continue
            if first > begin:
                rest.append((begin, first))
            begin = max(begin, last)
        if begin < end:
            rest.append((begin, end))
    return rest
