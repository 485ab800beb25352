"""A partition a day, month or year: made ahead, dropped when too old.

History is never deleted row by row: that would leave the dead rows that
Howdah is there to find.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from django.db import connection, models, transaction
from psycopg import sql

from monitors.models import HISTORY, Snapshot

KEEP_SAMPLES = timedelta(days=7)
KEEP_HOURS = timedelta(days=90)
KEEP_DAYS = timedelta(days=5 * 366)
LOCK = 0x686F7764  # an advisory lock of ours: "howd"


@dataclass(frozen=True)
class Partitioned:
    """One partitioned table, how it is cut and how long it is kept."""

    table: str
    step: str  # day, month or year
    keep: timedelta
    column: str  # the partition key


@lru_cache(maxsize=1)
def partitioned_tables() -> tuple[Partitioned, ...]:
    """Return every table of the history that is partitioned."""
    return tuple(every_partitioned())


def every_partitioned() -> Iterator[Partitioned]:
    """Yield what `partitioned_tables` keeps."""
    yield Partitioned(Snapshot._meta.db_table, "day", KEEP_SAMPLES, "taken_at")
    for history in HISTORY.values():
        yield Partitioned(history.samples._meta.db_table, "day", KEEP_SAMPLES, "taken_at")
        if history.hours and history.days:
            yield Partitioned(history.hours._meta.db_table, "month", KEEP_HOURS, "start_at")
            yield Partitioned(history.days._meta.db_table, "year", KEEP_DAYS, "start_at")


def bounds(step: str, moment: datetime) -> tuple[datetime, datetime]:
    """Return the start and end of the partition that holds a moment, in UTC."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if step == "day":
        return day, day + timedelta(days=1)
    if step == "month":
        first = day.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    first = day.replace(month=1, day=1)
    return first, first.replace(year=first.year + 1)


def partition_name(table: str, step: str, moment: datetime) -> str:
    """Return a partition's name, such as monitors_tables_sample_p20261124."""
    pattern = {"day": "%Y%m%d", "month": "%Y%m", "year": "%Y"}[step]
    return f"{table}_p{bounds(step, moment)[0]:{pattern}}"


_KNOWN: set[str] = set()


def ensure_partition(table: Partitioned, moment: datetime) -> None:
    """Make the partition for a moment unless it stands; remembers what it made or found."""
    name = partition_name(table.table, table.step, moment)
    if name in _KNOWN:
        return
    start, end = bounds(table.step, moment)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
        if not cursor.fetchone()[0]:
            # Two workers that make the same partition at once would collide.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            cursor.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table}"
                    " FOR VALUES FROM ({start}) TO ({end})"
                ).format(
                    name=sql.Identifier(name),
                    table=sql.Identifier(table.table),
                    start=sql.Literal(start.isoformat()),
                    end=sql.Literal(end.isoformat()),
                )
            )
    if not connection.in_atomic_block:  # else it may still be rolled back
        _KNOWN.add(name)


def ensure_for(model: type[models.Model], moment: datetime) -> None:
    """Make the partition of one model for a moment."""
    table = next(t for t in partitioned_tables() if t.table == model._meta.db_table)
    ensure_partition(table, moment)


def make_ahead(now: datetime) -> None:
    """Make the partitions of now and of the next two days, month and year."""
    ahead = {"day": (0, 1, 2), "month": (0, 31), "year": (0, 366)}
    for table in partitioned_tables():
        for days in ahead[table.step]:
            ensure_partition(table, now + timedelta(days=days))


def drop_old(now: datetime) -> list[str]:
    """Drop the partitions that ended before their table's retention; returns their names."""
    dropped = []
    for table in partitioned_tables():
        for name, end in partitions_of(table):
            if end <= now - table.keep:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("SET LOCAL lock_timeout = '2s'")
                    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
                _KNOWN.discard(name)
                dropped.append(name)
    return dropped


def partitions_of(table: Partitioned) -> list[tuple[str, datetime]]:
    """Return (name, end) of a table's partitions, oldest first."""
    pattern = {"day": "%Y%m%d", "month": "%Y%m", "year": "%Y"}[table.step]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = to_regclass(%s) ORDER BY c.relname",
            [table.table],
        )
        names = [name for (name,) in cursor.fetchall()]
    found = []
    for name in names:
        start = datetime.strptime(name.rpartition("_p")[2], pattern).replace(tzinfo=UTC)
        found.append((name, bounds(table.step, start)[1]))
    return found
