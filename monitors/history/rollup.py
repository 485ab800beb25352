"""Hours and days: sums of differences, last and greatest values of gauges.

Both are made again while they last, so that a page never waits for the end of
an hour, and once more after it, for what was stored late.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from psycopg import sql

from monitors.history import partitions
from monitors.models import HISTORY, Coverage
from monitors.samples import Change, History

LATE = timedelta(minutes=10)


def roll_up(now: datetime) -> None:
    """Make the hours and days that hold now, and the former ones while rows may come late."""
    for history in HISTORY.values():
        if history.hours is None or history.days is None:
            continue
        for moment in dict.fromkeys(hour_of(m) for m in (now - LATE, now)):
            roll_hour(history, moment)
        for moment in dict.fromkeys(day_of(m) for m in (now - LATE, now)):
            roll_day(history, moment, is_today=moment == day_of(now))
    for moment in dict.fromkeys(hour_of(m) for m in (now - LATE, now)):
        cover_hour(moment)


def hour_of(moment: datetime) -> datetime:
    """Return the start of the hour, UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_of(moment: datetime) -> datetime:
    """Return the start of the day, UTC."""
    return hour_of(moment).replace(hour=0)


def names(columns: tuple[str, ...]) -> sql.Composable:
    """Return a list of identifiers."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def upsert(history: History, unit: str, source: sql.Composable) -> sql.Composed:
    """Return the statement that writes rollup rows from a SELECT of all their columns."""
    sample = history.sample
    model = history.hours if unit == "hour" else history.days
    assert model is not None  # noqa: S101 - only called for probes with rollups
    place = ("target_id", "database_id", *sample.key, "start_at")
    values = (
        *("changes", "seconds", "restarted", "gone"),
        *sample.counters,
        *sample.gauges,
        *(f"{gauge}_max" for gauge in sample.gauges),
    )
    return sql.SQL(
        "INSERT INTO {table} ({columns}) {source} ON CONFLICT ({place}) DO UPDATE SET {sets}"
    ).format(
        table=sql.Identifier(model._meta.db_table),
        columns=names((*place, *values)),
        source=source,
        place=names(place),
        sets=sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in values
        ),
    )


def last(column: str, order: str) -> sql.Composed:
    """Return the aggregate that gives a column's last known value."""
    return sql.SQL("(array_agg({c} ORDER BY {o} DESC) FILTER (WHERE {c} IS NOT NULL))[1]").format(
        c=sql.Identifier(column), o=sql.Identifier(order)
    )


def aggregates(history: History, *, order: str, of_hours: bool) -> sql.Composable:
    """Return the expressions for the values of `upsert`, in its order."""
    sample = history.sample
    greatest = "{}_max" if of_hours else "{}"
    return sql.SQL(", ").join(
        [
            *(sql.SQL("sum({})").format(sql.Identifier(name)) for name in sample.counters),
            *(last(name, order) for name in sample.gauges),
            *(
                sql.SQL("max({})").format(sql.Identifier(greatest.format(name)))
                for name in sample.gauges
            ),
        ]
    )


def roll_hour(history: History, start: datetime) -> None:
    """Sum the samples of one hour, for each object that changed in it."""
    assert history.hours is not None  # noqa: S101
    partitions.ensure_for(history.hours, start)
    source = sql.SQL(
        "SELECT target_id, database_id, {key}, %(start)s, count(*),"
        " coalesce(sum(interval_seconds), 0), bool_or(change IN ({restarted}, {unknown})),"
        " (array_agg(change ORDER BY taken_at DESC))[1] = {gone}, {values}"
        " FROM {samples} WHERE taken_at >= %(start)s AND taken_at < %(end)s"
        " GROUP BY target_id, database_id, {key}"
    ).format(
        key=names(history.sample.key),
        restarted=sql.Literal(int(Change.RESTARTED)),
        unknown=sql.Literal(int(Change.UNKNOWN)),
        gone=sql.Literal(int(Change.GONE)),
        values=aggregates(history, order="taken_at", of_hours=False),
        samples=sql.Identifier(history.samples._meta.db_table),
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            upsert(history, "hour", source),
            {"start": start, "end": start + timedelta(hours=1)},
        )


def roll_day(history: History, start: datetime, *, is_today: bool) -> None:
    """Sum the hours of one day, and give each unchanged object its row.

    What did not change has no sample: its row is written once from `latest`,
    on the day itself, so that it outlives the sample of its last change.
    """
    assert history.hours is not None and history.days is not None  # noqa: S101, PT018
    partitions.ensure_for(history.days, start)
    source = sql.SQL(
        "SELECT target_id, database_id, {key}, %(start)s, sum(changes), sum(seconds),"
        " bool_or(restarted), (array_agg(gone ORDER BY start_at DESC))[1], {values}"
        " FROM {hours} WHERE start_at >= %(start)s AND start_at < %(end)s"
        " GROUP BY target_id, database_id, {key}"
    ).format(
        key=names(history.sample.key),
        values=aggregates(history, order="start_at", of_hours=True),
        hours=sql.Identifier(history.hours._meta.db_table),
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            upsert(history, "day", source), {"start": start, "end": start + timedelta(days=1)}
        )
        if is_today and history.sample.gauges:
            cursor.execute(unchanged(history), {"start": start})


def unchanged(history: History) -> sql.Composed:
    """Return the statement that gives today's row to what has not changed today."""
    assert history.days is not None  # noqa: S101
    sample = history.sample
    gauges = sample.gauges
    place = ("target_id", "database_id", *sample.key)
    return sql.SQL(
        "INSERT INTO {table} ({place}, start_at, changes, seconds, restarted, gone,"
        " {gauges}, {greatest})"
        " SELECT {place}, %(start)s, 0, 0, false, false, {gauges}, {gauges} FROM {latest}"
        " WHERE gone_at IS NULL AND changed_at < %(start)s ON CONFLICT DO NOTHING"
    ).format(
        table=sql.Identifier(history.days._meta.db_table),
        place=names(place),
        gauges=names(gauges),
        greatest=names(tuple(f"{gauge}_max" for gauge in gauges)),
        latest=sql.Identifier(history.latest._meta.db_table),
    )


COVER_SQL = """
WITH good AS (
  SELECT s.target_id, s.database_id, s.probe,
         least(3600, coalesce(sum(s.interval_seconds) FILTER (WHERE s.state = 'ok'), 0)) AS covered,
         min(s.taken_at) FILTER (WHERE s.state = 'ok') AS first_at,
         max(s.taken_at) FILTER (WHERE s.state = 'ok') AS last_at,
         count(*) FILTER (WHERE s.state <> 'ok') AS failed
    FROM monitors_snapshot AS s
   WHERE s.taken_at >= %(start)s AND s.taken_at < %(end)s
   GROUP BY s.target_id, s.database_id, s.probe)
INSERT INTO monitors_coverage
       (target_id, database_id, probe, hour, covered_seconds, spanned_seconds, failed)
SELECT g.target_id, d.id, g.probe, %(start)s, g.covered,
       coalesce(extract(epoch FROM g.last_at - coalesce(
         (SELECT max(p.taken_at) FROM monitors_snapshot AS p
           WHERE p.target_id = g.target_id AND p.database_id = g.database_id
             AND p.probe = g.probe AND p.state = 'ok' AND p.taken_at < %(start)s),
         g.first_at)), 0),
       g.failed
  FROM good AS g
  JOIN monitors_target AS t ON t.id = g.target_id
  LEFT JOIN monitors_database AS d ON d.id = nullif(g.database_id, 0)
 WHERE g.database_id = 0 OR d.id IS NOT NULL
    ON CONFLICT (target_id, database_id, probe, hour) DO UPDATE
   SET covered_seconds = excluded.covered_seconds, spanned_seconds = excluded.spanned_seconds,
       failed = excluded.failed
"""


def cover_hour(start: datetime) -> None:
    """Note how much of an hour good snapshots cover: gaps outlive the snapshots by it."""
    with connection.cursor() as cursor:
        cursor.execute(COVER_SQL, {"start": start, "end": start + timedelta(hours=1)})


def prune(now: datetime) -> None:
    """Forget coverage and names whose history has ended (few rows, kept in plain tables)."""
    Coverage.objects.filter(hour__lt=now - partitions.KEEP_HOURS).delete()
    for history in HISTORY.values():
        keep = partitions.KEEP_DAYS if history.days else partitions.KEEP_SAMPLES
        history.latest._default_manager.filter(gone_at__lt=now - keep).delete()
