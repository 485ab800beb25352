"""Who waits for a lock, behind whom, and for what: one row an edge from a waiter to a blocker.

With 200 sessions queued on one row pg_blocking_pids() names 20,000 pairs, since everybody in a
queue also waits for those ahead. Of one waiter's blockers those are left out that block the
blocker nearest before it too: whoever is reached through all pairs is reached through what is left, so
roots and counts are the same. Up to five blockers that hold the lock are named all the same.

Source: https://www.postgresql.org/docs/current/view-pg-locks.html,
https://www.postgresql.org/docs/current/functions-info.html (pg_blocking_pids)
and `GetBlockerStatusData()` in src/backend/storage/lmgr/lock.c of 14 to 19.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class LocksSample(Sample):
    """One waiter and one that it waits for; a prepared transaction has pid 0 and its gid."""

    pid = models.IntegerField()
    backend_start = models.DateTimeField()
    blocker_pid = models.IntegerField()  # of a parallel group its leader's
    gid = models.CharField(max_length=200)  # '' unless the blocker is a prepared transaction
    leader_pid = models.IntegerField()  # of the waiter's parallel group, its own without one
    hard = models.BooleanField()  # the blocker holds it; False: it waits ahead; None: not known
    locktype = models.TextField()
    mode = models.TextField()  # that the waiter wants
    blocker_mode = models.TextField()  # that the blocker holds, or waits for
    waitstart = models.DateTimeField()
    lock_database = models.BigIntegerField()  # its oid; 0: of the whole server; None: of none
    relation = models.BigIntegerField()  # of a wait for a transaction: of the row that it is about
    schemaname = models.TextField()  # None in a database that the collector is not in
    relname = models.TextField()
    page = models.BigIntegerField()
    tuple = models.IntegerField()
    virtualxid = models.TextField()
    transactionid = models.BigIntegerField()
    classid = models.BigIntegerField()
    objid = models.BigIntegerField()
    objsubid = models.IntegerField()
    datname = models.TextField()  # of the waiter, as the next two
    usename = models.TextField()
    application_name = models.TextField()
    blocker_backend_start = models.DateTimeField()  # None: it had ended
    blocker_backend_type = models.TextField()
    blocker_datname = models.TextField()  # of a prepared transaction too, as its owner
    blocker_usename = models.TextField()
    blocker_application_name = models.TextField()
    blocker_state = models.TextField()
    blocker_xact_start = models.DateTimeField()  # of a prepared transaction: when it was prepared
    blocker_query = models.TextField()  # of one that waits for nobody itself

    key = ("pid", "backend_start", "blocker_pid", "gid")
    facts = (
        "leader_pid",
        "hard",
        "locktype",
        "mode",
        "blocker_mode",
        "waitstart",
        "lock_database",
        "relation",
        "schemaname",
        "relname",
        "page",
        "tuple",
        "virtualxid",
        "transactionid",
        "classid",
        "objid",
        "objsubid",
        "datname",
        "usename",
        "application_name",
        "blocker_backend_start",
        "blocker_backend_type",
        "blocker_datname",
        "blocker_usename",
        "blocker_application_name",
        "blocker_state",
        "blocker_xact_start",
        "blocker_query",
    )
    redacted = ("blocker_query",)

    class Meta:
        abstract = True


# pg_blocking_pids() is called once for each that waits, pg_locks read once, and only if somebody
# waits. A parallel group counts as its leader, as the server has it; an apply worker's leader is
# no such group. A process of recovery is none that pg_blocking_pids() knows: of it only who holds
# its lock is known. A waiter of a transaction mostly holds the lock of the row that it is about.
# Locks of a prepared transaction keep the virtual id of the session that prepared it until the
# server restarts, so its own transaction id, which it has locked, tells which one it is.
# A record compares its empty fields as equal, which is what makes two rows the same lock.
SQL_14 = """
WITH backends AS MATERIALIZED (
SELECT a.pid,
       CASE WHEN a.backend_type LIKE 'logical replication%%' THEN a.pid
            ELSE coalesce(a.leader_pid, a.pid)
       END AS node,
       a.backend_start,
       a.backend_type,
       a.datname::text AS datname,
       a.usename::text AS usename,
       a.application_name,
       a.state,
       a.xact_start,
       a.query,
       a.wait_event_type
  FROM pg_catalog.pg_stat_activity AS a),
waiting AS MATERIALIZED (
SELECT b.pid,
       b.node,
       ARRAY(SELECT DISTINCT p.pid
               FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(b.pid)) AS p (pid)) AS blockers
  FROM backends AS b
 WHERE b.wait_event_type = 'Lock'
   AND b.backend_start IS NOT NULL),
locks AS MATERIALIZED (
SELECT l.pid,
       coalesce(b.node, l.pid, 0) AS node,
       CASE WHEN l.pid IS NULL THEN l.virtualtransaction END AS prepared,
       l.granted,
       l.mode,
       l.waitstart,
       l.locktype,
       l.database,
       l.relation,
       l.page,
       l.tuple,
       l.virtualxid,
       l.transactionid,
       l.classid,
       l.objid,
       l.objsubid,
       ROW(l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid,
           l.transactionid::text, l.classid, l.objid, l.objsubid) AS tag
  FROM pg_catalog.pg_locks AS l
  LEFT JOIN backends AS b ON b.pid = l.pid
 WHERE EXISTS (SELECT FROM waiting)),
wanted AS MATERIALIZED (
SELECT w.pid, w.node, l.tag, l.mode, l.waitstart, l.locktype, l.database, l.relation, l.page,
       l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid, c.against
  FROM waiting AS w
  JOIN locks AS l ON l.pid = w.pid AND NOT l.granted
  JOIN (VALUES
        ('AccessShareLock', ARRAY['AccessExclusiveLock']),
        ('RowShareLock', ARRAY['ExclusiveLock', 'AccessExclusiveLock']),
        ('RowExclusiveLock', ARRAY['ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                                   'AccessExclusiveLock']),
        ('ShareUpdateExclusiveLock', ARRAY['ShareUpdateExclusiveLock', 'ShareLock',
                                           'ShareRowExclusiveLock', 'ExclusiveLock',
                                           'AccessExclusiveLock']),
        ('ShareLock', ARRAY['RowExclusiveLock', 'ShareUpdateExclusiveLock',
                            'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']),
        ('ShareRowExclusiveLock', ARRAY['RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock',
                                        'ShareRowExclusiveLock', 'ExclusiveLock',
                                        'AccessExclusiveLock']),
        ('ExclusiveLock', ARRAY['RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock',
                                'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                                'AccessExclusiveLock']),
        ('AccessExclusiveLock', ARRAY['AccessShareLock', 'RowShareLock', 'RowExclusiveLock',
                                      'ShareUpdateExclusiveLock', 'ShareLock',
                                      'ShareRowExclusiveLock', 'ExclusiveLock',
                                      'AccessExclusiveLock'])) AS c (mode, against)
    ON c.mode = l.mode),
prepared AS MATERIALIZED (
SELECT l.prepared AS virtualtransaction, p.gid, p.owner::text AS owner,
       p.database::text AS datname, p.prepared
  FROM locks AS l
  JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction = l.transactionid
 WHERE l.prepared IS NOT NULL AND l.granted),
held AS MATERIALIZED (
SELECT w.pid, o.node AS blocker, coalesce(p.gid, '') AS gid, p.owner, p.datname, p.prepared,
       pg_catalog.max(o.mode) AS mode
  FROM wanted AS w
  JOIN locks AS o ON o.tag = w.tag AND o.granted AND o.node <> w.node AND o.mode = ANY (w.against)
  LEFT JOIN prepared AS p ON p.virtualtransaction = o.prepared
 GROUP BY w.pid, o.node, p.gid, p.owner, p.datname, p.prepared),
ahead AS MATERIALIZED (
SELECT DISTINCT ON (w.pid) w.pid, j.pid AS nearest
  FROM waiting AS w
 CROSS JOIN LATERAL pg_catalog.unnest(w.blockers) AS b (pid)
  JOIN waiting AS j ON j.node = b.pid
 WHERE pg_catalog.cardinality(j.blockers) < pg_catalog.cardinality(w.blockers)
 ORDER BY w.pid, pg_catalog.cardinality(j.blockers) DESC, j.pid),
few AS MATERIALIZED (
SELECT h.pid FROM held AS h GROUP BY h.pid HAVING pg_catalog.count(*) <= 5),
edges AS MATERIALIZED (
SELECT w.pid, w.node, b.pid AS blocker
  FROM waiting AS w
  LEFT JOIN ahead AS n ON n.pid = w.pid
  LEFT JOIN waiting AS j ON j.pid = n.nearest
 CROSS JOIN LATERAL pg_catalog.unnest(w.blockers) AS b (pid)
 WHERE b.pid = 0
    OR j.pid IS NULL
    OR b.pid <> ALL (j.blockers)
 UNION
SELECT w.pid, w.node, h.blocker
  FROM waiting AS w
  JOIN backends AS b ON b.pid = w.pid
  JOIN held AS h ON h.pid = w.pid
 WHERE h.blocker = ANY (w.blockers) AND h.pid IN (SELECT f.pid FROM few AS f)
    OR b.backend_type = 'startup')
SELECT e.pid,
       a.backend_start,
       e.blocker AS blocker_pid,
       coalesce(h.gid, '') AS gid,
       e.node AS leader_pid,
       CASE WHEN h.pid IS NOT NULL THEN true
            WHEN q.pid IS NOT NULL THEN false
       END AS hard,
       w.locktype,
       w.mode,
       coalesce(h.mode, q.mode) AS blocker_mode,
       w.waitstart,
       coalesce(w.database, t.database)::bigint AS lock_database,
       coalesce(w.relation, t.relation)::bigint AS relation,
       n.nspname::text AS schemaname,
       c.relname::text AS relname,
       coalesce(w.page, t.page)::bigint AS page,
       coalesce(w.tuple, t.tuple)::integer AS tuple,
       w.virtualxid,
       w.transactionid::text::bigint AS transactionid,
       w.classid::bigint AS classid,
       w.objid::bigint AS objid,
       w.objsubid::integer AS objsubid,
       a.datname,
       a.usename,
       a.application_name,
       b.backend_start AS blocker_backend_start,
       b.backend_type AS blocker_backend_type,
       coalesce(h.datname, b.datname) AS blocker_datname,
       coalesce(h.owner, b.usename) AS blocker_usename,
       b.application_name AS blocker_application_name,
       b.state AS blocker_state,
       coalesce(h.prepared, b.xact_start) AS blocker_xact_start,
       CASE WHEN NOT EXISTS (SELECT FROM waiting AS u WHERE u.node = e.blocker)
            THEN b.query
       END AS blocker_query
  FROM edges AS e
  JOIN backends AS a ON a.pid = e.pid
  JOIN wanted AS w ON w.pid = e.pid
  LEFT JOIN held AS h ON h.pid = e.pid AND h.blocker = e.blocker
  LEFT JOIN LATERAL (SELECT u.pid, u.mode
                       FROM wanted AS u
                      WHERE u.node = e.blocker AND u.tag = w.tag
                      LIMIT 1) AS q ON true
  LEFT JOIN LATERAL (SELECT r.database, r.relation, r.page, r.tuple
                       FROM locks AS r
                      WHERE w.locktype = 'transactionid' AND r.pid = e.pid
                        AND r.locktype = 'tuple' AND r.granted
                      LIMIT 1) AS t ON true
  LEFT JOIN backends AS b ON b.pid = e.blocker
  LEFT JOIN pg_catalog.pg_class AS c
    ON c.oid = coalesce(w.relation, t.relation)
   AND coalesce(w.database, t.database) IN (0, (SELECT d.oid FROM pg_catalog.pg_database AS d
                                                 WHERE d.datname = pg_catalog.current_database()))
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""

PROBE = Probe(
    name="locks",
    sample=LocksSample,
    sql={14: SQL_14},
    every=timedelta(seconds=10),
    fast=True,
    rollups=False,
    nested_loops=False,
    statement_timeout_ms=2000,
)
