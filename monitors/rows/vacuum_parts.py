"""What the queue and running vacuums share: workers, databases, and the target's clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from monitors.history import objects
from monitors.history.latest import read_as_of, read_latest
from monitors.history.objects import Objects
from monitors.history.source import Key
from monitors.models import Database, ProbeState, Target, VacuumRun
from monitors.probe import Reading

VACUUM_KINDS = (VacuumRun.Kind.AUTOVACUUM, VacuumRun.Kind.VACUUM)


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


def rows_at(
    probe_name: str,
    target: Target,
    at: datetime | None,
    key: Key | None = None,
    without: Iterable[str] = (),
) -> Sequence[Reading]:
    """Return a probe's rows now, or as they stood at a past moment; those that fit a key."""
    if at is None:
        return read_latest(probe_name, target.pk, key=key, without=without)
    rows = read_as_of(probe_name, target.pk, at)
    return [row for row in rows if all(row[name] == value for name, value in (key or {}).items())]


def rows_ever(
    target: Target, at: datetime | None, column: str, values: Iterable[int]
) -> list[dict[str, Any]]:
    """Return the tables of which a column has one of some values, as they stood (None: now).

    Those that were not there then are as they were last read: what names a run may be gone.
    """
    wanted = sorted(set(values))
    if not wanted:
        return []
    last = read_latest("tables", target.pk, key={column: wanted}, gone=True)
    if at is None:
        return last
    then = Objects("tables", target.pk, at).rows(objects.among(column, wanted))
    known = {(row["database_id"], row["relid"]) for row in then}
    return [*then, *(row for row in last if (row["database_id"], row["relid"]) not in known)]


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
