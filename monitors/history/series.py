"""Reads history back: lines for charts, top lists, the present and the past.

Samples exist only where something changed. A line's points stand at the times
of good snapshots; between them nothing is invented, and where snapshots are
missing the line has a gap (None).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import BigIntegerField, Min, Q
from psycopg import Cursor, sql

from monitors.history import partitions
from monitors.history.window import Window
from monitors.models import HISTORY, Action, Mark, ProbeState
from monitors.models.history import Change, History
from monitors.probe import Sample

POINTS = 240
SAMPLES_SPAN = timedelta(hours=26)  # longer windows are drawn from hours
HOURS_SPAN = timedelta(days=91)  # still longer ones from days
SUMMED_SPAN = timedelta(hours=2)  # longer ones are summed from whole hours where they can be
DAYS_SPAN = timedelta(days=2)  # and these from whole days
GAP_FACTOR = 2.5  # so many intervals without a snapshot are a gap

Key = dict[str, Any]
"""Columns and the value that each must have, or a list of values of which it must have one."""


@dataclass(frozen=True)
class Series:
    """Columns of a chart: `times` are epoch seconds, `values` one list a column; None is a gap."""

    times: list[float] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Which of a probe's tables a window is read from."""

    history: History
    target_id: int
    database_id: int | None  # None: every database
    unit: str  # sample, hour or day

    @property
    def table(self) -> sql.Identifier:
        """Its table."""
        model = {
            "sample": self.history.samples,
            "hour": self.history.hours,
            "day": self.history.days,
        }[self.unit]
        assert model is not None  # noqa: S101 - source_of chooses what exists
        return sql.Identifier(model._meta.db_table)

    @property
    def time(self) -> sql.Identifier:
        """Its time column."""
        return sql.Identifier("taken_at" if self.unit == "sample" else "start_at")

    @property
    def gone(self) -> sql.Composable:
        """The condition that says an object was gone."""
        if self.unit == "sample":
            return sql.SQL("change = {}").format(sql.Literal(int(Change.GONE)))
        return sql.SQL("gone")

    @property
    def restarted(self) -> sql.Composable:
        """The condition that says an object's counters started anew."""
        if self.unit == "sample":
            return sql.SQL("change IN ({}, {})").format(
                sql.Literal(int(Change.RESTARTED)), sql.Literal(int(Change.UNKNOWN))
            )
        return sql.SQL("restarted")

    @property
    def incomplete(self) -> sql.Composable:
        """The condition that says a part of an object's counts was never seen.

        What pg_stat_statements threw out counted on until then, and may come back.
        """
        if not self.history.probe.evicts:
            return self.restarted
        ever_gone = self.gone if self.unit == "sample" else sql.SQL("(gone OR was_gone)")
        return sql.SQL("({} OR {})").format(self.restarted, ever_gone)

    @property
    def known_before(self) -> sql.Composable:
        """The condition on an object's rows that it was there before the first of them."""
        if self.unit != "sample":
            return sql.SQL("true")
        return sql.SQL(
            "min(taken_at) FILTER (WHERE change IN ({}, {})) IS DISTINCT FROM min(taken_at)"
        ).format(sql.Literal(int(Change.APPEARED)), sql.Literal(int(Change.BASELINE)))

    def where(self, key: Key | None = None) -> sql.Composable:
        """Return the condition for the target, database and object."""
        parts: list[sql.Composable] = [
            sql.SQL("target_id = {}").format(sql.Literal(self.target_id))
        ]
        if self.database_id is not None:
            parts.append(sql.SQL("database_id = {}").format(sql.Literal(self.database_id)))
        for name, value in (key or {}).items():
            equal = "{} = ANY ({})" if isinstance(value, list) else "{} = {}"
            parts.append(sql.SQL(equal).format(sql.Identifier(name), sql.Literal(value)))
        return sql.SQL(" AND ").join(parts)


def source_of(probe_name: str, target_id: int, window: Window, database_id: int | None) -> Source:
    """Choose samples, hours or days by the window's length and age."""
    history = HISTORY[probe_name]
    if not history.probe.per_database and database_id is None:
        database_id = 0
    oldest = datetime.now(UTC) - partitions.KEEP_SAMPLES
    unit = "sample"
    if history.hours and (window.length > SAMPLES_SPAN or window.start < oldest):
        old = window.start < datetime.now(UTC) - partitions.KEEP_HOURS - timedelta(days=1)
        unit = "day" if window.length > HOURS_SPAN or old else "hour"
    return Source(history, target_id, database_id, unit)


def fetch(statement: sql.Composable, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Run a read of our own database."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


@dataclass(frozen=True)
class Grid:
    """The buckets of a window that hold a good snapshot, and where gaps are.

    `ends` maps a bucket's number to the time of its last good snapshot.
    """

    step: float  # seconds
    start: datetime
    ends: dict[int, datetime]
    interval: float
    spanned: dict[int, float] = field(default_factory=dict)
    """Seconds that the differences of an hour or day took, by bucket; 0: there are none."""

    def has_gap(self, before: datetime, after: datetime) -> bool:
        """Return whether snapshots are missing between two moments."""
        return (after - before).total_seconds() > GAP_FACTOR * max(self.interval, self.step)


UNIT_SECONDS = {"hour": 3600.0, "day": 86400.0}


def grid_of(source: Source, window: Window, points: int) -> Grid:
    """Return the buckets of a window that have good snapshots."""
    step = max(window.length.total_seconds() / points, 1.0)
    if source.unit != "sample":
        return rollup_grid(source, window)
    database = (
        sql.SQL("")
        if source.database_id is None
        else sql.SQL("AND database_id = {}").format(sql.Literal(source.database_id))
    )
    rows = fetch(
        sql.SQL(
            "SELECT floor(date_part('epoch', taken_at - %(start)s) / %(step)s)::int,"
            " max(taken_at), max(interval_seconds) FROM monitors_snapshot"
            " WHERE target_id = %(target)s AND probe = %(probe)s {database} AND state = 'ok'"
            " AND taken_at >= %(start)s AND taken_at < %(end)s GROUP BY 1 ORDER BY 1"
        ).format(database=database),
        {
            "start": window.start,
            "end": window.end,
            "step": step,
            "target": source.target_id,
            "probe": source.history.probe.name,
        },
    )
    interval = max((row[2] for row in rows), default=0.0)
    return Grid(step, window.start, {row[0]: row[1] for row in rows}, interval)


def rollup_grid(source: Source, window: Window) -> Grid:
    """Return the hours or days of a window that snapshots cover, by their ends."""
    seconds = UNIT_SECONDS[source.unit]
    start = datetime.fromtimestamp(window.start.timestamp() // seconds * seconds, tz=UTC)
    rows = fetch(
        sql.SQL(
            "SELECT date_trunc({unit}, hour, 'UTC'), sum(spanned) FROM ("
            " SELECT hour, max(spanned_seconds) AS spanned FROM monitors_coverage"
            " WHERE target_id = %(target)s AND probe = %(probe)s AND covered_seconds > 0"
            " AND hour >= %(start)s AND hour < %(end)s GROUP BY hour) AS h GROUP BY 1 ORDER BY 1"
        ).format(unit=sql.Literal(source.unit)),
        {
            "target": source.target_id,
            "probe": source.history.probe.name,
            "start": start,
            "end": window.end,
        },
    )
    if source.unit == "day":
        rows = uncovered_days(source, start, window.end, dict(rows))
    length = timedelta(seconds=seconds)
    ends: dict[int, datetime] = {}
    spanned: dict[int, float] = {}
    for moment, amount in rows:
        bucket = int((moment - start).total_seconds() // seconds)
        ends[bucket] = min(moment + length, window.end)
        spanned[bucket] = float(amount)
    return Grid(seconds, start, ends, seconds, spanned)


def uncovered_days(
    source: Source, start: datetime, end: datetime, spanned: dict[datetime, float]
) -> list[tuple[datetime, float]]:
    """Return days with the seconds that their differences took.

    Coverage is kept as long as the hours; of an older day that has rows
    nothing better is known than that it was watched.
    """
    days = fetch(
        sql.SQL(
            "SELECT DISTINCT start_at FROM {table} WHERE {where}"
            " AND start_at >= %(start)s AND start_at < %(end)s"
        ).format(table=source.table, where=source.where()),
        {"start": start, "end": end},
    )
    known = {day: UNIT_SECONDS["day"] for (day,) in days} | spanned
    return sorted(known.items())


def draw(grid: Grid, columns: dict[str, dict[int, float | None]]) -> Series:
    """Return the columns at the grid's buckets, with a row of None in each gap."""
    times: list[float] = []
    values: dict[str, list[float | None]] = {name: [] for name in columns}
    before: datetime | None = None
    for bucket, moment in grid.ends.items():
        if before is not None and grid.has_gap(before, moment):
            times.append((before + (moment - before) / 2).timestamp())
            for line in values.values():
                line.append(None)
        times.append(moment.timestamp())
        for name, column in columns.items():
            values[name].append(column.get(bucket))
        before = moment
    return Series(times, values)


def bucket_of(source: Source) -> sql.Composable:
    """Return the expression that numbers a row's bucket from %(start)s and %(step)s.

    date_part() counts in float8, extract() in numeric: five times slower for a million rows.
    """
    return sql.SQL("floor(date_part('epoch', {time} - %(start)s) / %(step)s)::int").format(
        time=source.time
    )


def parameters_of(grid: Grid, window: Window) -> dict[str, Any]:
    """Return the parameters that `bucket_of` needs, and the window's end."""
    return {"start": grid.start, "end": window.end, "step": grid.step}


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


def read_latest(
    probe_name: str,
    target_id: int,
    *,
    database_id: int | None = None,
    key: Key | None = None,
    gone: bool = False,
    without: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Return every object as last read, or those that fit a key, as dicts of latest's columns.

    With `gone`, those that left too (`gone_at` is set). What a page of ten
    thousand objects does not show it leaves out by `without`.
    """
    history = HISTORY[probe_name]
    statement = sql.SQL("SELECT {names} FROM {table} WHERE {where}{present}").format(
        names=sql.SQL(", ").join(map(sql.Identifier, names := columns_of(history, without))),
        table=sql.Identifier(history.latest._meta.db_table),
        where=Source(history, target_id, database_id, "sample").where(key),
        present=sql.SQL("" if gone else " AND gone_at IS NULL"),
    )
    return fetch_rows(statement, names)


def columns_of(history: History, without: Iterable[str] = ()) -> list[str]:
    """Return the columns of a probe's latest rows."""
    left_out = frozenset(without)
    fields = history.latest._meta.concrete_fields
    return [field.name for field in fields if field.name not in left_out]


def fetch_rows(statement: sql.Composed, names: Sequence[str]) -> list[dict[str, Any]]:
    """Run a read of our own database that returns these columns, each row as a dict."""
    connection.ensure_connection()
    # In binary, since ten thousand rows have seventy thousand times to be read.
    with Cursor(connection.connection) as cursor:
        rows = cursor.execute(statement, binary=True).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def read_as_of(
    probe_name: str, target_id: int, moment: datetime, *, database_id: int | None = None
) -> list[dict[str, Any]]:
    """Return every object as it stood at a past moment, in the shape of `now`.

    Counters are not rebuilt (None): their differences are what history keeps. Names and
    options are those of then.
    Empty where the moment is older than the samples: then only hours exist.
    """
    history = HISTORY[probe_name]
    return fetch_rows(stood_at(history, target_id, moment, database_id), columns_of(history))


def stood_at(
    history: History, target_id: int, moment: datetime, database_id: int | None = None
) -> sql.Composed:
    """Return the statement that reads every object as it stood at a past moment."""
    sample, source = history.sample, Source(history, target_id, database_id, "sample")
    of_sample = {"target_id", "database_id", *sample.key, *sample.gauges, *sample.facts}
    then: dict[str, sql.Composable] = {
        **{name: sql.SQL("s.{}").format(sql.Identifier(name)) for name in of_sample},
        **dict.fromkeys(sample.counters, sql.SQL("NULL")),
        "changed_at": sql.SQL("s.taken_at"),
        "since_at": sql.SQL("coalesce(l.since_at, s.taken_at)"),
        "gone_at": sql.SQL("NULL"),
    }
    then |= {name: label_then(sample, name) for name in sample.labels}
    names = columns_of(history)
    key = [sql.Identifier(name) for name in ("target_id", "database_id", *sample.key)]
    # What did not change since is as it is now; of the rest the last sample before tells.
    return sql.SQL(
        "SELECT {names} FROM {latest} WHERE {where}"
        " AND changed_at <= {moment} AND gone_at IS NULL"
        " UNION ALL SELECT {then} FROM (SELECT DISTINCT ON ({key}) * FROM {samples}"
        " WHERE {where} AND taken_at <= {moment} AND taken_at > {early}"
        " ORDER BY {key}, taken_at DESC) AS s LEFT JOIN {latest} AS l ON {same}"
        "{relabelled}"
        " WHERE NOT ({gone})"
        " AND (l.id IS NULL OR l.changed_at > {moment} OR l.gone_at IS NOT NULL)"
    ).format(
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        then=sql.SQL(", ").join(
            then.get(name, sql.SQL("l.{}").format(sql.Identifier(name))) for name in names
        ),
        latest=sql.Identifier(history.latest._meta.db_table),
        samples=source.table,
        where=source.where(),
        moment=sql.Literal(moment),
        early=sql.Literal(moment - partitions.KEEP_SAMPLES),
        key=sql.SQL(", ").join(key),
        same=sql.SQL(" AND ").join(sql.SQL("l.{0} = s.{0}").format(name) for name in key),
        gone=source.gone,
        relabelled=relabelled_since(source, moment),
    )


def is_relabelled(sample: type[Sample]) -> bool:
    """Tell whether `relabel` keeps former labels of a probe's objects: their key is one number."""
    if len(sample.key) > 1 or not sample.labels:
        return False
    return isinstance(sample._meta.get_field(sample.key[0]), BigIntegerField)


def label_then(sample: type[Sample], name: str) -> sql.Composable:
    """Return the expression of a label as it was at a moment."""
    if not is_relabelled(sample):
        return sql.SQL("l.{}").format(sql.Identifier(name))
    return sql.SQL(
        "CASE WHEN r.labels ? {text} THEN (jsonb_populate_record(l, r.labels)).{name}"
        " ELSE l.{name} END"
    ).format(text=sql.Literal(name), name=sql.Identifier(name))


def relabelled_since(source: Source, moment: datetime) -> sql.Composable:
    """Return the join that has in r.labels those labels that changed after a moment, as they were then."""
    sample = source.history.sample
    if not is_relabelled(sample):
        return sql.SQL("")
    return sql.SQL(
        " LEFT JOIN (SELECT database_id, key, jsonb_object_agg(name, value) AS labels"
        " FROM (SELECT DISTINCT ON (database_id, key, name) database_id, key, name, value"
        " FROM monitors_relabelled, jsonb_each(labels) AS e (name, value)"
        " WHERE target_id = {target} AND probe = {probe} AND at > {moment}"
        " ORDER BY database_id, key, name, at) AS first GROUP BY database_id, key) AS r"
        " ON r.database_id = s.database_id AND r.key = s.{key}"
    ).format(
        target=sql.Literal(source.target_id),
        probe=sql.Literal(source.history.probe.name),
        moment=sql.Literal(moment),
        key=sql.Identifier(sample.key[0]),
    )


def read_marks(
    target_id: int, window: Window, rewritten: Collection[Key] | None = ()
) -> list[dict[str, Any]]:
    """Return what happened in a window: restarts, resets and finished actions, oldest first.

    Keys: at, kind (restart, crash, reset, promotion, upgrade, rewrite, action), text,
    url_id (the action's id, else None). Rewrites only of the objects named by
    database_id and relid in `rewritten`; None: of all.
    """
    happened = Mark.objects.filter(target_id=target_id, at__gte=window.start, at__lt=window.end)
    if rewritten is not None:
        wanted = Q()
        for one in rewritten:
            wanted |= Q(database_id=one["database_id"], relid=one["relid"])
        others = ~Q(kind=Mark.Kind.REWRITE)
        happened = happened.filter(others | wanted if wanted else others)
    events = [
        {"at": mark.at, "kind": mark.kind, "text": mark.text, "url_id": None} for mark in happened
    ]
    done = Action.objects.filter(
        target_id=target_id,
        finished_at__gte=window.start,
        finished_at__lt=window.end,
        started_at__isnull=False,
    )
    events += [
        {
            "at": action.finished_at,
            "kind": "action",
            "text": f"{action.name} {action.object_name}: {action.state}",
            "url_id": str(action.pk),
        }
        for action in done
    ]
    return sorted(events, key=lambda event: event["at"])
