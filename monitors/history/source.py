"""Where figures of a window come from: samples, hours or days, and the grid they are drawn on.

Samples exist only where something changed. A line's points stand at the times
of good snapshots; between them nothing is invented, and where snapshots are
missing the line has a gap (None).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from psycopg import sql

from monitors.history import partitions
from monitors.history.window import Window
from monitors.models import HISTORY
from monitors.models.history import Change, History

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
