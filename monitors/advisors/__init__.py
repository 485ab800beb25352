"""Every advisor, in the order in which equals are shown."""

from __future__ import annotations

from monitors.advisor import Advisor
from monitors.advisors import (
    autovacuum_disabled,
    bloat,
    blocked,
    connections_near_limit,
    dead_tuples,
    fsync_off,
    horizon_held,
    hot_ratio_low,
    idle_in_transaction,
    insert_only_unfrozen,
    long_running,
    multi_pass_vacuum,
    partitioned_unanalyzed,
    password_expires,
    pending_restart,
    stale_statistics,
    toast_trouble,
    vacuum_slow,
    workers_saturated,
    wraparound,
)

ADVISORS: tuple[Advisor, ...] = (
    blocked.ADVISOR,
    idle_in_transaction.ADVISOR,
    connections_near_limit.ADVISOR,
    long_running.ADVISOR,
    wraparound.ADVISOR,
    horizon_held.ADVISOR,
    autovacuum_disabled.ADVISOR,
    workers_saturated.ADVISOR,
    dead_tuples.ADVISOR,
    vacuum_slow.ADVISOR,
    toast_trouble.ADVISOR,
    stale_statistics.ADVISOR,
    partitioned_unanalyzed.ADVISOR,
    multi_pass_vacuum.ADVISOR,
    insert_only_unfrozen.ADVISOR,
    hot_ratio_low.ADVISOR,
    bloat.ADVISOR,
    fsync_off.ADVISOR,
    password_expires.ADVISOR,
    pending_restart.ADVISOR,
)
