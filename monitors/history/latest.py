"""Now or then: every object as last read, or as it stood at a past moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import BigIntegerField
from django.utils import timezone
from psycopg import Cursor, sql

from monitors.history import partitions
from monitors.history.counters import read_sums
from monitors.history.source import (
    Key,
    Source,
)
from monitors.history.window import Window
from monitors.models import HISTORY
from monitors.models.history import History
from monitors.probe import Sample


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
    probe_name: str,
    target_id: int,
    moment: datetime,
    *,
    database_id: int | None = None,
    counters: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return every object as it stood at a past moment, in the shape of `now`.

    `counters` names those that are rebuilt: as last read, less what they grew by since; None where
    they began anew since. Others are None unless the object has not changed since: their
    differences are what history keeps. Names and options are those of then.
    Empty where the moment is older than the samples: then only hours exist.
    """
    history = HISTORY[probe_name]
    rows = fetch_rows(stood_at(history, target_id, moment, database_id), columns_of(history))
    rebuild(history, target_id, moment, rows, counters)
    return rows


def rebuild(
    history: History,
    target_id: int,
    moment: datetime,
    rows: Iterable[dict[str, Any]],
    counters: Sequence[str],
    key: Key | None = None,
) -> None:
    """Set some counters to what they were at a moment, in rows that `stood_at` returned for it.

    With a key only what fits it is read: all of the rows must.
    """
    changed = [row for row in rows if counters and row[counters[0]] is None]
    if not changed:
        return
    name, keys = history.probe.name, ("database_id", *history.sample.key)
    # A sample of that very moment is of before it.
    since = Window(moment + timedelta(microseconds=1), timezone.now(), is_live=True)
    grown = {
        tuple(row[part] for part in keys): row
        for row in read_sums(name, target_id, since, counters, key=key)
        if row["complete"]
    }
    latest = fetch_rows(
        sql.SQL("SELECT {names} FROM {table} WHERE {where}").format(
            names=sql.SQL(", ").join(map(sql.Identifier, names := (*keys, *counters))),
            table=sql.Identifier(history.latest._meta.db_table),
            where=Source(history, target_id, None, "sample").where(key),
        ),
        names,
    )
    last = {tuple(row[part] for part in keys): row for row in latest}
    for row in changed:
        place = tuple(row[part] for part in keys)
        if place in grown and place in last:
            for counter in counters:
                value = last[place][counter]
                row[counter] = None if value is None else value - grown[place][counter]


def as_unread(probe_name: str, row: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """Return a row of latest for a past moment of which no sample tells: names, and no figure.

    One that had gone by then is as it last was.
    """
    if row["gone_at"] is not None and row["gone_at"] <= moment:
        return dict(row)
    sample = HISTORY[probe_name].sample
    figures = (*sample.counters, *sample.gauges, *sample.facts)
    return {**row, **dict.fromkeys(figures), "gone_at": None}


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
