"""How old what a page shows is, and why it is not newer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, models
from django.db.models import Count
from django.utils import timezone

from monitors.models import HISTORY, ProbeState, Snapshot, Target

STALE_INTERVALS = 3


@dataclass(frozen=True)
class Around:
    """The good readings beside the one that a moment shows; None where there is none."""

    before: datetime | None
    shown: datetime | None
    after: datetime | None


@dataclass(frozen=True)
class Freshness:
    """Where one probe of a target stands.

    `read_at` is None before the first good snapshot; `state` is that of the
    last attempt ('' before any), with `reason` and `failing_since` while it
    fails. `stale` means no good snapshot for three intervals.
    """

    read_at: datetime | None
    state: str
    reason: str
    failing_since: datetime | None
    interval_seconds: float
    stale: bool
    next_at: datetime | None


def read_at(target: Target, probe_name: str, at: datetime | None = None) -> dict[int, datetime]:
    """Return when a probe was last read well, now or by a past moment, by our ids of databases.

    0 is the whole server. Of what is older than the snapshots nothing is known.
    """
    return {place: taken_at for place, (taken_at, _) in clocks(target, probe_name, at).items()}


def around(target: Target, probe_name: str, moment: datetime) -> Around:
    """Return when a probe of the whole server was read well: last by a moment, before that, and next."""
    good = Snapshot.objects.filter(
        target_id=target.pk, database_id=0, probe=probe_name, state=Snapshot.State.OK
    )
    times = good.values_list("taken_at", flat=True)
    last = [*times.filter(taken_at__lte=moment).order_by("-taken_at")[:2], None, None]
    after = times.filter(taken_at__gt=moment).order_by("taken_at").first()
    return Around(before=last[1], shown=last[0], after=after)


def clocks(
    target: Target, probe_name: str, at: datetime | None = None
) -> dict[int, tuple[datetime, datetime]]:
    """Return the same by our clock and by the target's."""
    rows: Iterable[tuple[int | None, datetime | None, datetime | None]]
    if at is None:
        states = ProbeState.objects.filter(target=target, probe=probe_name)
        rows = states.values_list("database_id", "taken_at", "target_at")
    else:
        good = Snapshot.objects.filter(
            target_id=target.pk, probe=probe_name, state=Snapshot.State.OK, taken_at__lte=at
        )
        newest = good.order_by("database_id", "-taken_at").distinct("database_id")
        rows = newest.values_list("database_id", "taken_at", "target_at")
    return {place or 0: (ours, theirs) for place, ours, theirs in rows if ours and theirs}


def interval_of(target: Target, probe_name: str) -> float:
    """Return how many seconds lie between two snapshots of a probe of a target."""
    every = HISTORY[probe_name].probe.every.total_seconds()
    return float(target.intervals.get(probe_name, every))


def freshness(target: Target, probe_name: str, database_id: int | None = None) -> Freshness:
    """Return a probe's freshness; over several databases that of the oldest one."""
    states = ProbeState.objects.filter(target=target, probe=probe_name)
    if database_id:
        states = states.filter(database_id=database_id)
    rows = [
        state
        for state in states.select_related("database")
        if not state.database or (state.database.included and state.database.gone_at is None)
    ]
    interval = interval_of(target, probe_name)
    if not rows:
        return Freshness(None, "", "", None, interval, stale=False, next_at=None)
    read = [row.taken_at for row in rows if row.taken_at]
    worst = next((row for row in rows if row.state not in {"", Snapshot.State.OK}), rows[0])
    read_at = min(read) if read else None
    limit = timezone.now() - timedelta(seconds=STALE_INTERVALS * interval)
    return Freshness(
        read_at=read_at,
        state=worst.state,
        reason=worst.reason,
        failing_since=worst.failing_since,
        interval_seconds=interval,
        stale=read_at is not None and read_at < limit,
        next_at=min(row.due_at for row in rows),
    )


SIZE_SQL = """
SELECT t.name,
       (SELECT coalesce(sum(pg_total_relation_size(p.relid)), 0)
          FROM pg_partition_tree(to_regclass(t.name)) AS p WHERE p.isleaf)
  FROM unnest(%s::text[]) AS t (name)
 WHERE to_regclass(t.name) IS NOT NULL
"""


def measure_sizes() -> None:
    """Note on each target how much history it has and what the last day added.

    A table's bytes are shared out by its rows; counting them reads the whole
    history once, so this belongs to a slow rhythm.
    """
    now = timezone.now()
    shares: dict[int, float] = {}
    daily: dict[int, float] = {}
    for model in history_models():
        whole = size_of(model)
        counts = dict(
            model._default_manager.values_list("target_id").annotate(rows=Count("pk")).order_by()
        )
        rows = sum(counts.values())
        for target_id, count in counts.items():
            shares[target_id] = shares.get(target_id, 0) + whole * count / rows
        if rows and model in sample_models():
            recent = model._default_manager.filter(taken_at__gte=now - timedelta(days=1))
            for target_id, count in recent.values_list("target_id").annotate(rows=Count("pk")):
                daily[target_id] = daily.get(target_id, 0) + whole * count / rows
    for target in Target.objects.all():
        target.history_bytes = round(shares.get(target.pk, 0))
        target.history_daily_bytes = round(daily.get(target.pk, 0))
        target.save(update_fields=["history_bytes", "history_daily_bytes"])


COST_SQL = """
UPDATE monitors_target AS t
   SET watching_pct = c.pct
  FROM (SELECT s.target_id,
               sum(s.target_ms) / 10
                   / nullif(extract(epoch FROM max(s.taken_at) - min(s.taken_at)), 0) AS pct
          FROM monitors_snapshot AS s
         WHERE s.taken_at > %s
         GROUP BY s.target_id) AS c
 WHERE t.id = c.target_id
"""


def measure_cost() -> None:
    """Note on each target how much of one of its cores our reads took in the last hour.

    At most so much: the time that the server's answers took, waiting included.
    """
    with connection.cursor() as cursor:
        cursor.execute(COST_SQL, [timezone.now() - timedelta(hours=1)])


def size_of(model: type[models.Model]) -> int:
    """Return the bytes of a history table with its partitions and indexes."""
    with connection.cursor() as cursor:
        cursor.execute(SIZE_SQL, [[model._meta.db_table]])
        row = cursor.fetchone()
    return int(row[1]) if row else 0


def sample_models() -> list[type[models.Model]]:
    """Return the models whose rows have a `taken_at`."""
    return [Snapshot, *(history.samples for history in HISTORY.values())]


def history_models() -> list[type[models.Model]]:
    """Return every model whose rows belong to a target."""
    found: list[type[models.Model]] = [Snapshot]
    for history in HISTORY.values():
        found += [m for m in (history.samples, history.latest, history.hours, history.days) if m]
    return found
