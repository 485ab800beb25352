"""The server's ids over time: when one was given out, and how fast they are used up.

`databases` reads the next transaction id (64 bit) and multixact id (32 bit) with each
snapshot. Every database of a server has the same ones, so one of them is looked at: the
one that has been watched longest. Times are ours (`taken_at`), as those of the hours are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.db import connection
from psycopg import sql

from monitors.history import partitions
from monitors.history.rollup import hour_of
from monitors.history.source import fetch
from monitors.models import HISTORY, ProbeState, Snapshot
from monitors.rules import wraparound
from monitors.rules.horizon import Held
from monitors.rules.wraparound import Burn

HISTORY_OF = HISTORY["databases"]
FIELDS = {"xid": "next_xid", "mxid": "next_mxid"}
HOUR = timedelta(hours=1)
FINE = timedelta(hours=1)  # whole hours that are taken from samples: their rollup may still grow

Wanted = tuple[int, int]
"""A target's id and a 64-bit transaction id."""

# Backwards to the last point at which the id was still to come, then one point on.
DATED_SQL = """
WITH w AS (
  SELECT DISTINCT u.target_id, u.xid, d.datid
    FROM unnest(%(targets)s::integer[], %(xids)s::bigint[]) AS u (target_id, xid)
   CROSS JOIN LATERAL (
     SELECT l.datid FROM monitors_databases_latest AS l
      WHERE l.target_id = u.target_id ORDER BY l.since_at, l.datid LIMIT 1) AS d)
SELECT w.target_id, w.xid, coalesce(before.at, hour.at) AS earliest,
       least(after.at, next_hour.at) AS latest
  FROM w
  LEFT JOIN LATERAL (
    SELECT s.taken_at AS at FROM monitors_databases_sample AS s
     WHERE s.target_id = w.target_id AND s.database_id = 0 AND s.datid = w.datid
       AND s.next_xid <= w.xid AND s.taken_at <= %(until)s AND s.taken_at > %(kept)s
     ORDER BY s.taken_at DESC LIMIT 1) AS before ON true
  LEFT JOIN LATERAL (
    SELECT s.taken_at AS at FROM monitors_databases_sample AS s
     WHERE s.target_id = w.target_id AND s.database_id = 0 AND s.datid = w.datid
       AND s.next_xid > w.xid AND s.taken_at <= %(until)s AND s.taken_at > %(kept)s
       AND s.taken_at > coalesce(before.at, '-infinity')
     ORDER BY s.taken_at LIMIT 1) AS after ON true
  LEFT JOIN LATERAL (
    SELECT h.start_at AS at FROM monitors_databases_hour AS h
     WHERE before.at IS NULL
       AND h.target_id = w.target_id AND h.database_id = 0 AND h.datid = w.datid
       AND h.next_xid <= w.xid AND h.start_at < %(until)s
     ORDER BY h.start_at DESC LIMIT 1) AS hour ON true
  LEFT JOIN LATERAL (
    SELECT h.start_at + interval '1 hour' AS at FROM monitors_databases_hour AS h
     WHERE before.at IS NULL
       AND h.target_id = w.target_id AND h.database_id = 0 AND h.datid = w.datid
       AND h.next_xid > w.xid AND h.start_at + interval '1 hour' <= %(until)s
       AND h.start_at > coalesce(hour.at, '-infinity')
     ORDER BY h.start_at LIMIT 1) AS next_hour ON true
"""

BURNS_SQL = """
SELECT t.id, extract(epoch FROM f.taken_at)::float8, f.next_xid, f.next_mxid,
       extract(epoch FROM greatest(p.taken_at, l.changed_at))::float8, l.next_xid, l.next_mxid
  FROM monitors_target AS t
 CROSS JOIN LATERAL (
   SELECT d.datid, d.next_xid, d.next_mxid, d.changed_at FROM monitors_databases_latest AS d
    WHERE d.target_id = t.id AND d.gone_at IS NULL ORDER BY d.since_at, d.datid LIMIT 1) AS l
 CROSS JOIN LATERAL (
   (SELECT s.taken_at, s.next_xid, s.next_mxid FROM monitors_databases_sample AS s
     WHERE s.target_id = t.id AND s.database_id = 0 AND s.datid = l.datid
       AND s.taken_at >= %(since)s AND s.next_xid IS NOT NULL
     ORDER BY s.taken_at LIMIT 1)
    UNION ALL
   (SELECT h.start_at + interval '1 hour', h.next_xid, h.next_mxid
      FROM monitors_databases_hour AS h
     WHERE h.target_id = t.id AND h.database_id = 0 AND h.datid = l.datid
       AND h.start_at >= %(since)s - interval '1 hour'
       AND h.start_at + interval '1 hour' < l.changed_at
       AND h.next_xid IS NOT NULL
     ORDER BY h.start_at LIMIT 1)
    ORDER BY 1 LIMIT 1) AS f
  LEFT JOIN monitors_probestate AS p
    ON p.target_id = t.id AND p.probe = 'databases' AND p.database_id IS NULL
 WHERE t.id = ANY (%(targets)s)
"""


def dated(wanted: Iterable[Wanted], until: datetime) -> dict[Wanted, Held]:
    """Return when the next id passed each of some ids: from then on dead rows stay.

    One query, whatever their number. An id that was not passed before `until` is left
    out (it holds nothing back yet), as is one of a target without history.
    """
    pairs = sorted(set(wanted))
    if not pairs:
        return {}
    rows = fetch(
        sql.SQL(DATED_SQL),
        {
            "targets": [target_id for target_id, _ in pairs],
            "xids": [xid for _, xid in pairs],
            "until": until,
            "kept": until - partitions.KEEP_SAMPLES,
        },
    )
    return {
        (target_id, xid): Held(earliest, latest)
        for target_id, xid, earliest, latest in rows
        if latest is not None
    }


def burns(ids: Sequence[int], now: datetime) -> dict[int, dict[str, Burn]]:
    """Return {target id: {xid: burn, mxid: burn}} of the last day, with one query.

    Two points of each target: the mean is exact, the busiest hour is not known.
    """
    since = now - timedelta(seconds=wraparound.BURN_SECONDS)
    found: dict[int, dict[str, Burn]] = {}
    for target_id, first_at, xid, mxid, last_at, last_xid, last_mxid in fetch(
        sql.SQL(BURNS_SQL), {"targets": list(ids), "since": since}
    ):
        pairs = {"xid": (xid, last_xid), "mxid": (mxid, last_mxid)}
        found[target_id] = {
            kind: wraparound.burn_of(wraparound.unwrapped([(first_at, a), (last_at, b)]))
            if None not in (a, b) and last_at > first_at
            else wraparound.burn_of([])
            for kind, (a, b) in pairs.items()
        }
    return found


def datid_of(target_id: int) -> int | None:
    """Return the database of a target that has been watched longest, None before any."""
    latest = HISTORY_OF.latest._default_manager.filter(target_id=target_id)
    row = latest.order_by("since_at", "datid").values_list("datid", flat=True).first()
    return int(row) if row is not None else None


def points(
    target_id: int, column: str, since: datetime, until: datetime, datid: int | None = None
) -> list[tuple[float, float]]:
    """Return (epoch seconds, value) of a gauge of `databases`: hours, then the last one's samples.

    Of the server's next ids (no datid) as numbers that only grow. The last value holds
    until the last good snapshot.
    """
    watched = datid if datid is not None else datid_of(target_id)
    if watched is None:
        return []
    fine = hour_of(until) - FINE
    where = {"target": target_id, "datid": watched, "since": since, "until": until, "fine": fine}
    statement = sql.SQL(
        "SELECT extract(epoch FROM p.at)::float8, p.value::float8 FROM ("
        " SELECT start_at + interval '1 hour' AS at, {value} AS value FROM {hours}"
        " WHERE target_id = %(target)s AND database_id = 0 AND datid = %(datid)s"
        " AND start_at >= %(since)s AND start_at < %(fine)s"
        " UNION ALL SELECT taken_at, {value} FROM {samples} WHERE target_id = %(target)s"
        " AND database_id = 0 AND datid = %(datid)s AND taken_at >= %(since)s"
        " AND taken_at <= %(until)s AND (taken_at >= %(fine)s OR taken_at < coalesce(("
        " SELECT min(start_at) FROM {hours} WHERE target_id = %(target)s AND database_id = 0"
        " AND datid = %(datid)s AND start_at >= %(since)s), 'infinity'))) AS p"
        " WHERE p.value IS NOT NULL ORDER BY 1"
    ).format(
        value=sql.Identifier(column),
        hours=sql.Identifier(HISTORY_OF.hours._meta.db_table if HISTORY_OF.hours else ""),
        samples=sql.Identifier(HISTORY_OF.samples._meta.db_table),
    )
    connection.ensure_connection()
    found = [(float(at), float(value)) for at, value in fetch(statement, where)]
    found = held_until(target_id, found, until)
    return wraparound.unwrapped(found) if column == FIELDS["mxid"] else found


def held_until(
    target_id: int, found: list[tuple[float, float]], until: datetime
) -> list[tuple[float, float]]:
    """Return points with the last value at the last good snapshot: what doesn't change is not written."""
    states = ProbeState.objects.filter(target_id=target_id, probe="databases")
    read_at = states.values_list("taken_at", flat=True).first()
    if read_at is not None and read_at > until:
        read_at = last_read(target_id, until)
    if found and read_at is not None and read_at.timestamp() > found[-1][0]:
        return [*found, (read_at.timestamp(), found[-1][1])]
    return found


def last_read(target_id: int, until: datetime) -> datetime | None:
    """Return when `databases` was last read by a past moment, None where no snapshot tells."""
    good = Snapshot.objects.filter(
        target_id=target_id, probe="databases", state=Snapshot.State.OK, taken_at__lte=until
    )
    return good.order_by("-taken_at").values_list("taken_at", flat=True).first()
