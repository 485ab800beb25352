"""Waits for locks by kind of lock, as the server itself counts them: since 19.

It counts a wait once it is over, if it lasted longer than deadlock_timeout and got the lock. Up to
18 there is no such view: nothing is read, and no row says so.

Source: https://www.postgresql.org/docs/19/monitoring-stats.html#MONITORING-PG-STAT-LOCK-VIEW
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class LockStatsSample(Sample):
    """One kind of lock."""

    locktype = models.CharField(max_length=40)  # as pg_locks has it
    waits = models.BigIntegerField()  # longer than deadlock_timeout
    wait_time = models.FloatField()  # ms, of those
    fastpath_exceeded = models.BigIntegerField()  # locks for which a backend's fast slots were full
    stats_reset = models.DateTimeField()

    key = ("locktype",)
    counters = ("waits", "wait_time", "fastpath_exceeded")
    facts = ("stats_reset",)
    reset_fact = "stats_reset"

    class Meta:
        abstract = True


SQL_14 = """
SELECT NULL::text AS locktype
 WHERE false
"""

SQL_19 = """
SELECT l.locktype,
       l.waits,
       l.wait_time,
       l.fastpath_exceeded,
       l.stats_reset
  FROM pg_catalog.pg_stat_lock AS l
"""

PROBE = Probe(
    name="lock_stats",
    sample=LockStatsSample,
    sql={14: SQL_14, 19: SQL_19},
    every=timedelta(seconds=60),
)
