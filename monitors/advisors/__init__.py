"""Every advisor, in the order in which equals are shown."""

from __future__ import annotations

from monitors.advisor import Advisor
from monitors.advisors import (
    autovacuum_disabled,
    blocked,
    connections_near_limit,
    dead_tuples,
    fsync_off,
    idle_in_transaction,
    long_running,
    pending_restart,
)

ADVISORS: tuple[Advisor, ...] = (
    blocked.ADVISOR,
    idle_in_transaction.ADVISOR,
    connections_near_limit.ADVISOR,
    long_running.ADVISOR,
    autovacuum_disabled.ADVISOR,
    dead_tuples.ADVISOR,
    fsync_off.ADVISOR,
    pending_restart.ADVISOR,
)
