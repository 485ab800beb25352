"""How fast a gauge of single objects grows, leaving out the moments at which it was put back.

What a vacuum takes away says nothing of how fast rows die, nor does a figure that is known by
another method from one snapshot to the next. A vacuum that took away less than came is not left
out: while somebody holds the horizon it comes each minute and takes away nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg import sql

from monitors.advisor import Rate
from monitors.history.source import fetch
from monitors.history.window import Window
from monitors.models import HISTORY, ProbeState
from monitors.models.history import Change

EARLIER = timedelta(days=1)  # before a window is looked for what stood when it began

Place = tuple[int, int]
"""Database id and relid."""


@dataclass(frozen=True)
class Gauge:
    """A column, and those that change when some of it is taken away, or it is known in another way."""

    column: str
    taken_at: tuple[str, ...] = ()  # a step down is left out
    known_by: tuple[str, ...] = ()  # any step is


# What stood as the window began, then every change in it.
SQL = """
WITH wanted AS (
  SELECT l.database_id, l.relid, l.changed_at, l.{value}::float8 AS value, {taken} AS taken, {known} AS known
    FROM unnest(%(databases)s::integer[], %(relids)s::bigint[]) AS u (database_id, relid)
    JOIN {latest} AS l USING (database_id, relid)
   WHERE l.target_id = %(target)s AND l.gone_at IS NULL),
point AS (
  SELECT w.database_id, w.relid, %(start)s::timestamptz AS at, w.value, w.taken, w.known,
         false AS anew
    FROM wanted AS w
   WHERE w.changed_at <= %(start)s
   UNION ALL
  SELECT w.database_id, w.relid, %(start)s::timestamptz, b.value, b.taken, b.known, false
    FROM wanted AS w
   CROSS JOIN LATERAL (
     SELECT l.{value}::float8 AS value, {taken} AS taken, {known} AS known, l.change
       FROM {samples} AS l
      WHERE l.target_id = %(target)s AND l.database_id = w.database_id AND l.relid = w.relid
        AND l.taken_at > %(early)s AND l.taken_at <= %(start)s
      ORDER BY l.taken_at DESC LIMIT 1) AS b
   WHERE w.changed_at > %(start)s AND b.change <> {gone}
   UNION ALL
  SELECT w.database_id, w.relid, l.taken_at, l.{value}::float8, {taken}, {known},
         l.change <> {changed}
    FROM wanted AS w
    JOIN {samples} AS l ON l.target_id = %(target)s
     AND l.database_id = w.database_id AND l.relid = w.relid
     AND l.taken_at > %(start)s AND l.taken_at <= %(end)s
   WHERE w.changed_at > %(start)s),
step AS (
  SELECT p.database_id, p.relid, p.at, p.value - lag(p.value) OVER o AS grown,
         extract(epoch FROM p.at - lag(p.at) OVER o)::float8 AS seconds,
         p.anew
           OR p.known <> lag(p.known) OVER o
           OR (p.taken <> lag(p.taken) OVER o AND p.value < lag(p.value) OVER o) AS cut
    FROM point AS p
  WINDOW o AS (PARTITION BY p.database_id, p.relid ORDER BY p.at))
SELECT s.database_id, s.relid, extract(epoch FROM max(s.at))::float8,
       coalesce(sum(s.grown) FILTER (WHERE NOT s.cut), 0)::float8,
       coalesce(sum(s.seconds) FILTER (WHERE NOT s.cut AND s.grown IS NOT NULL), 0)::float8
  FROM step AS s
 GROUP BY s.database_id, s.relid
"""


def rates(
    probe_name: str,
    target_id: int,
    places: Collection[Place],
    window: Window,
    gauge: Gauge,
) -> dict[Place, Rate]:
    """Return how fast a gauge of some objects grew in a window, by its samples.

    A step that is left out counts for nothing, nor does its time: a rate of 0 seconds where
    nothing is left. The probe's key is relid.
    """
    history = HISTORY[probe_name]
    statement = sql.SQL(SQL).format(
        value=sql.Identifier(gauge.column),
        taken=text_of(gauge.taken_at),
        known=text_of(gauge.known_by),
        latest=sql.Identifier(history.latest._meta.db_table),
        samples=sql.Identifier(history.samples._meta.db_table),
        gone=sql.Literal(int(Change.GONE)),
        changed=sql.Literal(int(Change.CHANGED)),
    )
    read_at = last_read(probe_name, target_id)
    wanted = sorted(set(places))
    parameters = {
        "target": target_id,
        "databases": [database_id for database_id, _ in wanted],
        "relids": [relid for _, relid in wanted],
        "start": window.start,
        "end": window.end,
        "early": window.start - EARLIER,
    }
    found = {}
    for database_id, relid, last, grown, seconds in fetch(statement, parameters):
        # What does not change is not written: its last value held up to the last good snapshot.
        until = min(read_at.get(database_id, last), window.end.timestamp())
        known = seconds + max(until - last, 0.0)
        found[database_id, relid] = Rate(grown / known if known else 0.0, known)
    return found


def text_of(names: Sequence[str]) -> sql.Composable:
    """Return columns as one text: it is never NULL, so it can be compared."""
    columns = (sql.SQL("l.{}").format(sql.Identifier(name)) for name in names)
    return sql.SQL("ROW({})::text").format(sql.SQL(", ").join(columns))


def last_read(probe_name: str, target_id: int) -> dict[int, float]:
    """Return {database id, 0 of the whole server: epoch seconds of the last good snapshot}."""
    states = ProbeState.objects.filter(target_id=target_id, probe=probe_name)
    return {
        database_id or 0: taken_at.timestamp()
        for database_id, taken_at in states.values_list("database_id", "taken_at")
        if taken_at is not None
    }
