"""How often a gauge stood at which level: for percentiles and peaks over days of samples."""

from __future__ import annotations

from datetime import timedelta

from psycopg import sql

from monitors.history.gauges import stood_before
from monitors.history.source import Key, Source, fetch
from monitors.history.window import Window
from monitors.models import HISTORY

Levels = list[tuple[float, int]]
"""Levels, lowest first, with the number of snapshots that found each."""

# What stood when the window began comes first; from then on each change adds what it changed.
# A snapshot sees all changes up to its own moment.
LEVELS_SQL = sql.SQL("""
WITH stood ({keys}, at, value) AS (
  {before}
  SELECT {keys}, {time}, CASE WHEN {gone} THEN 0 ELSE coalesce({value}, 0) END
    FROM {table} WHERE {where} AND {time} >= %(start)s AND {time} < %(end)s
), moved AS (
  SELECT at, value - coalesce(lag(value) OVER (PARTITION BY {keys} ORDER BY at), 0) AS by,
         false AS is_read
    FROM stood
), line AS (
  SELECT is_read, sum(by) OVER (ORDER BY at) AS level
    FROM (SELECT at, by, is_read FROM moved
          UNION ALL
          SELECT taken_at, 0, true FROM monitors_snapshot
           WHERE target_id = %(target)s AND probe = %(probe)s AND state = 'ok'
             AND taken_at >= %(start)s AND taken_at < %(end)s) AS both_kinds
)
SELECT level, count(*) FROM line WHERE is_read GROUP BY 1 ORDER BY 1
""")


def read_levels(
    probe_name: str, target_id: int, window: Window, field_name: str, key: Key
) -> Levels:
    """Return how many good snapshots of a window found a gauge at which level.

    It is summed over the objects that fit the key. Of samples alone: a window that begins before the
    oldest of them has only its later part.
    """
    source = Source(HISTORY[probe_name], target_id, 0, "sample")
    changed, total, _ = stood_before(source, window, field_name, key)
    names = ("database_id", *source.history.sample.key)
    began = sql.Literal(window.start - timedelta(microseconds=1))
    before = sql.SQL(" ").join(
        sql.SQL("SELECT {}, {}, {} UNION ALL").format(
            sql.SQL(", ").join(map(sql.Literal, place)), began, sql.Literal(value or 0)
        )
        for place, value in changed.items()
    )
    statement = LEVELS_SQL.format(
        before=before,
        keys=sql.SQL(", ").join(map(sql.Identifier, names)),
        time=source.time,
        gone=source.gone,
        value=sql.Identifier(field_name),
        table=source.table,
        where=source.where(key),
    )
    bounds = {"start": window.start, "end": window.end}
    rows = fetch(statement, {**bounds, "target": target_id, "probe": probe_name})
    rest = total - sum(value or 0 for value in changed.values())
    return [(float(rest + (level or 0)), count) for level, count in rows]


def percentile(levels: Levels, pct: int) -> float | None:
    """Return the lowest level that so many percent of the snapshots were not above; None for none."""
    wanted = -(-sum(count for _, count in levels) * pct // 100)
    reached = 0
    for level, count in levels:
        reached += count
        if reached >= wanted:
            return level
    return None
