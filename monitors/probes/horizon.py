"""Who holds the xmin horizon back: what keeps vacuum from removing dead rows.

A backend in a lazy VACUUM does not hold it back and is left out; one in ANALYZE or
VACUUM FULL does. A parallel worker holds its leader's snapshot, a slot that was lost
holds nothing. Of each kind and database the 20 oldest are read: younger ones hold
nothing that those don't.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY
and `ComputeXidHorizons()` in src/backend/storage/ipc/procarray.c of 14 to 18.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class HorizonSample(Sample):
    """One holder: a session, slot, prepared transaction or standby."""

    kind = models.CharField(max_length=20)  # one of monitors/rules/horizon.py's KINDS
    holder = models.CharField(max_length=200)  # pid, slot name or gid
    xmin_age = models.BigIntegerField()  # transactions
    horizon_xid = models.BigIntegerField()  # 64 bit; "xmin" is a column of every table
    backend_start = models.DateTimeField()  # of a backend: pids are used again
    datname = models.TextField()
    who = models.TextField()  # user, kind of process, owner, or the slot's plugin
    application_name = models.TextField()
    state = models.TextField()  # of a backend or walsender; a slot's wal_status
    since = models.DateTimeField()  # xact_start, prepared, backend_start, inactive_since (17+)
    active = models.BooleanField()  # of a slot: somebody reads it

    key = ("kind", "holder")
    gauges = ("xmin_age",)
    facts = (
        "horizon_xid",
        "backend_start",
        "datname",
        "who",
        "application_name",
        "state",
        "since",
        "active",
    )

    class Meta:
        abstract = True


# A 32-bit id becomes 64-bit by its signed distance from the next id, as age() does.
SQL_14 = """
WITH held AS (
SELECT 'session'::text AS kind,
       a.pid::text AS holder,
       a.backend_start,
       a.datname::text AS datname,
       coalesce(a.usename::text, a.backend_type) AS who,
       a.application_name,
       a.state,
       CASE WHEN pg_catalog.age(a.backend_xid) > coalesce(pg_catalog.age(a.backend_xmin), -1)
            THEN a.backend_xid
            ELSE coalesce(a.backend_xmin, a.backend_xid)
       END AS xid,
       a.xact_start AS since,
       NULL::boolean AS active
  FROM pg_catalog.pg_stat_activity AS a
 WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND a.backend_type NOT IN ('walsender', 'parallel worker')
   AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
 UNION ALL
SELECT 'slot xmin', s.slot_name::text, NULL, s.database::text, s.plugin::text, NULL,
       s.wal_status, s.xmin, NULL, s.active
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.xmin IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
 UNION ALL
SELECT 'slot catalog_xmin', s.slot_name::text, NULL, s.database::text, s.plugin::text, NULL,
       s.wal_status, s.catalog_xmin, NULL, s.active
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.catalog_xmin IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
 UNION ALL
SELECT 'prepared xact', p.gid, NULL, p.database::text, p.owner::text, NULL, NULL,
       p.transaction, p.prepared, NULL
  FROM pg_catalog.pg_prepared_xacts AS p
 UNION ALL
SELECT 'standby feedback', r.pid::text, r.backend_start, NULL, r.usename::text,
       r.application_name, r.state, r.backend_xmin, r.backend_start, NULL
  FROM pg_catalog.pg_stat_replication AS r
 WHERE r.backend_xmin IS NOT NULL),
dated AS (
SELECT h.kind, h.holder, h.backend_start, h.datname, h.who, h.application_name, h.state,
       h.since, h.active,
       greatest(pg_catalog.age(h.xid), 0)::bigint AS xmin_age,
       n.next_xid - (pg_catalog.mod(n.next_xid - h.xid::text::bigint + 2147483648, 4294967296)
                     - 2147483648) AS horizon_xid,
       pg_catalog.row_number() OVER (PARTITION BY h.kind, h.datname
                                         ORDER BY pg_catalog.age(h.xid) DESC, h.since) AS place
  FROM held AS h
 CROSS JOIN (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
                    AS next_xid) AS n)
SELECT d.kind, d.holder, d.backend_start, d.datname, d.who, d.application_name, d.state,
       d.since, d.active, d.xmin_age, d.horizon_xid
  FROM dated AS d
 WHERE d.place <= 20
"""

SQL_17 = """
WITH held AS (
SELECT 'session'::text AS kind,
       a.pid::text AS holder,
       a.backend_start,
       a.datname::text AS datname,
       coalesce(a.usename::text, a.backend_type) AS who,
       a.application_name,
       a.state,
       CASE WHEN pg_catalog.age(a.backend_xid) > coalesce(pg_catalog.age(a.backend_xmin), -1)
            THEN a.backend_xid
            ELSE coalesce(a.backend_xmin, a.backend_xid)
       END AS xid,
       a.xact_start AS since,
       NULL::boolean AS active
  FROM pg_catalog.pg_stat_activity AS a
 WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND a.backend_type NOT IN ('walsender', 'parallel worker')
   AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
 UNION ALL
SELECT 'slot xmin', s.slot_name::text, NULL, s.database::text, s.plugin::text, NULL,
       s.wal_status, s.xmin, s.inactive_since, s.active
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.xmin IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
 UNION ALL
SELECT 'slot catalog_xmin', s.slot_name::text, NULL, s.database::text, s.plugin::text, NULL,
       s.wal_status, s.catalog_xmin, s.inactive_since, s.active
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.catalog_xmin IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
 UNION ALL
SELECT 'prepared xact', p.gid, NULL, p.database::text, p.owner::text, NULL, NULL,
       p.transaction, p.prepared, NULL
  FROM pg_catalog.pg_prepared_xacts AS p
 UNION ALL
SELECT 'standby feedback', r.pid::text, r.backend_start, NULL, r.usename::text,
       r.application_name, r.state, r.backend_xmin, r.backend_start, NULL
  FROM pg_catalog.pg_stat_replication AS r
 WHERE r.backend_xmin IS NOT NULL),
dated AS (
SELECT h.kind, h.holder, h.backend_start, h.datname, h.who, h.application_name, h.state,
       h.since, h.active,
       greatest(pg_catalog.age(h.xid), 0)::bigint AS xmin_age,
       n.next_xid - (pg_catalog.mod(n.next_xid - h.xid::text::bigint + 2147483648, 4294967296)
                     - 2147483648) AS horizon_xid,
       pg_catalog.row_number() OVER (PARTITION BY h.kind, h.datname
                                         ORDER BY pg_catalog.age(h.xid) DESC, h.since) AS place
  FROM held AS h
 CROSS JOIN (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
                    AS next_xid) AS n)
SELECT d.kind, d.holder, d.backend_start, d.datname, d.who, d.application_name, d.state,
       d.since, d.active, d.xmin_age, d.horizon_xid
  FROM dated AS d
 WHERE d.place <= 20
"""

# One REPACK (CONCURRENTLY) is a session, a worker and a slot: one holder, the session.
SQL_19 = """
WITH held AS (
SELECT 'session'::text AS kind,
       coalesce(l.pid, a.pid)::text AS holder,
       coalesce(l.backend_start, a.backend_start) AS backend_start,
       a.datname::text AS datname,
       coalesce(l.usename::text, a.usename::text, a.backend_type) AS who,
       coalesce(l.application_name, a.application_name) AS application_name,
       coalesce(l.state, a.state) AS state,
       CASE WHEN pg_catalog.age(a.backend_xid) > coalesce(pg_catalog.age(a.backend_xmin), -1)
            THEN a.backend_xid
            ELSE coalesce(a.backend_xmin, a.backend_xid)
       END AS xid,
       coalesce(l.xact_start, a.xact_start) AS since,
       NULL::boolean AS active
  FROM pg_catalog.pg_stat_activity AS a
  LEFT JOIN pg_catalog.pg_stat_activity AS l
         ON l.pid = a.leader_pid AND a.backend_type = 'REPACK decoding worker'
 WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND a.backend_type NOT IN ('walsender', 'parallel worker')
   AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
 UNION ALL
SELECT 'slot xmin', s.slot_name::text, NULL, s.database::text, s.plugin::text, NULL,
       s.wal_status, s.xmin, s.inactive_since, s.active
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.xmin IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
 UNION ALL
SELECT 'slot catalog_xmin', s.slot_name::text, NULL, s.database::text, s.plugin::text, NULL,
       s.wal_status, s.catalog_xmin, s.inactive_since, s.active
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.catalog_xmin IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
   AND NOT (s.plugin = 'pgrepack' AND EXISTS (
         SELECT 1 FROM pg_catalog.pg_stat_activity AS w
          WHERE w.pid = s.active_pid
            AND pg_catalog.age(w.backend_xmin) >= pg_catalog.age(s.catalog_xmin)))
 UNION ALL
SELECT 'prepared xact', p.gid, NULL, p.database::text, p.owner::text, NULL, NULL,
       p.transaction, p.prepared, NULL
  FROM pg_catalog.pg_prepared_xacts AS p
 UNION ALL
SELECT 'standby feedback', r.pid::text, r.backend_start, NULL, r.usename::text,
       r.application_name, r.state, r.backend_xmin, r.backend_start, NULL
  FROM pg_catalog.pg_stat_replication AS r
 WHERE r.backend_xmin IS NOT NULL),
folded AS (
SELECT DISTINCT ON (h.kind, h.holder)
       h.kind, h.holder, h.backend_start, h.datname, h.who, h.application_name, h.state, h.xid,
       h.since, h.active
  FROM held AS h
 ORDER BY h.kind, h.holder, pg_catalog.age(h.xid) DESC),
dated AS (
SELECT h.kind, h.holder, h.backend_start, h.datname, h.who, h.application_name, h.state,
       h.since, h.active,
       greatest(pg_catalog.age(h.xid), 0)::bigint AS xmin_age,
       n.next_xid - (pg_catalog.mod(n.next_xid - h.xid::text::bigint + 2147483648, 4294967296)
                     - 2147483648) AS horizon_xid,
       pg_catalog.row_number() OVER (PARTITION BY h.kind, h.datname
                                         ORDER BY pg_catalog.age(h.xid) DESC, h.since) AS place
  FROM folded AS h
 CROSS JOIN (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
                    AS next_xid) AS n)
SELECT d.kind, d.holder, d.backend_start, d.datname, d.who, d.application_name, d.state,
       d.since, d.active, d.xmin_age, d.horizon_xid
  FROM dated AS d
 WHERE d.place <= 20
"""

PROBE = Probe(
    name="horizon",
    sample=HorizonSample,
    sql={14: SQL_14, 17: SQL_17, 19: SQL_19},
    every=timedelta(seconds=60),
    rollups=False,
)
