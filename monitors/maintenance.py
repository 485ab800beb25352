"""Keeps the history bounded: partitions ahead, rollups, retention, its size."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.core.cache import cache
from redis.exceptions import RedisError

from monitors.acting import effect
from monitors.collect import vacuum_runs
from monitors.history import freshness, partitions, relabel, rollup
from monitors.models import FindingRecord, FindingVersion, JobRun, StandingRuleFiring

RUNS_KEPT = timedelta(days=365)
ROLL_UP_EVERY = timedelta(minutes=5)
SLOW_EVERY = timedelta(minutes=10)
KEEP_FINDINGS = timedelta(days=365)  # after they were resolved


def maintain(now: datetime) -> None:
    """Do what is due; called each minute by one worker."""
    partitions.make_ahead(now)
    is_slow = first_in("slow", SLOW_EVERY)
    if first_in("roll-up", ROLL_UP_EVERY) or is_slow:  # no sample is dropped that was not summed
        rollup.roll_up(now)
    freshness.measure_cost()
    if is_slow:
        effect.judge_due(now)
        partitions.drop_old(now)
        rollup.prune(now)
        JobRun.objects.filter(started_at__lt=now - RUNS_KEPT, finished_at__isnull=False).delete()
        StandingRuleFiring.objects.filter(at__lt=now - RUNS_KEPT).delete()
        FindingRecord.objects.filter(resolved_at__lt=now - KEEP_FINDINGS).delete()
        vacuum_runs.prune(now)
        relabel.prune(now)
        FindingVersion.objects.filter(at__lt=now - partitions.KEEP_SAMPLES).delete()
        freshness.measure_sizes()


def first_in(name: str, every: timedelta) -> bool:
    """Return whether nobody did it for so long; without a cache it is done each time."""
    try:
        return cache.add(f"maintenance:{name}", 1, int(every.total_seconds()) - 5)
    except (RedisError, OSError):
        return True
