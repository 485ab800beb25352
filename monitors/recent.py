"""What the `kept` advisors judge beyond the latest rows: the last hours of one target.

Read by workers after a slow snapshot, never for a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, Min, Q

from monitors.advisor import Row
from monitors.advisors import hot_ratio_low, insert_only_unfrozen
from monitors.history import series
from monitors.history.window import Window
from monitors.models import HISTORY, Snapshot, Target
from monitors.samples import Change

DAY = timedelta(days=1)
WORKERS_SPAN = timedelta(minutes=15)
XIDS_SPAN = timedelta(minutes=10)  # a rate over less is chance
MOST_TABLES = 200  # with the most updates
UPDATES = ("n_tup_upd", "n_tup_hot_upd", "n_tup_newpage_upd")
NAMED = ("database_id", "relid", "schemaname", "relname", "reloptions", "relkind")

Limits = Mapping[str, Mapping[str, float]]
"""Thresholds by advisor."""


def facts(target: Target, names: Mapping[int, str], limits: Limits, now: datetime) -> Row:
    """Return the arguments of Samples that take history; `names` are the watched databases'."""
    next_xid, rate = xids(target, now)
    return {
        "updated": updated(target, names, limits[hot_ratio_low.ADVISOR.name], now),
        "passes": passes(target, now),
        "workers": workers(target, now),
        "next_xid": next_xid,
        "xids_per_second": rate,
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
    key: series.Key = {"relid": [row["relid"] for row in tables]}
    grown = {
        (row["database_id"], row["relid"]): row
        for row in series.sums("tables", target.pk, window, UPDATES, key=key)
    }
    indexes = index_names(target, key["relid"])
    return [
        {**row, **grown[place], "indexes": indexes.get(place, [])}
        for row in tables
        if (place := (row["database_id"], row["relid"])) in grown
    ]


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
        for row in series.at("progress", target.pk, start)
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
