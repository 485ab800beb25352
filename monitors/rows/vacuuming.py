"""What autovacuum does on a target now, and what it takes next: workers, running vacuums, queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.utils import timezone

from monitors.advisor import backend_name, is_client, marked, table_name
from monitors.history import objects
from monitors.history.latest import read_as_of, read_latest
from monitors.history.objects import Objects
from monitors.history.source import Key
from monitors.models import HISTORY, Database, ProbeState, Target, VacuumRun
from monitors.pg.relations import FIRST_USER_OID
from monitors.rows import configuration
from monitors.rules import autovacuum, autovacuum_queue, vacuum_progress, wraparound

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
RUNNING_COLUMNS = (
    "pid",
    "command",
    "datname",
    "table",
    "relid",
    "autovacuum",
    "wraparound",
    "usename",
    "started_at",
    "seconds",
    "phase",
    "pct",
    "index_vacuum_count",
    "indexes_processed",
    "indexes_total",
    "dead_rows",
    "dead_bytes",
    "dead_memory_pct",
    "delay_pct",
    "pages_per_second",
    "eta_seconds",
    "eta_error_pct",
    "eta_of",
    "why_slow",
)
SPEED_REACH = timedelta(hours=2)
"""How far back a running vacuum's samples are read."""
RUNS_USED = 5
"""The last runs of a table whose median is its expected duration."""
HELD_BEFORE = timedelta(seconds=60)
"""A transaction that is so much older than a vacuum keeps it from removing rows."""
VACUUM_KINDS = (VacuumRun.Kind.AUTOVACUUM, VacuumRun.Kind.VACUUM)
ANALYZE_KINDS = (VacuumRun.Kind.AUTOANALYZE, VacuumRun.Kind.ANALYZE)
NOT_NEEDED = HISTORY["tables"].sample.counters

Row = Mapping[str, Any]
Line = dict[str, Any]


@dataclass(frozen=True)
class Workers:
    """Autovacuum's workers, and the rules by which they come."""

    enabled: bool
    busy: int | None  # None on a standby: they run on the primary, by the settings there
    most: int | None  # autovacuum_max_workers
    slots: int | None  # autovacuum_worker_slots, 18+: so many without a restart
    naptime_seconds: float
    databases: int
    by_score: bool  # in which order a worker takes tables: by score, or as in pg_class
    wraparound: list[str] = field(default_factory=list)  # databases that come before all others
    read: bool = True  # the server's settings are known

    @property
    def free(self) -> int | None:
        """Workers that could begin now."""
        if self.most is None or self.busy is None:
            return None
        return max(self.most - self.busy, 0)


@dataclass(frozen=True)
class State:
    """All that is known of autovacuum on a target at one moment."""

    workers: Workers
    queue: list[Line]
    running: list[Line]
    left: int | None
    """Tables past a threshold that nothing comes for: autovacuum is off for them. None on a standby."""
    known: bool = True
    """False on a standby: what else is due, what runs and who is busy, its primary alone knows."""


def rows_at(
    probe_name: str,
    target: Target,
    at: datetime | None,
    key: Key | None = None,
    without: Iterable[str] = (),
) -> list[Line]:
    """Return a probe's rows now, or as they stood at a past moment; those that fit a key."""
    if at is None:
        return read_latest(probe_name, target.pk, key=key, without=without)
    rows = read_as_of(probe_name, target.pk, at)
    return [row for row in rows if all(row[name] == value for name, value in (key or {}).items())]


def state_of(target: Target, at: datetime | None = None) -> State:
    """Return autovacuum's workers, queue and running vacuums, now or at a past moment.

    The past is told by the settings of then. The queue of a standby has what is due for its age:
    ages are replicated, counts are not.
    """
    sources = {row["name"]: row for row in configuration.settings_of(target, at)}
    settings = settings_of(target, sources)
    running = running_of(target, at, settings)
    databases = visited_of(target, at)
    tables = Objects("tables", target.pk, at)
    workers = workers_of(target, at, settings, running, databases)
    catalogs = Objects("catalogs", target.pk, at)
    rows = near_due(tables, catalogs, settings, target.server_version, databases)
    watched = [row for row in rows if row["database_id"] in databases.ours]
    left = autovacuum_queue.left_of(watched, settings, target.server_version)
    queue = queue_of(
        target,
        at,
        watched,
        settings=settings,
        tables=tables,
        workers=workers,
        running=running,
        databases=databases,
    )
    on_standby = bool(target.in_recovery)
    return State(workers, queue, running, None if on_standby else len(left), known=not on_standby)


def settings_of(target: Target, sources: Mapping[str, Row]) -> dict[str, str]:
    """Return the server's settings by name: those of the last contact over the last full reading."""
    known = {name: row["setting"] for name, row in sources.items() if row["setting"] is not None}
    return {**known, **target.settings}


def skew_of(target: Target) -> timedelta:
    """Return what our clock is ahead of the target's."""
    state = ProbeState.objects.filter(target=target, probe="progress").first()
    if state is None or not state.taken_at or not state.target_at:
        return timedelta(0)
    return state.taken_at - state.target_at


@dataclass(frozen=True)
class Databases:
    """The target's databases: ours by id, and what the launcher goes by."""

    ours: dict[int, Database]
    count: int
    next_xid: int | None
    next_mxid: int | None
    ages: dict[int, tuple[int | None, int | None]]  # by oid: of xids, of multixacts


def visited_of(target: Target, at: datetime | None) -> Databases:
    """Return the target's databases with their ages and the server's next ids."""
    rows = rows_at("databases", target, at)
    ours = target.databases_at(at)
    return Databases(
        ours=ours,
        count=max(sum(is_visited(row) for row in rows), 1),
        next_xid=max((row["next_xid"] for row in rows if row["next_xid"]), default=None),
        next_mxid=next((row["next_mxid"] for row in rows if row.get("next_mxid")), None),
        ages={row["datid"]: (row["xid_age"], row["mxid_age"]) for row in rows},
    )


def is_visited(row: Row) -> bool:
    """Tell whether the launcher goes round a database: mostly not a template, never an invalid one."""
    return not row.get("datistemplate") and not wraparound.is_invalid(row)


def workers_of(
    target: Target,
    at: datetime | None,
    settings: Mapping[str, str],
    running: Sequence[Row],
    databases: Databases,
) -> Workers:
    """Return how many workers are busy, how many there may be, and how they come."""
    active = rows_at("activity", target, at, {"backend_type": "autovacuum worker"})
    pids = {row["pid"] for row in active} | {row["pid"] for row in running if row["autovacuum"]}
    most, slots = settings.get("autovacuum_max_workers"), settings.get("autovacuum_worker_slots")
    urgent = autovacuum_queue.wraparound_of(
        [
            autovacuum_queue.Visited(one.pk, one.datname, *databases.ages[one.datid], None)
            for one in databases.ours.values()
            if one.datid in databases.ages
        ],
        settings,
    )
    return Workers(
        enabled=autovacuum.server_enabled(settings),
        busy=None if target.in_recovery else len(pids),
        most=min(int(most), int(slots or most)) if most and not target.in_recovery else None,
        slots=int(slots) if slots else None,
        naptime_seconds=float(settings.get("autovacuum_naptime", 60)),
        databases=databases.count,
        by_score=autovacuum_queue.sorts_by_score(settings, target.server_version),
        wraparound=[one.datname for one in urgent],
        read=bool(target.settings),
    )


def queue_of(  # noqa: PLR0913 - what `state_of` has read
    target: Target,
    at: datetime | None,
    watched: Sequence[Row],
    *,
    settings: Mapping[str, str],
    tables: Objects,
    workers: Workers,
    running: Sequence[Row],
    databases: Databases,
) -> list[Line]:
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
    lines: list[Line] = []
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
) -> list[Line]:
    """Return the tables and catalogs that may be due, TOAST tables with their main tables.

    Of ten thousand tables most are far from due, and the database leaves them out.
    """
    near = may_be_due(settings, server_version, databases.next_xid, databases.next_mxid)
    rewritten = objects.present("rewritten_dead_tup")
    found = tables.rows(objects.any_of(near, rewritten), without=NOT_NEEDED)
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


def free_from(now: datetime, workers: Workers, running: Sequence[Row]) -> datetime | None:
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
    mains: Mapping[tuple[int, int], Row],
    databases: Databases,
    taken: Mapping[tuple[str, int], Row],
    lengths: Mapping[tuple[int, int, bool], float],
) -> Line:
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
        "n_dead_tup": row["n_dead_tup"],
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


def is_catalog(row: Row) -> bool:
    """Tell whether a table is the server's own: it has no page."""
    own = row["schemaname"] in {"pg_catalog", "information_schema"}
    return own or row["relid"] < FIRST_USER_OID


def running_of(target: Target, at: datetime | None, settings: Mapping[str, str]) -> list[Line]:
    """Return running maintenance, oldest first, with speed, ETA and why it is slow.

    Beside the probe's columns: those of RUNNING_COLUMNS, `datid` and `main_relid`.
    """
    rows = rows_at("progress", target, at)
    if not rows:
        return []
    names = names_of(target, rows)
    samples = samples_of(target, rows, at)
    workers = len({row["pid"] for row in rows if row["autovacuum"] and row["command"] == "VACUUM"})
    open_ones = marked(rows_at("activity", target, at), target.logins)
    clock = (at or timezone.now()) - skew_of(target)
    lines = []
    for row in rows:
        named = names.get((row["datname"], row["relid"]), {})
        mine = samples.get((row["pid"], row["command"], row["started_at"]), [])
        cost = vacuum_progress.cost_of(
            settings, named.get("reloptions"), autovacuum=bool(row["autovacuum"]), workers=workers
        )
        holder = holder_of(row, open_ones) if row["command"] == "VACUUM" else ""
        earlier = phases_before(target, named, row, at) if mine else {}
        eta = vacuum_progress.eta_of(mine, after=earlier)
        lines.append(
            {
                **row,
                "table": None,
                "datid": None,
                **named,
                "seconds": vacuum_progress.elapsed(row, clock),
                "pct": vacuum_progress.pct_of(row),
                "dead_rows": (
                    row["num_dead_item_ids"]
                    if row["num_dead_item_ids"] is not None
                    else row["num_dead_tuples"]
                ),
                "dead_bytes": vacuum_progress.memory_bytes(row),
                "dead_memory_pct": vacuum_progress.memory_pct(row),
                "delay_pct": vacuum_progress.delay_pct(row, clock),
                "pages_per_second": vacuum_progress.pages_a_second(mine),
                "eta_seconds": eta.seconds if eta else None,
                "eta_error_pct": eta.error_pct if eta else None,
                "eta_tested": eta.tested if eta else 0,
                "eta_of": ("run" if eta.whole else "phase") if eta else "",
                "why_slow": vacuum_progress.why_slow(row, mine, clock, cost=cost, holder=holder),
            }
        )
    lines.sort(key=lambda line: -line["seconds"])
    return lines


def samples_of(
    target: Target, rows: Sequence[Row], at: datetime | None
) -> dict[tuple[Any, ...], list[Line]]:
    """Return the recent samples of each running command, oldest first."""
    end = at or timezone.now()
    samples = HISTORY["progress"].samples._default_manager.filter(
        target_id=target.pk,
        pid__in={row["pid"] for row in rows},
        relid__isnull=False,
        taken_at__gte=end - SPEED_REACH,
        taken_at__lte=end,
    )
    found: dict[tuple[Any, ...], list[Line]] = {}
    for row in samples.order_by("taken_at").values():
        found.setdefault((row["pid"], row["command"], row["started_at"]), []).append(row)
    return found


def names_of(target: Target, rows: Sequence[Row]) -> dict[tuple[str, int], Line]:
    """Return {(datname, relid): table, datid, main_relid, database_id, reloptions} of what is worked on."""
    wanted = sorted({row["relid"] for row in rows if row["relid"]})
    ours = {one.pk: one for one in Database.objects.filter(target=target)}
    found: dict[tuple[str, int], Line] = {}
    mains = read_latest("tables", target.pk, key={"relid": wanted}, gone=True)
    toast = read_latest("tables", target.pk, key={"toastrelid": wanted}, gone=True)
    own = {(row["database_id"], row["relid"]): row["reloptions"] for row in mains}
    for row, of in [(row, "relid") for row in mains] + [(row, "toastrelid") for row in toast]:
        database = ours.get(row["database_id"])
        if database is None or row["relname"] is None:
            continue
        name = table_name(row)
        relid = row[of]
        found[(database.datname, relid)] = {
            "table": name if of == "relid" else f"TOAST of {name}",
            "datid": database.datid,
            "database_id": database.pk,
            "main_relid": row["relid"],
            "reloptions": own.get((database.pk, relid)) or row["reloptions"],
        }
    return found


def phases_before(target: Target, named: Row, row: Row, at: datetime | None) -> dict[str, float]:
    """Return the phases of the table's last run that was watched, {} where there is none."""
    if row["command"] != "VACUUM" or "database_id" not in named:
        return {}
    runs = VacuumRun.objects.filter(
        target_id=target.pk,
        database_id=named["database_id"],
        relid=row["relid"],
        kind__in=VACUUM_KINDS,
        seen_at__lte=at or timezone.now(),
    )
    phases = runs.exclude(phases={}).values_list("phases", flat=True).first()
    return dict(phases or {})


def holder_of(row: Row, activity: Iterable[Row]) -> str:
    """Return who keeps a vacuum from removing what died lately, '' where nobody is known."""
    started_at = row["started_at"]
    if started_at is None:
        return ""
    held = [
        one
        for one in activity
        if one["backend_xmin"] is not None
        and one["datname"] == row["datname"]
        and is_client(one)
        and one["xact_start"] is not None
        and one["xact_start"] < started_at - HELD_BEFORE
        and one["pid"] != row["pid"]
    ]
    oldest = min(held, key=lambda one: one["xact_start"], default=None)
    return (
        f"The transaction of {backend_name(oldest)[0].lower()}{backend_name(oldest)[1:]}"
        if oldest
        else ""
    )
