"""Who holds the clients' connections: how many, since when, and how many of them rest.

Names that are made anew for each process or request would make a new object each time, so the
numbers and hashes in them are written as `*`; and of very many groups the smallest are one.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
and #MONITORING-PG-STAT-SSL-VIEW there.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class ConnectionsSample(Sample):
    """Client backends of one origin in one state; '' where the server says none."""

    datname = models.CharField(max_length=200)
    usename = models.CharField(max_length=200)
    application_name = models.CharField(max_length=200)  # folded: app-12345 is app-*
    client_addr = models.CharField(max_length=60)  # '': a local socket
    state = models.CharField(max_length=40)
    ssl = models.CharField(max_length=20)  # the version of TLS; '': none
    backends = models.IntegerField()
    young = models.IntegerField()  # connected within the last minute
    long_idle = models.IntegerField()  # idle for over ten minutes
    oldest_backend_start = models.DateTimeField()
    youngest_backend_start = models.DateTimeField()
    idle_since = models.DateTimeField()  # of the one that has been idle longest

    key = ("datname", "usename", "application_name", "client_addr", "state", "ssl")
    gauges = ("backends", "young", "long_idle")
    facts = ("oldest_backend_start", "youngest_backend_start", "idle_since")

    class Meta:
        abstract = True


# The hundred largest groups; the rest keep their state and TLS, so that the sums stay true.
# The pattern is that of rules/connections.py.
SQL_14 = """
WITH client AS (
SELECT coalesce(a.datname::text, '') AS datname,
       coalesce(a.usename::text, '') AS usename,
       pg_catalog.regexp_replace(
           coalesce(a.application_name, ''),
           '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{8,}|[0-9]{4,}',
           '*', 'g') AS application_name,
       coalesce(pg_catalog.host(a.client_addr), '') AS client_addr,
       coalesce(a.state, '') AS state,
       coalesce(s.version, '') AS ssl,
       a.backend_start,
       CASE WHEN a.state = 'idle' THEN a.state_change END AS idle_since
  FROM pg_catalog.pg_stat_activity AS a
  LEFT JOIN pg_catalog.pg_stat_ssl AS s ON s.pid = a.pid
 WHERE a.backend_type = 'client backend'
   AND a.pid <> pg_catalog.pg_backend_pid()),
origin AS (
SELECT c.datname, c.usename, c.application_name, c.client_addr, c.state, c.ssl,
       count(*) AS backends,
       count(*) FILTER (WHERE c.backend_start > pg_catalog.clock_timestamp() - interval '1 minute')
           AS young,
       count(*) FILTER (WHERE c.idle_since < pg_catalog.clock_timestamp() - interval '10 minutes')
           AS long_idle,
       min(c.backend_start) AS oldest,
       max(c.backend_start) AS youngest,
       min(c.idle_since) AS idle_since,
       pg_catalog.row_number() OVER (ORDER BY count(*) DESC, c.datname, c.usename,
           c.application_name, c.client_addr, c.state, c.ssl) AS place
  FROM client AS c
 GROUP BY 1, 2, 3, 4, 5, 6)
SELECT CASE WHEN o.place <= 100 THEN o.datname ELSE '(others)' END AS datname,
       CASE WHEN o.place <= 100 THEN o.usename ELSE '(others)' END AS usename,
       CASE WHEN o.place <= 100 THEN o.application_name ELSE '(others)' END AS application_name,
       CASE WHEN o.place <= 100 THEN o.client_addr ELSE '(others)' END AS client_addr,
       o.state,
       o.ssl,
       sum(o.backends)::integer AS backends,
       sum(o.young)::integer AS young,
       sum(o.long_idle)::integer AS long_idle,
       min(o.oldest) AS oldest_backend_start,
       max(o.youngest) AS youngest_backend_start,
       min(o.idle_since) AS idle_since
  FROM origin AS o
 GROUP BY 1, 2, 3, 4, 5, 6
"""

PROBE = Probe(
    name="connections",
    sample=ConnectionsSample,
    sql={14: SQL_14},
    every=timedelta(seconds=30),
    fast=True,  # over the connection that goes on where the server has no slot for another
    rollups=False,
    statement_timeout_ms=2000,
)
