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
    idle_in_transaction,
    long_running,
    pending_restart,
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
    dead_tuples.ADVISOR,
    bloat.ADVISOR,
    fsync_off.ADVISOR,
    pending_restart.ADVISOR,
)
