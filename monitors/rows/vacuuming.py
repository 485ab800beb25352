"""What autovacuum does on a target now, and what it takes next: workers, running vacuums, queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from monitors.history.objects import Objects
from monitors.models import Target
from monitors.probe import Reading
from monitors.rows import configuration
from monitors.rows.queue import QueueRow, near_due, queue_of
from monitors.rows.running import RunningRow, running_of
from monitors.rows.vacuum_parts import Databases, Workers, rows_at
from monitors.rules import autovacuum, autovacuum_queue, wraparound


@dataclass(frozen=True)
class State:
    """All that is known of autovacuum on a target at one moment."""

    workers: Workers
    queue: list[QueueRow]
    running: list[RunningRow]
    left: int | None
    """Tables past a threshold that nothing comes for: autovacuum is off for them. None on a standby."""
    known: bool = True
    """False on a standby: what else is due, what runs and who is busy, its primary alone knows."""


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


def settings_of(target: Target, sources: Mapping[str, Reading]) -> dict[str, str]:
    """Return the server's settings by name: those of the last contact over the last full reading."""
    known = {name: row["setting"] for name, row in sources.items() if row["setting"] is not None}
    return {**known, **target.settings}


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


def is_visited(row: Reading) -> bool:
    """Tell whether the launcher goes round a database: mostly not a template, never an invalid one."""
    return not row.get("datistemplate") and not wraparound.is_invalid(row)


def workers_of(
    target: Target,
    at: datetime | None,
    settings: Mapping[str, str],
    running: Sequence[RunningRow],
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
