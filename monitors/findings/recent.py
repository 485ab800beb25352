"""What advisors are given beyond the latest rows: the last hours of one target.

Read by workers after a snapshot, and for a page that shows a past moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, Min, Q

from monitors.advisor import Rate, Rates, Row, Samples
from monitors.advisors import connections_near_limit, hot_ratio_low, insert_only_unfrozen
from monitors.history import connecting, pace
from monitors.history.counters import read_sums
from monitors.history.gauges import read_gauges
from monitors.history.latest import read_as_of
from monitors.history.pace import Gauge
from monitors.history.source import Key
from monitors.history.window import Window
from monitors.models import HISTORY, Snapshot, Target
from monitors.models.history import Change
from monitors.rules import wraparound

DAY = timedelta(days=1)
WORKERS_SPAN = timedelta(minutes=15)
XIDS_SPAN = timedelta(minutes=10)  # a rate over less is chance
MOST_TABLES = 200  # with the most updates
RATES_SPAN = timedelta(hours=6)
WASTE_SPAN = timedelta(days=6)  # bloat is read once an hour, and moves slowly
CLIENTS_SPAN = timedelta(hours=1)
COUNTED_SPAN = timedelta(minutes=10)
MOST_RATED = 500  # tables with the most dead rows, and objects with the most waste
USED_SHARE = 0.5  # of the connections; below nobody asks when they run out
QUARTERS = 4
UPDATES = ("n_tup_upd", "n_tup_hot_upd", "n_tup_newpage_upd")
NAMED = ("database_id", "relid", "schemaname", "relname", "reloptions", "relkind")

DEAD = Gauge("n_dead_tup", taken_at=("last_vacuum", "last_autovacuum"))
CHANGED = Gauge("n_mod_since_analyze", taken_at=("last_analyze", "last_autoanalyze"))
WASTE = Gauge("bloat_bytes", known_by=("method", "relfilenode"))
SIZE = Gauge("size_bytes", known_by=("method", "relfilenode"))

Limits = Mapping[str, Mapping[str, float]]
"""Thresholds by advisor."""


def facts(target: Target, names: Mapping[int, str], limits: Limits, now: datetime) -> Row:
    """Return the arguments of Samples that take history; `names` are the watched databases'."""
    next_xid, rate = xids(target, now)
    return {
        "updated": updated(target, names, limits[hot_ratio_low.ADVISOR.name], now),
        "passes": passes(target, now),
        "partitioned": partitioned(target, names),
        "workers": workers(target, now),
        "next_xid": next_xid,
        "xids_per_second": rate,
    }


def counted(target: Target, now: datetime) -> Row:
    """Return the arguments of Samples that take what databases counted of late."""
    return {
        "grown": connecting.grown(target.pk, now, COUNTED_SPAN),
        "grown_hour": connecting.grown(target.pk, now, CLIENTS_SPAN),
        "newcomers": connecting.newcomers(target.pk, now, COUNTED_SPAN, target.logins),
    }


def wanted_tables(target: Target, limits: Limits, now: datetime) -> Q:
    """Return the condition for tables that the `kept` advisors name beside those that are due.

    Those that were only ever inserted into and never vacuumed, and those of `passes`.
    """
    pages = limits[insert_only_unfrozen.ADVISOR.name]["min_bytes"] / insert_only_unfrozen.PAGE
    return Q(relid__in=[row["relid"] for row in passes(target, now)]) | Q(
        relkind="r",
        n_tup_upd=0,
        n_tup_del=0,
        last_vacuum=None,
        last_autovacuum=None,
        relpages__gte=pages,
    )


def updated(
    target: Target, names: Mapping[int, str], limits: Mapping[str, float], now: datetime
) -> list[Row]:
    """Return tables with many updates: NAMED, what UPDATES grew by in a day, names of `indexes`."""
    rows = HISTORY["tables"].latest._default_manager.filter(
        target_id=target.pk,
        database_id__in=list(names),
        gone_at=None,
        relkind="r",
        n_tup_upd__gt=limits["min_updates"],
    )
    tables = list(rows.order_by("-n_tup_upd").values(*NAMED)[:MOST_TABLES])
    if not tables:
        return []
    window = Window(now - DAY, now, is_live=True)
    key: Key = {"relid": [row["relid"] for row in tables]}
    grown = {
        (row["database_id"], row["relid"]): row
        for row in read_sums("tables", target.pk, window, UPDATES, key=key)
    }
    indexes = index_names(target, key["relid"])
    return [
        {**row, **grown[place], "indexes": indexes.get(place, [])}
        for row in tables
        if (place := (row["database_id"], row["relid"])) in grown
    ]


PARTITION = (*NAMED, "parentrelid", "n_live_tup", "reltuples", "last_analyze")


def partitioned(target: Target, names: Mapping[int, str]) -> list[Row]:
    """Return the partitioned tables: PARTITION, how many `partitions` hold rows, and their `rows`."""
    found = HISTORY["tables"].latest._default_manager.filter(
        Q(relkind="p") | Q(parentrelid__isnull=False),
        target_id=target.pk,
        database_id__in=list(names),
        gone_at=None,
    )
    rows = {(row["database_id"], row["relid"]): dict(row) for row in found.values(*PARTITION)}
    parents = {place: row for place, row in rows.items() if row["relkind"] == "p"}
    for row in parents.values():
        row |= {"partitions": 0, "rows": 0}
    for row in rows.values():
        above = parents.get((row["database_id"], row["parentrelid"]))
        while above is not None and row["relkind"] != "p":
            above["partitions"] += 1
            above["rows"] += row["n_live_tup"] or 0
            above = parents.get((above["database_id"], above["parentrelid"]))
    return list(parents.values())


def index_names(target: Target, relids: Sequence[int]) -> dict[tuple[int, int], list[str]]:
    """Return {(database id, relid): names of its indexes}, sorted."""
    rows = HISTORY["indexes"].latest._default_manager.filter(
        target_id=target.pk, relid__in=relids, gone_at=None
    )
    found: dict[tuple[int, int], list[str]] = {}
    for database_id, relid, name in rows.order_by("indexrelname").values_list(
        "database_id", "relid", "indexrelname"
    ):
        found.setdefault((database_id, relid), []).append(name)
    return found


def passes(target: Target, now: datetime) -> list[Row]:
    """Return the vacuums of a day that went over their indexes more than once.

    Keys: datname, relid, started_at, autovacuum, passes, seen_at, and the table's
    schemaname and relname where they are known.
    """
    rows = (
        HISTORY["progress"]
        .samples._default_manager.filter(
            target_id=target.pk, taken_at__gt=now - DAY, index_vacuum_count__gt=1
        )
        .exclude(change=Change.GONE)
        .values("datname", "relid", "started_at", "autovacuum")
        .annotate(passes=Max("index_vacuum_count"), seen_at=Max("target_at"))
    )
    return [dict(row) for row in rows.order_by("seen_at")]


def workers(target: Target, now: datetime) -> list[int]:
    """Return how many autovacuum workers worked at each good reading of the last minutes.

    Samples are written on change alone, so the workers of one reading are those of the
    one before, less those that left, more those that came.
    """
    start = now - WORKERS_SPAN
    present = {
        (row["pid"], row["command"])
        for row in read_as_of("progress", target.pk, start)
        if row["autovacuum"]
    }
    changes = list(
        HISTORY["progress"]
        .samples._default_manager.filter(target_id=target.pk, taken_at__gt=start, taken_at__lte=now)
        .order_by("taken_at")
        .values_list("taken_at", "pid", "command", "change", "autovacuum")
    )
    readings = Snapshot.objects.filter(
        target_id=target.pk,
        probe="progress",
        state=Snapshot.State.OK,
        taken_at__gt=start,
        taken_at__lte=now,
    )
    counts, position = [], 0
    for moment in readings.order_by("taken_at").values_list("taken_at", flat=True):
        while position < len(changes) and changes[position][0] <= moment:
            _, pid, command, change, autovacuum = changes[position]
            position += 1
            if change == Change.GONE or not autovacuum:
                present.discard((pid, command))
            else:
                present.add((pid, command))
        counts.append(len({pid for pid, _ in present}))
    return counts


def xids(target: Target, now: datetime) -> tuple[int | None, float | None]:
    """Return the server's next transaction id (64 bit) and how many it gave out a second.

    The rate is that of the last day; None where less than ten minutes of it are known.
    """
    databases = HISTORY["databases"]
    last: Any = databases.latest._default_manager.filter(
        target_id=target.pk, gone_at=None
    ).aggregate(xid=Max("next_xid"), at=Max("changed_at"))
    first: Any = databases.samples._default_manager.filter(
        target_id=target.pk, taken_at__gt=now - DAY, next_xid__isnull=False
    ).aggregate(xid=Min("next_xid"), at=Min("taken_at"))
    if last["xid"] is None or first["xid"] is None or last["at"] - first["at"] < XIDS_SPAN:
        return last["xid"], None
    return last["xid"], (last["xid"] - first["xid"]) / (last["at"] - first["at"]).total_seconds()


def rates(target: Target, samples: Samples, now: datetime) -> Rates:
    """Return how fast grow what `Samples.rates` holds: dead and changed rows, waste, connections."""
    found: dict[tuple[str, int | None, int], Rate] = {}
    for gauge in (DEAD, CHANGED):
        tables = most(samples.rows.get("tables", ()), gauge.column)
        found |= growing(
            target, "tables", tables, gauge, Window(now - RATES_SPAN, now, is_live=True)
        )
    for gauge in (WASTE, SIZE):
        wasteful = most(samples.rows.get("bloat", ()), WASTE.column)
        found |= growing(
            target, "bloat", wasteful, gauge, Window(now - WASTE_SPAN, now, is_live=True)
        )
    used = sum(row["backends"] or 0 for row in samples.rows.get("sessions", ()))
    if samples.max_connections and used > USED_SHARE * samples.max_connections:
        found[connections_near_limit.BACKENDS] = connections(target, now)
    return found


def most(rows: Sequence[Row], column: str) -> list[pace.Place]:
    """Return the places of the rows that have most of something, at most MOST_RATED."""
    ranked = sorted(rows, key=lambda row: -(row[column] or 0))
    return [(row["database_id"], row["relid"]) for row in ranked[:MOST_RATED]]


def growing(
    target: Target, probe_name: str, places: Sequence[pace.Place], gauge: Gauge, window: Window
) -> Rates:
    """Return the rates of a gauge by column, database and relid."""
    if not places:
        return {}
    found = pace.rates(probe_name, target.pk, places, window, gauge)
    return {(gauge.column, *place): rate for place, rate in found.items()}


def connections(target: Target, now: datetime) -> Rate:
    """Return how fast the connections of the last hour rose; 0 where they also fell.

    Clients come and go: only where no quarter of the hour had fewer than the one before is a
    line through them more than chance.
    """
    window = Window(now - CLIENTS_SPAN, now, is_live=True)
    drawn = read_gauges("sessions", target.pk, window, ["backends"], points=60)
    points = [
        (moment, value)
        for moment, value in zip(drawn.times, drawn.values["backends"], strict=True)
        if value is not None
    ]
    if len(points) < QUARTERS:
        return Rate(0.0, 0.0)
    size = len(points) // QUARTERS
    means = [
        sum(value for _, value in points[i * size : (i + 1) * size]) / size for i in range(QUARTERS)
    ]
    seconds = points[-1][0] - points[0][0]
    is_steady = means == sorted(means) and means[0] < means[-1]
    return Rate(wraparound.slope(points) if is_steady else 0.0, seconds)
