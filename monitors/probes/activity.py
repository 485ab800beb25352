"""Who is connected, what runs, and who waits for whom.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
"""

from __future__ import annotations

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models

from monitors.probe import Probe, Sample


class ActivitySample(Sample):
    """One backend, named by pid and start: the operating system reuses pids."""

    pid = models.IntegerField()
    backend_start = models.DateTimeField()
    datid = models.BigIntegerField()
    datname = models.TextField()
    leader_pid = models.IntegerField()
    usename = models.TextField()
    application_name = models.TextField()
    client_addr = models.TextField()
    client_port = models.IntegerField()
    xact_start = models.DateTimeField()
    query_start = models.DateTimeField()
    state_change = models.DateTimeField()
    wait_event_type = models.TextField()
    wait_event = models.TextField()
    state = models.TextField()
    backend_xid = models.BigIntegerField()
    backend_xmin = models.BigIntegerField()
    query_id = models.BigIntegerField()
    query = models.TextField()
    backend_type = models.TextField()
    blocked_by = ArrayField(models.IntegerField())  # pids; only of those that wait on a lock
    rolsuper = models.BooleanField()  # whether its role is a superuser
    waitstart = models.DateTimeField()  # of such a wait; only where query_start is not known
    client_hostname = models.TextField()  # only with log_hostname
    ssl = models.BooleanField()
    sslversion = models.TextField()  # None, as the next one: no TLS
    sslcipher = models.TextField()

    key = ("pid", "backend_start")
    facts = (
        "datid",
        "datname",
        "leader_pid",
        "usename",
        "application_name",
        "client_addr",
        "client_port",
        "xact_start",
        "query_start",
        "state_change",
        "wait_event_type",
        "wait_event",
        "state",
        "backend_xid",
        "backend_xmin",
        "query_id",
        "query",
        "backend_type",
        "blocked_by",
        "rolsuper",
        "waitstart",
        "client_hostname",
        "ssl",
        "sslversion",
        "sslcipher",
    )
    redacted = ("query",)

    class Meta:
        abstract = True


# The function is what the views pg_stat_activity and pg_stat_ssl are made of: reading both views reads every
# backend twice, and the first joins pg_authid, which pg_roles reads once more.
# pg_blocking_pids says a leader once for each of its parallel workers; pid 0 is a prepared
# transaction.
# pg_locks is read for those alone whose statement's start does not tell how long they may have waited.
# left() would fail on a statement in another database's encoding.
# backend_xmin moves with every snapshot of a busy backend: it is kept only
# where a transaction has been open for long enough to matter.
SQL_14 = """
SELECT a.pid,
       a.backend_start,
       a.datid::bigint AS datid,
       d.datname::text AS datname,
       a.leader_pid,
       r.rolname::text AS usename,
       a.application_name,
       pg_catalog.host(a.client_addr) AS client_addr,
       a.client_port,
       a.xact_start,
       a.query_start,
       a.state_change,
       a.wait_event_type,
       a.wait_event,
       a.state,
       a.backend_xid::text::bigint AS backend_xid,
       CASE WHEN a.xact_start < pg_catalog.clock_timestamp() - interval '10 seconds'
            THEN a.backend_xmin::text::bigint
       END AS backend_xmin,
       a.query_id,
       a.query,
       a.backend_type,
       CASE WHEN a.wait_event_type = 'Lock'
            THEN ARRAY(SELECT DISTINCT b.pid
                         FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS b (pid)
                        ORDER BY 1)
       END AS blocked_by,
       r.rolsuper,
       CASE WHEN a.wait_event_type = 'Lock' AND a.query_start IS NULL
            THEN (SELECT pg_catalog.min(l.waitstart)
                    FROM pg_catalog.pg_locks AS l
                   WHERE l.pid = a.pid
                     AND NOT l.granted)
       END AS waitstart,
       a.client_hostname,
       a.ssl,
       a.sslversion,
       a.sslcipher
  FROM pg_catalog.pg_stat_get_activity(NULL) AS a
  LEFT JOIN pg_catalog.pg_database AS d ON d.oid = a.datid
  LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
 WHERE a.pid <> pg_catalog.pg_backend_pid()
   AND a.backend_start IS NOT NULL
"""

PROBE = Probe(
    name="activity",
    sample=ActivitySample,
    sql={14: SQL_14},
    every=timedelta(seconds=10),
    fast=True,
    rollups=False,
    statement_timeout_ms=2000,
)
