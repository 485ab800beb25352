"""Autovacuum's queue: what is due or will be, in the server's order, and when its turn comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import TypedDict

from django.utils import timezone

from monitors.advisor import table_name
from monitors.history import objects
from monitors.history.objects import Objects
from monitors.models import HISTORY, Target, VacuumRun
from monitors.pg.relations import FIRST_USER_OID
from monitors.probe import Reading
from monitors.rows.running import RunningRow
from monitors.rows.vacuum_parts import VACUUM_KINDS, Databases, Workers, skew_of
from monitors.rules import autovacuum, autovacuum_queue

QUEUE_COLUMNS = (
    "position",
    "database",
    "schemaname",
    "relname",
    "relid",
    "toast_of",
    "state",
    "does",
    "reason",
    "score",
    "xid_score",
    "mxid_score",
    "vacuum_score",
    "vacuum_insert_score",
    "analyze_score",
    "for_wraparound",
    "n_dead_tup",
    "vacuum_threshold",
    "n_ins_since_vacuum",
    "vacuum_insert_threshold",
    "n_mod_since_analyze",
    "analyze_threshold",
    "xid_age",
    "freeze_max_age",
    "mxid_age",
    "multixact_freeze_max_age",
    "expected_start_at",
    "expected_seconds",
)
RUNS_USED = 5
"""The last runs of a table whose median is its expected duration."""
ANALYZE_KINDS = (VacuumRun.Kind.AUTOANALYZE, VacuumRun.Kind.ANALYZE)
NOT_NEEDED = HISTORY["tables"].sample.counters


class DueRow(TypedDict):
    """A table that is due; a count, age or score is None where it is not known or does not count."""

    database: str
    database_id: int
    datid: int
    schemaname: str | None  # None, as its name: not read yet
    relname: str | None
    relid: int
    table: str
    toast_of: str | None  # None: of no TOAST table
    main_relid: int  # of the table that has a page
    is_catalog: bool  # then it has none
    state: str  # running or waiting
    does: str
    reason: str
    score: float | None
    xid_score: float | None
    mxid_score: float | None
    vacuum_score: float | None
    vacuum_insert_score: float | None
    analyze_score: float | None
    for_wraparound: bool
    n_dead_tup: int | None
    vacuum_threshold: float
    n_ins_since_vacuum: int | None
    vacuum_insert_threshold: float | None  # None, as the next: it never comes for that
    n_mod_since_analyze: int | None
    analyze_threshold: float | None
    xid_age: int | None
    freeze_max_age: int
    mxid_age: int | None
    multixact_freeze_max_age: int
    expected_start_at: datetime | None  # our clock
    expected_seconds: float | None  # None: it never ran before


class QueueRow(DueRow):
    """A table that is due, at its place in the queue."""

    position: int


def queue_of(  # noqa: PLR0913 - what `state_of` has read
    target: Target,
    at: datetime | None,
    watched: Sequence[Reading],
    *,
    settings: Mapping[str, str],
    tables: Objects,
    workers: Workers,
    running: Sequence[RunningRow],
    databases: Databases,
) -> list[QueueRow]:
    """Return the tables that are due, in the order that the server would take them."""
    due = autovacuum_queue.due_of(
        watched,
        settings,
        target.server_version,
        next_xid=databases.next_xid,
        next_mxid=databases.next_mxid,
    )
    mains = {(row["database_id"], row["toastrelid"]): row for row in watched if row["toastrelid"]}
    taken = {(row["datname"], row["relid"]): row for row in running if row["autovacuum"]}
    lengths = durations(target, due, at)
    now, skew = at or timezone.now(), skew_of(target)
    last = last_seen(tables, skew)
    free_at = free_from(now, workers, running)
    places = [
        autovacuum_queue.Visited(
            pk,
            databases.ours[pk].datname,
            *databases.ages.get(databases.ours[pk].datid, (None, None)),
            last.get(pk),
        )
        for pk in {one.row["database_id"] for one in due}
    ]
    lines: list[DueRow] = []
    for place in autovacuum_queue.visits(places, settings):
        mine = [one for one in due if one.row["database_id"] == place.database_id]
        mine = autovacuum_queue.in_order(mine, by_score=workers.by_score)
        first = autovacuum_queue.visited_by(
            place.last_at, now, workers.naptime_seconds, free_at=free_at
        )
        found = [line_of(one, mains, databases, taken, lengths) for one in mine]
        waiting = [line for line in found if line["state"] == "waiting"]
        if not (workers.enabled or workers.wraparound):
            first = None
        seconds = [line["expected_seconds"] for line in waiting]
        for line, start in zip(waiting, autovacuum_queue.starts(first, seconds), strict=True):
            line["expected_start_at"] = start
        lines += found
    lines.sort(key=lambda line: line["state"] != "running")
    return [{**line, "position": count} for count, line in enumerate(lines, 1)]


def near_due(
    tables: Objects,
    catalogs: Objects,
    settings: Mapping[str, str],
    server_version: int | None,
    databases: Databases,
) -> list[Reading]:
    """Return the tables and catalogs that may be due, TOAST tables with their main tables.

    Of ten thousand tables most are far from due, and the database leaves them out.
    """
    near = may_be_due(settings, server_version, databases.next_xid, databases.next_mxid)
    rewritten = objects.present("rewritten_dead_tup")
    found: list[Reading] = [*tables.rows(objects.any_of(near, rewritten), without=NOT_NEEDED)]
    known = {(row["database_id"], row["relid"]) for row in found}
    # A TOAST table without options of its own has those of its main table.
    toast = [
        (row["database_id"], row["toastrelid"])
        for row in found
        if row["toastrelid"] and row["reloptions"]
    ]
    if toast:
        rows = tables.rows(objects.among_keys(toast), without=NOT_NEEDED)
        found += [row for row in rows if (row["database_id"], row["relid"]) not in known]
    beside = catalogs.rows(near)
    listed = {(row["database_id"], row["relid"]) for row in found}
    found += [row for row in beside if (row["database_id"], row["relid"]) not in listed]
    alone = [(row["database_id"], row["relid"]) for row in found if row["relkind"] == "t"]
    if alone:
        mains = tables.rows(objects.among_keys(alone, "toastrelid"), without=NOT_NEEDED)
        mains += catalogs.rows(objects.among_keys(alone, "toastrelid"))
        known = {(row["database_id"], row["relid"]) for row in found}
        found += [row for row in mains if (row["database_id"], row["relid"]) not in known]
    return found


def may_be_due(
    settings: Mapping[str, str],
    server_version: int | None,
    next_xid: int | None,
    next_mxid: int | None,
) -> objects.Term:
    """Return the condition of the tables that are not surely far from due.

    Thresholds are taken a little too low here: what meets it is looked at exactly, and
    so is every table with storage options.
    """
    low = 0.999999  # four-byte floats round down by less
    number = autovacuum.numbers_of(
        tuple(settings.get(name, autovacuum.DEFAULTS[name]) for name in autovacuum.NUMBERS)
    )

    def threshold(kind: str, unless: str = "") -> objects.Term:
        base = number[f"autovacuum_{kind}_threshold"]
        scale = number[f"autovacuum_{kind}_scale_factor"]
        return objects.line(low * base, low * scale, "reltuples", unless)

    capped = server_version is None or server_version // 10000 >= autovacuum.CAP_MAJOR
    cap = number["autovacuum_vacuum_max_threshold"]
    xid_limit, mxid_limit = (
        autovacuum_queue.freeze_age(name, settings, {}) for name in autovacuum_queue.FREEZE_DEFAULTS
    )
    dead, changed = objects.column("n_dead_tup"), objects.column("n_mod_since_analyze")
    xid_age = objects.age("relfrozenxid", next_xid, autovacuum.FIRST_NORMAL_XID)
    near = [
        objects.present("reloptions"),
        objects.above(dead, threshold("vacuum")),
        objects.above(changed, threshold("analyze")),
        objects.above(xid_age, xid_limit),
        objects.above(objects.age("relminmxid", next_mxid), mxid_limit),
    ]
    if capped and cap >= 0:
        near.append(objects.above(dead, low * cap))
    if number["autovacuum_vacuum_insert_threshold"] >= 0:
        limit = threshold("vacuum_insert", "relallfrozen" if capped else "")
        near.append(objects.above(objects.column("n_ins_since_vacuum"), limit))
    return objects.any_of(*near)


def last_seen(tables: Objects, skew: timedelta) -> dict[int, datetime]:
    """Return when autovacuum was last seen to end something in each database, by our clock."""
    names = ("last_autovacuum", "last_autoanalyze")
    ended = {
        group["database_id"]: [group[name] for name in names if group[name] is not None]
        for group in tables.groups(["database_id"], greatest=names)
    }
    return {pk: max(moments) + skew for pk, moments in ended.items() if moments}


def free_from(now: datetime, workers: Workers, running: Sequence[RunningRow]) -> datetime | None:
    """Return when a worker is free: now, or when the first of all is done; None: not known."""
    if workers.busy is None:
        return None
    if workers.free is None or workers.free:
        return now
    ends = [
        row["eta_seconds"]
        for row in running
        if row["autovacuum"] and row["eta_of"] == "run" and row["eta_seconds"] is not None
    ]
    return now + timedelta(seconds=min(ends)) if ends else None


def durations(
    target: Target, due: Sequence[autovacuum_queue.Due], at: datetime | None
) -> dict[tuple[int, int, bool], float]:
    """Return the median seconds of each table's last runs by (database, relid, whether analyze)."""
    if not due:
        return {}
    runs = VacuumRun.objects.filter(
        target_id=target.pk,
        relid__in={one.row["relid"] for one in due},
        kind__in=(*VACUUM_KINDS, *ANALYZE_KINDS),
        seconds__isnull=False,
        seen_at__lte=at or timezone.now(),
    ).order_by("-ended_at")[: 20 * len(due)]
    found: dict[tuple[int, int, bool], list[float]] = {}
    for run in runs:
        key = (run.database_id, run.relid, run.kind in ANALYZE_KINDS)
        found.setdefault(key, []).append((run.seconds or 0.0) / run.count)
    return {key: median(lengths[:RUNS_USED]) for key, lengths in found.items()}


def line_of(
    one: autovacuum_queue.Due,
    mains: Mapping[tuple[int, int], Reading],
    databases: Databases,
    taken: Mapping[tuple[str, int | None], RunningRow],
    lengths: Mapping[tuple[int, int, bool], float],
) -> DueRow:
    """Return one line of the queue; its start is filled in by `queue_of`."""
    row, scores, limits = one.row, one.scores, one.limits
    database = databases.ours[row["database_id"]]
    main = mains.get((row["database_id"], row["relid"])) if row["relkind"] == "t" else None
    key = (row["database_id"], row["relid"])
    parts = [
        lengths.get((*key, analyze))
        for analyze, wanted in ((False, scores.do_vacuum), (True, scores.do_analyze))
        if wanted
    ]
    work = taken.get((database.datname, row["relid"]))
    return {
        "database": database.datname,
        "database_id": database.pk,
        "datid": database.datid,
        "schemaname": row["schemaname"],
        "relname": row["relname"],
        "relid": row["relid"],
        "table": table_name(row) if row["relname"] else str(row["relid"]),
        "toast_of": table_name(main) if main else None,
        "main_relid": main["relid"] if main else row["relid"],
        "is_catalog": is_catalog(row),
        "state": "running" if work else "waiting",
        "does": " and ".join(
            word
            for word, wanted in (("vacuum", scores.do_vacuum), ("analyze", scores.do_analyze))
            if wanted
        ),
        "reason": autovacuum_queue.REASONS.get(scores.reason, ""),
        "score": scores.score if autovacuum_queue.is_counted(row) else None,
        "xid_score": scores.xid,
        "mxid_score": scores.mxid,
        "vacuum_score": scores.vacuum,
        "vacuum_insert_score": scores.vacuum_insert,
        "analyze_score": scores.analyze,
        "for_wraparound": scores.for_wraparound,
        "n_dead_tup": autovacuum_queue.counted_dead(row),
        "vacuum_threshold": limits.vacuum,
        "n_ins_since_vacuum": row["n_ins_since_vacuum"],
        "vacuum_insert_threshold": limits.vacuum_insert,
        "n_mod_since_analyze": row["n_mod_since_analyze"],
        "analyze_threshold": limits.analyze,
        "xid_age": autovacuum.xid_age(databases.next_xid, row["relfrozenxid"]),
        "freeze_max_age": limits.xid,
        "mxid_age": autovacuum_queue.mxid_age(databases.next_mxid, row["relminmxid"]),
        "multixact_freeze_max_age": limits.mxid,
        "expected_start_at": None,
        "expected_seconds": None if None in parts else sum(part or 0.0 for part in parts),
    }


def is_catalog(row: Reading) -> bool:
    """Tell whether a table is the server's own: it has no page."""
    own = row["schemaname"] in {"pg_catalog", "information_schema"}
    return own or row["relid"] < FIRST_USER_OID
