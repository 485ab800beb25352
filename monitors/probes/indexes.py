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
    labels = ("indexrelname", "indisvalid", "relid", "indisunique", "indisprimary", "indexdef")
    refined = ("relid", "indisunique", "indisprimary", "indexdef")

    class Meta:
        abstract = True


# Joining pg_index costs as much as all counters: what it says of an index that never
# changes is refined, and what is not valid are few. Columns are cast where psycopg
# would not read a number from them: a cast of each row costs too.
SQL_14 = """
SELECT c.oid AS indexrelid,
       pg_catalog.pg_stat_get_numscans(c.oid) AS idx_scan,
       pg_catalog.pg_stat_get_tuples_returned(c.oid) AS idx_tup_read,
       pg_catalog.pg_stat_get_tuples_fetched(c.oid) AS idx_tup_fetch,
       pg_catalog.pg_stat_get_blocks_fetched(c.oid)
           - pg_catalog.pg_stat_get_blocks_hit(c.oid) AS idx_blks_read,
       pg_catalog.pg_stat_get_blocks_hit(c.oid) AS idx_blks_hit,
       c.relpages,
       c.relname AS indexrelname,
       c.oid <> ALL (ARRAY(SELECT i.indexrelid FROM pg_catalog.pg_index AS i WHERE NOT i.indisvalid))
           AS indisvalid
  FROM pg_catalog.pg_class AS c
 WHERE c.relkind IN ('i', 'I')
   AND c.relpersistence <> 't'
   AND c.oid >= 16384
   AND c.relnamespace <> 'pg_toast'::regnamespace
"""

SQL_16 = """
SELECT c.oid AS indexrelid,
       pg_catalog.pg_stat_get_numscans(c.oid) AS idx_scan,
       pg_catalog.pg_stat_get_tuples_returned(c.oid) AS idx_tup_read,
       pg_catalog.pg_stat_get_tuples_fetched(c.oid) AS idx_tup_fetch,
       pg_catalog.pg_stat_get_blocks_fetched(c.oid)
           - pg_catalog.pg_stat_get_blocks_hit(c.oid) AS idx_blks_read,
       pg_catalog.pg_stat_get_blocks_hit(c.oid) AS idx_blks_hit,
       c.relpages,
       pg_catalog.pg_stat_get_lastscan(c.oid) AS last_idx_scan,
       c.relname AS indexrelname,
       c.oid <> ALL (ARRAY(SELECT i.indexrelid FROM pg_catalog.pg_index AS i WHERE NOT i.indisvalid))
           AS indisvalid
  FROM pg_catalog.pg_class AS c
 WHERE c.relkind IN ('i', 'I')
   AND c.relpersistence <> 't'
   AND c.oid >= 16384
   AND c.relnamespace <> 'pg_toast'::regnamespace
"""

RESET_SQL = """
SELECT s.stats_reset,
       s.xact_commit
  FROM pg_catalog.pg_stat_database AS s
 WHERE s.datname = pg_catalog.current_database()
"""

# pg_get_indexdef() waits behind ACCESS EXCLUSIVE on the table or the index, and opens
# what it describes: at most a thousand at once, in the order of the keys.
LABELS_SQL = """
WITH locked AS MATERIALIZED (
  SELECT l.relation
    FROM pg_catalog.pg_locks AS l
   WHERE l.locktype = 'relation'
     AND l.mode = 'AccessExclusiveLock'
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                        WHERE d.datname = pg_catalog.current_database()))
SELECT i.indexrelid,
       i.indrelid AS relid,
       i.indisunique,
       i.indisprimary,
       CASE WHEN k.position <= 1000
             AND NOT EXISTS (SELECT FROM locked AS l WHERE l.relation IN (i.indexrelid, i.indrelid))
            THEN pg_catalog.pg_get_indexdef(i.indexrelid)
       END AS indexdef
  FROM pg_catalog.unnest(%(keys)s::oid[]) WITH ORDINALITY AS k (indexrelid, position)
  JOIN pg_catalog.pg_index AS i ON i.indexrelid = k.indexrelid
"""

PROBE = Probe(
    name="indexes",
    sample=IndexesSample,
    sql={14: SQL_14, 16: SQL_16},
    every=timedelta(minutes=5),
    per_database=True,
    reset_sql=RESET_SQL,
    refine_sql=LABELS_SQL,
    refine_hourly=True,
    refine_at_once=100_000,
)
