"""What changed is written: samples, the latest rows, marks."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

from django.db import connection, models
from psycopg import sql

from monitors.history import settle
from monitors.history.compare import differences
from monitors.history.reading import Comparison, Key, Place, Rows
from monitors.models import Database, Mark, ProbeState
from monitors.models.history import Change
from monitors.probe import Row, Sample


def full_columns(sample: type[Sample]) -> tuple[str, ...]:
    """Return the columns of a kept row: `Sample.columns()` and the refined gauges last."""
    return (*sample.columns(), *sample.refined)


def load_latest(place: Place) -> Rows:
    """Return the rows of the last snapshot as `latest` has them."""
    sample = place.history.sample
    keys, width = len(sample.key), len(sample.columns())
    statement = sql.SQL(
        "SELECT {columns} FROM {table}"
        " WHERE target_id = %s AND database_id = %s AND gone_at IS NULL"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, full_columns(sample))),
        table=sql.Identifier(place.history.latest._meta.db_table),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [place.target_id, place.database_id])
        return {row[:keys]: (row[:width], row[width:]) for row in cursor.fetchall()}


def write(
    place: Place,
    state: ProbeState,
    comparison: Comparison,
    taken_at: datetime,
    target_at: datetime,
    elapsed: float | None,
) -> int:
    """Write samples and latest of what changed; returns how many sample rows.

    Notes in the state, which the caller saves, that hours and days lack them.
    """
    note_unrolled(state, taken_at)
    if not comparison.changed and not comparison.gone:
        return 0
    copy_samples(place, comparison, taken_at, target_at, elapsed)
    upsert_latest(place, [row for _, _, row in comparison.changed], taken_at)
    if comparison.gone:
        retire(place, comparison.gone, taken_at)
    return len(comparison.changed) + len(comparison.gone)


def copy_samples(
    place: Place,
    comparison: Comparison,
    taken_at: datetime,
    target_at: datetime,
    elapsed: float | None,
) -> None:
    """COPY one row for each object that changed or is gone."""
    sample = place.history.sample
    keys, end = len(sample.key), len(sample.key) + len(sample.counters)
    names, added = full_columns(sample), {sample.counters.index(name) for name in sample.added}
    kept = [names.index(name) for name in (*sample.gauges, *sample.facts)]
    columns = (
        *("target_id", "database_id", "taken_at", "target_at", "interval_seconds", "change"),
        *sample.key,
        *sample.counters,
        *sample.gauges,
        *sample.facts,
    )
    statement = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)").format(
        table=sql.Identifier(place.history.samples._meta.db_table),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
    )
    head = (place.target_id, place.database_id, taken_at, target_at)
    nothing = (None,) * (len(sample.counters) + len(kept))
    # As Django's errors, not psycopg's: those would pass for errors of the target.
    errors = connection.wrap_database_errors
    with connection.cursor() as cursor, errors, cursor.copy(statement) as copy:
        copy.set_types(column_types(place.history.samples, columns))
        for change, before, row in comparison.changed:
            interval = None if change == Change.BASELINE else elapsed
            former = before[keys:end] if before else None
            grown = differences(change, former, row[keys:end], added)
            values = tuple(row[i] for i in kept)
            copy.write_row((*head, interval, int(change), *row[:keys], *grown, *values))
        for key in comparison.gone:
            copy.write_row((*head, elapsed, int(Change.GONE), *key, *nothing))


@functools.cache
def column_types(model: type[models.Model], columns: tuple[str, ...]) -> list[str]:
    """Return the PostgreSQL types of columns, which binary COPY must be told."""
    kinds = (model._meta.get_field(name).db_type(connection) or "" for name in columns)
    return [kind.replace("varchar", "text").partition("(")[0].strip() for kind in kinds]


def upsert_latest(place: Place, rows: list[Row], taken_at: datetime) -> None:
    """Write the rows that changed into `latest`."""
    if not rows:
        return
    sample = place.history.sample
    names = full_columns(sample)
    columns = ("target_id", "database_id", "since_at", "changed_at", *names)
    values = [name for name in names if name not in sample.key]
    table = sql.Identifier(place.history.latest._meta.db_table)
    statement = sql.SQL(
        "INSERT INTO {table} AS l ({columns}) VALUES ({values})"
        " ON CONFLICT (target_id, database_id, {key}) DO UPDATE SET {sets},"
        " changed_at = excluded.changed_at, gone_at = NULL,"
        " since_at = CASE WHEN l.gone_at IS NULL THEN l.since_at ELSE excluded.since_at END"
    ).format(
        table=table,
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(sql.Placeholder() * len(columns)),
        key=sql.SQL(", ").join(map(sql.Identifier, sample.key)),
        sets=sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in values
        ),
    )
    head = (place.target_id, place.database_id, taken_at, taken_at)
    with connection.cursor() as cursor:
        cursor.executemany(statement, [head + row for row in rows])


def retire(place: Place, gone: list[Key], taken_at: datetime) -> None:
    """Take objects that are gone out of the present; those with labels keep their names."""
    sample = place.history.sample
    verb = (
        "UPDATE {table} SET gone_at = %s, changed_at = %s"
        if sample.labels
        else "DELETE FROM {table}"
    )
    statement = sql.SQL(verb + " WHERE target_id = %s AND database_id = %s AND {key}").format(
        table=sql.Identifier(place.history.latest._meta.db_table),
        key=sql.SQL(" AND ").join(
            sql.SQL("{} = %s").format(sql.Identifier(name)) for name in sample.key
        ),
    )
    head = (taken_at, taken_at) if sample.labels else ()
    with connection.cursor() as cursor:
        cursor.executemany(
            statement, [(*head, place.target_id, place.database_id, *key) for key in gone]
        )


def mark_rewrites(place: Place, taken_at: datetime, rewritten: list[settle.Rewritten]) -> None:
    """Note on the charts which objects got a new file: by VACUUM FULL, CLUSTER or REINDEX."""
    Mark.objects.bulk_create(
        Mark(
            target_id=place.target_id,
            database_id=place.database_id or None,
            at=taken_at,
            kind=Mark.Kind.REWRITE,
            relid=one.now["relid"],
            text=settle.words_of(one),
        )
        for one in rewritten
        if settle.is_marked(one)
    )


def mark_reset(
    place: Place, taken_at: datetime, reset_at: datetime | None, before_at: datetime | None
) -> None:
    """Note on the charts that somebody reset statistics, once for all probes that notice."""
    probe = place.history.probe
    when = f" at {reset_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if reset_at else ""
    Mark.objects.get_or_create(
        target_id=place.target_id,
        database=Database.objects.filter(pk=place.database_id).first(),
        kind=Mark.Kind.RESET,
        text=f"Statistics of {probe.extension or 'this database'} were reset{when}.",
        defaults={
            "at": taken_at,
            "probe": probe.name,
            "reset_at": reset_at,
            "before_at": before_at,
        },
    )


def note_unrolled(state: ProbeState, taken_at: datetime) -> None:
    """Note, for the caller to save, that hours and days lack what was taken at a moment."""
    state.unrolled_at = min(state.unrolled_at or taken_at, taken_at)
