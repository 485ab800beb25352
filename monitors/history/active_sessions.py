"""How many sessions were active on average, by what they waited for, ran, or came from.

Activity is stored where it changes. So a backend that a sample shows active counts at each good
snapshot from that sample to the next one of it, and an average is the sum of those counts over the
number of snapshots: AAS = sum of active sessions over samples / number of samples.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate

from psycopg import sql

from monitors.history.latest import stood_at
from monitors.history.source import Grid, Series, Source, draw, fetch, grid_of, source_of
from monitors.history.window import Window

PROBE = "activity"
CPU = "CPU"
"""What waits for nothing that the server knows of."""
OTHERS = "others"
LEAST_SNAPSHOTS = 6
"""Of a point of the line: an average of fewer says little."""
POINTS = 120

DIMENSIONS: dict[str, sql.SQL] = {
    "wait_event_type": sql.SQL("coalesce(wait_event_type, 'CPU')"),
    "wait_event": sql.SQL("coalesce(wait_event_type || ': ' || wait_event, 'CPU')"),
    "query": sql.SQL("coalesce(query, '')"),
    "usename": sql.SQL("coalesce(usename, '')"),
    "application_name": sql.SQL("coalesce(application_name, '')"),
    "client_addr": sql.SQL("coalesce(client_addr, '')"),
    "datname": sql.SQL("coalesce(datname, '')"),
}
"""What load is divided by; '' where the server names none."""

NAMES = {"query": sql.SQL("md5(coalesce(query, ''))")}
"""How a value is named where it does not name itself: statements are long."""

SESSIONS = sql.SQL("state = 'active' AND backend_type IN ('client backend', 'parallel worker')")
EVERYTHING = sql.SQL("state = 'active' AND wait_event_type IS DISTINCT FROM 'Activity'")
"""Background processes too, unless they wait for work in their main loop."""


@dataclass(frozen=True)
class Slice:
    """Which backends count: those with these values, with or without background processes."""

    only: Mapping[str, str] = field(default_factory=dict)
    """{dimension: value}; a query is named by its MD5."""
    background: bool = False

    @property
    def condition(self) -> sql.Composable:
        """Return the condition on a span."""
        parts: list[sql.Composable] = [EVERYTHING if self.background else SESSIONS]
        parts += [
            sql.SQL("{} = {}").format(NAMES.get(name, DIMENSIONS[name]), literal(value))
            for name, value in self.only.items()
        ]
        return sql.SQL(" AND ").join(parts)


@dataclass(frozen=True)
class Part:
    """What one value of a dimension takes of the load."""

    value: str
    counted: int
    """Active backends, summed over the snapshots of the window."""
    query_id: int | None
    """Of a statement, where pg_stat_activity named it."""


@dataclass(frozen=True)
class Line:
    """The load over a window, one column a value."""

    series: Series
    per_snapshot: list[int]
    """Active backends at each good snapshot, oldest first."""


def read_snapshots(target_id: int, window: Window) -> list[datetime]:
    """Return the moments of the good snapshots of a window, oldest first."""
    source = source_of(PROBE, target_id, window, None)
    return [
        moment
        for (moment,) in fetch(
            sql.SQL("SELECT taken_at FROM ({}) AS n ORDER BY 1").format(snapshots_in(source)),
            {"start": window.start, "end": window.end},
        )
    ]


def read_parts(target_id: int, window: Window, which: Slice) -> dict[str, list[Part]]:
    """Return for each dimension its values in a window, those that take most first."""
    source = source_of(PROBE, target_id, window, None)
    names = list(DIMENSIONS)
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    rows = fetch(
        sql.SQL(
            "{spans}, a AS (SELECT {values}, query_id, until - n AS counted FROM spans WHERE {where})"
            " SELECT grouping({columns}), {columns}, sum(counted)::bigint, max(query_id) FROM a"
            " GROUP BY GROUPING SETS ({sets})"
        ).format(
            spans=spans_of(source, window, (*names, "query_id")),
            values=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(DIMENSIONS[name], sql.Identifier(name)) for name in names
            ),
            where=which.condition,
            columns=columns,
            sets=sql.SQL(", ").join(sql.SQL("({})").format(sql.Identifier(name)) for name in names),
        ),
        {"start": window.start, "end": window.end},
    )
    parts: dict[str, list[Part]] = {name: [] for name in names}
    for mask, *values, counted, query_id in rows:
        # A bit is set for each column that is not grouped by, the first column's is the highest.
        place = next(i for i in range(len(names)) if not mask >> (len(names) - 1 - i) & 1)
        is_query = names[place] == "query"
        parts[names[place]].append(Part(values[place], counted, query_id if is_query else None))
    for found in parts.values():
        found.sort(key=lambda part: (-part.counted, part.value))
    return parts


def read_line(
    target_id: int,
    window: Window,
    which: Slice,
    by: str,
    values: Sequence[str],
    *,
    interval_seconds: float,
) -> Line:
    """Return the average of each value in each stretch of a window; what is not named is `others`."""
    source = source_of(PROBE, target_id, window, None)
    moments = read_snapshots(target_id, window)
    changes = fetch(
        sql.SQL(
            "{spans}, a AS (SELECT {value} AS value, n, until FROM spans WHERE {where}),"
            " b AS (SELECT value, n, 1 AS change FROM a UNION ALL SELECT value, until, -1 FROM a)"
            " SELECT CASE WHEN value = ANY (ARRAY[{values}]::text[]) THEN value END, n, sum(change)::int FROM b"
            " GROUP BY 1, 2"
        ).format(
            spans=spans_of(source, window, (by, *which.only)),
            value=DIMENSIONS[by],
            where=which.condition,
            values=sql.SQL(", ").join(map(literal, values)),
        ),
        {"start": window.start, "end": window.end},
    )
    steps: dict[str | None, list[int]] = {value: [0] * (len(moments) + 1) for value in values}
    for value, number, change in changes:
        column = steps.setdefault(value, [0] * (len(moments) + 1))
        column[number - 1] += change
    counts = {value: list(accumulate(column))[:-1] for value, column in steps.items()}
    points = int(window.length.total_seconds() / (LEAST_SNAPSHOTS * interval_seconds))
    grid = grid_of(source, window, max(1, min(POINTS, points)))
    columns = {
        OTHERS if value is None else value: averages(grid, moments, column)
        for value, column in counts.items()
    }
    nothing = [0] * len(moments)  # where nothing was active, that is what the snapshots say
    return Line(
        draw(grid, columns), [sum(row) for row in zip(nothing, *counts.values(), strict=True)]
    )


def averages(
    grid: Grid, moments: Sequence[datetime], counts: Sequence[int]
) -> dict[int, float | None]:
    """Return the mean of what was counted at the snapshots of each bucket."""
    found: dict[int, float | None] = {}
    first = 0
    for bucket, end in grid.ends.items():
        after = bisect_left(moments, end, first) + 1
        found[bucket] = sum(counts[first:after]) / max(after - first, 1)
        first = after
    return found


def literal(text: str) -> sql.Composable:
    """Return a text within a statement that has parameters too: `%` begins one unless it is doubled."""
    return sql.SQL(sql.quote(text).replace("%", "%%"))


def snapshots_in(source: Source) -> sql.Composable:
    """Return the query that numbers the good snapshots from %(start)s to %(end)s, from 1."""
    return sql.SQL(
        "SELECT taken_at, row_number() OVER (ORDER BY taken_at)::int AS n FROM monitors_snapshot"
        " WHERE target_id = {target} AND database_id = 0 AND probe = {probe} AND state = 'ok'"
        " AND taken_at >= %(start)s AND taken_at < %(end)s"
    ).format(target=sql.Literal(source.target_id), probe=sql.Literal(PROBE))


def spans_of(source: Source, window: Window, names: Iterable[str]) -> sql.Composable:
    """Return the WITH that has in `spans` each state of each backend: from snapshot n to `until`.

    What held when the window began holds at its first snapshot, unless that shows another state.
    Only the columns that are named, and those that say who counts, are read: statements are long.
    """
    always = ("state", "backend_type", "wait_event_type", "wait_event")
    columns = dict.fromkeys((*always, *names))
    return sql.SQL(
        "WITH n AS MATERIALIZED ({snapshots}), seen AS ("
        " SELECT 1 AS n, false AS within, pid, backend_start, {columns} FROM ({before}) AS b"
        " UNION ALL"
        " SELECT n.n, true, pid, backend_start, {columns} FROM {table} AS s"
        " JOIN n USING (taken_at) WHERE {where}"
        " AND s.taken_at >= %(start)s AND s.taken_at < %(end)s),"
        " spans AS (SELECT *, lead(n, 1, (SELECT count(*)::int + 1 FROM n))"
        " OVER (PARTITION BY pid, backend_start ORDER BY n, within) AS until FROM seen)"
    ).format(
        snapshots=snapshots_in(source),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        before=stood_at(source.history, source.target_id, window.start),
        table=source.table,
        where=source.where(),
    )
