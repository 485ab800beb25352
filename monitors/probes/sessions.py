"""How many backends do what: the counts behind the Activity page's chart.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class SessionsSample(Sample):
    """Client backends in one state with one kind of wait; '' where there is none."""

    state = models.CharField(max_length=40)  # active, idle, idle in transaction, …
    wait_event_type = models.CharField(max_length=40)  # of active ones; '' is CPU
    backends = models.IntegerField()
    blocked = models.IntegerField()  # wait for a lock
    longest_xact_start = models.DateTimeField()

    key = ("state", "wait_event_type")
    gauges = ("backends", "blocked")
    facts = ("longest_xact_start",)

    class Meta:
        abstract = True


SQL_14 = """
SELECT coalesce(a.state, '') AS state,
       CASE WHEN a.state = 'active' THEN coalesce(a.wait_event_type, '') ELSE '' END
           AS wait_event_type,
       count(*)::integer AS backends,
       count(*) FILTER (WHERE a.wait_event_type = 'Lock')::integer AS blocked,
       min(a.xact_start) AS longest_xact_start
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.backend_type = 'client backend'
   AND a.pid <> pg_catalog.pg_backend_pid()
 GROUP BY 1, 2
"""

PROBE = Probe(
    name="sessions",
    sample=SessionsSample,
    sql={14: SQL_14},
    every=timedelta(seconds=10),
    fast=True,
    statement_timeout_ms=2000,
)
