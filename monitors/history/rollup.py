"""Hours and days: sums of differences, last and greatest values of gauges.

Each `ProbeState` says from when on hours and days lack what was stored. They are made
again from there, as often as it takes and whenever that was: an hour that lasts, one that
got a late snapshot, and those of a day without upkeep.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from psycopg import sql

from monitors.history import partitions
from monitors.models import HISTORY, Coverage, Snapshot
from monitors.models.history import Change, History

LOCK = 0x726F6C6C  # an advisory lock of ours: "roll"
DAYS_BACK = timedelta(days=8)  # how far back an unchanged object's row of a day is looked for

# xmin is another as soon as anything was written to a state, in whatever order
# transactions end.
UNROLLED_SQL = """
SELECT s.id, s.xmin::text, s.probe, s.unrolled_at
  FROM monitors_probestate AS s
 WHERE s.unrolled_at IS NOT NULL
"""

# Where a snapshot is being stored right now its state stays as it is until the next time.
ROLLED_SQL = """
WITH same AS (
  SELECT s.id
    FROM monitors_probestate AS s
    JOIN unnest(%(ids)s::bigint[], %(xmins)s::text[]) AS r (id, xmin)
      ON r.id = s.id AND r.xmin = s.xmin::text
     FOR UPDATE OF s SKIP LOCKED)
UPDATE monitors_probestate AS s SET unrolled_at = NULL FROM same WHERE same.id = s.id
"""


def roll_up(now: datetime) -> None:
    """Make the hours and days that lack something, and today's rows of what has not changed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        [(free,)] = cursor.fetchall()
        if not free:
            return  # another worker is at it
        try:
            cursor.execute(UNROLLED_SQL)
            states = cursor.fetchall()
            roll_from({(probe, moment) for _, _, probe, moment in states}, day_of(now))
            ids, xmins = [row[0] for row in states], [row[1] for row in states]
            cursor.execute(ROLLED_SQL, {"ids": ids, "xmins": xmins})
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def roll_from(lacking: Iterable[tuple[str, datetime]], today: datetime) -> None:
    """Make hours, days and coverage anew from the first moment of each probe that they lack."""
    first: dict[str, datetime] = {}
    for name, moment in lacking:
        first[name] = min(first.get(name, moment), moment)
    hours: dict[str, list[datetime]] = {
        name: hours_since(name, moment) for name, moment in first.items()
    }
    for name, history in HISTORY.items():
        if history.hours is None or history.days is None:
            continue
        for hour in hours.get(name, []):
            roll_hour(history, hour)
        for day in sorted({*map(day_of, hours.get(name, [])), today}):
            roll_day(history, day, is_today=day == today)
    for hour in sorted({hour for each in hours.values() for hour in each}):
        cover_hour(hour)


def hours_since(probe: str, moment: datetime) -> list[datetime]:
    """Return the hour of a moment, and those after it in which a probe was tried."""
    tried = Snapshot.objects.filter(probe=probe, taken_at__gte=moment)
    found = tried.datetimes("taken_at", "hour", tzinfo=UTC)
    return sorted({hour_of(moment), *found})


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
        *(("was_gone",) if history.probe.evicts else ()),
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
    """Return the expressions for the values of `upsert` from `gone` on, in its order."""
    sample = history.sample
    greatest = "{}_max" if of_hours else "{}"
    gone = sql.SQL("gone" if of_hours else "change = {}").format(sql.Literal(int(Change.GONE)))
    ever = sql.SQL("{} OR was_gone" if of_hours else "{}").format(gone)
    return sql.SQL(", ").join(
        [
            sql.SQL("(array_agg({} ORDER BY {} DESC))[1]").format(gone, sql.Identifier(order)),
            # What came back within the hour lacks counts all the same.
            *([sql.SQL("bool_or({})").format(ever)] if history.probe.evicts else []),
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
        " coalesce(sum(interval_seconds), 0), bool_or(change IN ({restarted}, {unknown})), {values}"
        " FROM {samples} WHERE taken_at >= %(start)s AND taken_at < %(end)s"
        " GROUP BY target_id, database_id, {key}"
    ).format(
        key=names(history.sample.key),
        restarted=sql.Literal(int(Change.RESTARTED)),
        unknown=sql.Literal(int(Change.UNKNOWN)),
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

    What did not change has no sample: its row is written once, so that it outlives
    the sample of its last change.
    """
    assert history.hours is not None and history.days is not None  # noqa: S101, PT018
    partitions.ensure_for(history.days, start)
    source = sql.SQL(
        "SELECT target_id, database_id, {key}, %(start)s, sum(changes), sum(seconds),"
        " bool_or(restarted), {values}"
        " FROM {hours} WHERE start_at >= %(start)s AND start_at < %(end)s"
        " GROUP BY target_id, database_id, {key}"
    ).format(
        key=names(history.sample.key),
        values=aggregates(history, order="start_at", of_hours=True),
        hours=sql.Identifier(history.hours._meta.db_table),
    )
    end = start + timedelta(days=1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(upsert(history, "day", source), {"start": start, "end": end})
        if not history.sample.gauges:
            return
        if is_today:
            cursor.execute(unchanged(history, sql.SQL("true")), {"start": start})
            return
        within: dict[str, datetime | str] = {
            "start": start,
            "end": end,
            "early": start - DAYS_BACK,
            "probe": history.probe.name,
        }
        cursor.execute(unchanged(history, WATCHED), within)
        cursor.execute(carried_on(history), within)


WATCHED = sql.SQL(
    "EXISTS (SELECT FROM monitors_snapshot AS s WHERE s.target_id = l.target_id"
    " AND s.database_id = l.database_id AND s.probe = %(probe)s AND s.state = 'ok'"
    " AND s.taken_at >= %(start)s AND s.taken_at < %(end)s)"
)
"""Whether an object's probe was read on a day that is over."""


def unchanged(history: History, watched: sql.Composable) -> sql.Composed:
    """Return the statement that gives a day's row to what has not changed since it began."""
    assert history.days is not None  # noqa: S101
    return insert_unchanged(
        history,
        sql.SQL(
            "{latest} AS l WHERE l.gone_at IS NULL AND l.changed_at < %(start)s AND {watched}"
        ).format(latest=sql.Identifier(history.latest._meta.db_table), watched=watched),
    )


def carried_on(history: History) -> sql.Composed:
    """Return the statement that gives a day's row to what changed only after that day.

    Its values are those of the last day that has rows: where upkeep was away for days,
    `latest` has newer ones by now.
    """
    assert history.days is not None  # noqa: S101
    days = sql.Identifier(history.days._meta.db_table)
    return insert_unchanged(
        history,
        sql.SQL(
            "{days} AS l WHERE l.start_at = (SELECT max(d.start_at) FROM {days} AS d"
            " WHERE d.start_at < %(start)s AND d.start_at >= %(early)s)"
            " AND NOT l.gone AND {watched}"
        ).format(days=days, watched=WATCHED),
    )


def insert_unchanged(history: History, source: sql.Composable) -> sql.Composed:
    """Return the statement that writes a day's rows without a change from rows `l`."""
    assert history.days is not None  # noqa: S101
    sample = history.sample
    gauges = sample.gauges
    place = ("target_id", "database_id", *sample.key)
    return sql.SQL(
        "INSERT INTO {table} ({place}, start_at, changes, seconds, restarted, gone,"
        " {gauges}, {greatest})"
        " SELECT {place}, %(start)s, 0, 0, false, false, {gauges}, {gauges}"
        " FROM {source} ON CONFLICT DO NOTHING"
    ).format(
        table=sql.Identifier(history.days._meta.db_table),
        place=names(place),
        gauges=names(gauges),
        greatest=names(tuple(f"{gauge}_max" for gauge in gauges)),
        source=source,
    )


COVER_SQL = """
WITH good AS (
  SELECT s.target_id, s.database_id, s.probe,
         least(3600, coalesce(sum(s.interval_seconds) FILTER (WHERE s.state = 'ok'), 0)) AS covered,
         min(s.taken_at) FILTER (WHERE s.state = 'ok') AS first_at,
         max(s.taken_at) FILTER (WHERE s.state = 'ok') AS last_at,
         count(*) FILTER (WHERE s.state NOT IN ('ok', 'superseded')) AS failed
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
   SET covered_seconds = excluded.covered_seconds,
       spanned_seconds = greatest(monitors_coverage.spanned_seconds, excluded.spanned_seconds),
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
