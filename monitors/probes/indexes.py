"""How much each index is used, from the functions under `pg_stat_user_indexes`.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ALL-INDEXES-VIEW
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class IndexesSample(Sample):
    """One index of a user's table."""

    indexrelid = models.BigIntegerField()
    idx_scan = models.BigIntegerField()
    idx_tup_read = models.BigIntegerField()
    idx_tup_fetch = models.BigIntegerField()
    idx_blks_read = models.BigIntegerField()
    idx_blks_hit = models.BigIntegerField()
    relpages = models.BigIntegerField()
    last_idx_scan = models.DateTimeField()  # 16+
    relid = models.BigIntegerField()  # of its table
    indexrelname = models.TextField()
    indisunique = models.BooleanField()
    indisprimary = models.BooleanField()
    indisvalid = models.BooleanField()
    indexdef = models.TextField()

    key = ("indexrelid",)
    counters = ("idx_scan", "idx_tup_read", "idx_tup_fetch", "idx_blks_read", "idx_blks_hit")
    gauges = ("relpages",)
    facts = ("last_idx_scan",)
    labels = ("relid", "indexrelname", "indisunique", "indisprimary", "indisvalid", "indexdef")
    refined = ("indexdef",)

    class Meta:
        abstract = True


SQL_14 = """
SELECT i.indexrelid::bigint AS indexrelid,
       pg_catalog.pg_stat_get_numscans(i.indexrelid) AS idx_scan,
       pg_catalog.pg_stat_get_tuples_returned(i.indexrelid) AS idx_tup_read,
       pg_catalog.pg_stat_get_tuples_fetched(i.indexrelid) AS idx_tup_fetch,
       pg_catalog.pg_stat_get_blocks_fetched(i.indexrelid)
           - pg_catalog.pg_stat_get_blocks_hit(i.indexrelid) AS idx_blks_read,
       pg_catalog.pg_stat_get_blocks_hit(i.indexrelid) AS idx_blks_hit,
       c.relpages::bigint AS relpages,
       i.indrelid::bigint AS relid,
       c.relname::text AS indexrelname,
       i.indisunique,
       i.indisprimary,
       i.indisvalid
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
 WHERE i.indexrelid >= 16384
   AND c.relpersistence <> 't'
   AND c.relnamespace <> 'pg_toast'::regnamespace
"""

SQL_16 = """
SELECT i.indexrelid::bigint AS indexrelid,
       pg_catalog.pg_stat_get_numscans(i.indexrelid) AS idx_scan,
       pg_catalog.pg_stat_get_tuples_returned(i.indexrelid) AS idx_tup_read,
       pg_catalog.pg_stat_get_tuples_fetched(i.indexrelid) AS idx_tup_fetch,
       pg_catalog.pg_stat_get_blocks_fetched(i.indexrelid)
           - pg_catalog.pg_stat_get_blocks_hit(i.indexrelid) AS idx_blks_read,
       pg_catalog.pg_stat_get_blocks_hit(i.indexrelid) AS idx_blks_hit,
       c.relpages::bigint AS relpages,
       pg_catalog.pg_stat_get_lastscan(i.indexrelid) AS last_idx_scan,
       i.indrelid::bigint AS relid,
       c.relname::text AS indexrelname,
       i.indisunique,
       i.indisprimary,
       i.indisvalid
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
 WHERE i.indexrelid >= 16384
   AND c.relpersistence <> 't'
   AND c.relnamespace <> 'pg_toast'::regnamespace
"""

RESET_SQL = """
SELECT s.stats_reset,
       s.xact_commit
  FROM pg_catalog.pg_stat_database AS s
 WHERE s.datname = pg_catalog.current_database()
"""

# pg_get_indexdef() waits behind ACCESS EXCLUSIVE on the table or the index.
DEFINITIONS_SQL = """
WITH locked AS MATERIALIZED (
  SELECT l.relation
    FROM pg_catalog.pg_locks AS l
   WHERE l.locktype = 'relation'
     AND l.mode = 'AccessExclusiveLock'
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                        WHERE d.datname = pg_catalog.current_database()))
SELECT i.indexrelid::bigint AS indexrelid,
       pg_catalog.pg_get_indexdef(i.indexrelid) AS indexdef
  FROM pg_catalog.pg_index AS i
 WHERE i.indexrelid = ANY (%(keys)s::oid[])
   AND NOT EXISTS (SELECT FROM locked AS k WHERE k.relation IN (i.indexrelid, i.indrelid))
"""

PROBE = Probe(
    name="indexes",
    sample=IndexesSample,
    sql={14: SQL_14, 16: SQL_16},
    every=timedelta(minutes=5),
    per_database=True,
    reset_sql=RESET_SQL,
    refine_sql=DEFINITIONS_SQL,
    refine_at_once=1000,
)
