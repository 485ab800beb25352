"""How far commands are that say so: VACUUM, ANALYZE, CLUSTER, REPACK, index builds, COPY, base backups.

Source: https://www.postgresql.org/docs/current/progress-reporting.html
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class ProgressSample(Sample):
    """One running command: maintenance, or one of `TRANSFERS` (`monitors/advisor.py`)."""

    pid = models.IntegerField()
    command = models.CharField(max_length=40)  # VACUUM, VACUUM FULL, ANALYZE, …
    datname = models.TextField()
    relid = models.BigIntegerField()  # None: a transfer
    phase = models.TextField()  # None: COPY has none
    done = models.BigIntegerField()  # blocks; of transfers bytes
    total = models.BigIntegerField()  # the same; None or 0: not known, as of a COPY from its client
    index_vacuum_count = models.BigIntegerField()
    autovacuum = models.BooleanField()
    wraparound = models.BooleanField()  # autovacuum to prevent wraparound
    started_at = models.DateTimeField()
    usename = models.TextField()  # None: autovacuum
    wait_event_type = models.TextField()
    wait_event = models.TextField()  # VacuumDelay: it sleeps for the cost limit
    heap_blks_total = models.BigIntegerField()
    heap_blks_scanned = models.BigIntegerField()
    heap_blks_vacuumed = models.BigIntegerField()
    max_dead_tuples = models.BigIntegerField()  # up to 16
    num_dead_tuples = models.BigIntegerField()  # up to 16
    max_dead_tuple_bytes = models.BigIntegerField()  # 17+
    dead_tuple_bytes = models.BigIntegerField()  # 17+
    num_dead_item_ids = models.BigIntegerField()  # 17+
    indexes_total = models.BigIntegerField()  # 17+; 0 outside the phases of indexes
    indexes_processed = models.BigIntegerField()  # 17+
    delay_time = models.FloatField()  # ms, 18+; 0 unless track_cost_delay_timing is on

    key = ("pid", "command")
    facts = (
        "datname",
        "relid",
        "phase",
        "done",
        "total",
        "index_vacuum_count",
        "autovacuum",
        "wraparound",
        "started_at",
        "usename",
        "wait_event_type",
        "wait_event",
        "heap_blks_total",
        "heap_blks_scanned",
        "heap_blks_vacuumed",
        "max_dead_tuples",
        "num_dead_tuples",
        "max_dead_tuple_bytes",
        "dead_tuple_bytes",
        "num_dead_item_ids",
        "indexes_total",
        "indexes_processed",
        "delay_time",
    )

    class Meta:
        abstract = True


# 17 counts dead rows in bytes, 18 says how long a vacuum slept, 19 tells REPACK from VACUUM FULL:
# the older view of both is there still and calls it one.
SQL_14 = """
SELECT p.pid,
       p.command,
       p.datname::text AS datname,
       p.relid,
       p.phase,
       p.done,
       p.total,
       p.index_vacuum_count,
       a.backend_type = 'autovacuum worker' AS autovacuum,
       a.backend_type = 'autovacuum worker' AND a.query LIKE '%%(to prevent wraparound)' AS wraparound,
       a.query_start AS started_at,
       a.usename::text AS usename,
       a.wait_event_type,
       a.wait_event,
       p.heap_blks_total,
       p.heap_blks_scanned,
       p.heap_blks_vacuumed,
       p.max_dead_tuples,
       p.num_dead_tuples
  FROM (SELECT v.pid, 'VACUUM' AS command, v.datname, v.relid::bigint AS relid, v.phase,
               CASE v.phase WHEN 'scanning heap' THEN v.heap_blks_scanned
                            ELSE v.heap_blks_vacuumed END AS done,
               v.heap_blks_total AS total, v.index_vacuum_count,
               v.heap_blks_total, v.heap_blks_scanned, v.heap_blks_vacuumed,
               v.max_dead_tuples, v.num_dead_tuples
          FROM pg_catalog.pg_stat_progress_vacuum AS v
         UNION ALL
        SELECT n.pid, 'ANALYZE', n.datname, n.relid::bigint, n.phase,
               n.sample_blks_scanned, n.sample_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_analyze AS n
         UNION ALL
        SELECT c.pid, c.command, c.datname, c.relid::bigint, c.phase,
               c.heap_blks_scanned, c.heap_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_cluster AS c
         UNION ALL
        SELECT x.pid, x.command, x.datname, x.relid::bigint, x.phase,
               x.blocks_done, x.blocks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_create_index AS x
         UNION ALL
        SELECT y.pid, y.command, y.datname, NULL::bigint, NULL::text,
               y.bytes_processed, y.bytes_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_copy AS y
         UNION ALL
        SELECT b.pid, 'BASE BACKUP', NULL::name, NULL::bigint, b.phase,
               b.backup_streamed, b.backup_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_basebackup AS b) AS p
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid
"""

SQL_17 = """
SELECT p.pid,
       p.command,
       p.datname::text AS datname,
       p.relid,
       p.phase,
       p.done,
       p.total,
       p.index_vacuum_count,
       a.backend_type = 'autovacuum worker' AS autovacuum,
       a.backend_type = 'autovacuum worker' AND a.query LIKE '%%(to prevent wraparound)' AS wraparound,
       a.query_start AS started_at,
       a.usename::text AS usename,
       a.wait_event_type,
       a.wait_event,
       p.heap_blks_total,
       p.heap_blks_scanned,
       p.heap_blks_vacuumed,
       p.max_dead_tuple_bytes,
       p.dead_tuple_bytes,
       p.num_dead_item_ids,
       p.indexes_total,
       p.indexes_processed
  FROM (SELECT v.pid, 'VACUUM' AS command, v.datname, v.relid::bigint AS relid, v.phase,
               CASE v.phase WHEN 'scanning heap' THEN v.heap_blks_scanned
                            ELSE v.heap_blks_vacuumed END AS done,
               v.heap_blks_total AS total, v.index_vacuum_count,
               v.heap_blks_total, v.heap_blks_scanned, v.heap_blks_vacuumed,
               v.max_dead_tuple_bytes, v.dead_tuple_bytes, v.num_dead_item_ids,
               v.indexes_total, v.indexes_processed
          FROM pg_catalog.pg_stat_progress_vacuum AS v
         UNION ALL
        SELECT n.pid, 'ANALYZE', n.datname, n.relid::bigint, n.phase,
               n.sample_blks_scanned, n.sample_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_analyze AS n
         UNION ALL
        SELECT c.pid, c.command, c.datname, c.relid::bigint, c.phase,
               c.heap_blks_scanned, c.heap_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_cluster AS c
         UNION ALL
        SELECT x.pid, x.command, x.datname, x.relid::bigint, x.phase,
               x.blocks_done, x.blocks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_create_index AS x
         UNION ALL
        SELECT y.pid, y.command, y.datname, NULL::bigint, NULL::text,
               y.bytes_processed, y.bytes_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_copy AS y
         UNION ALL
        SELECT b.pid, 'BASE BACKUP', NULL::name, NULL::bigint, b.phase,
               b.backup_streamed, b.backup_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
          FROM pg_catalog.pg_stat_progress_basebackup AS b) AS p
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid
"""

SQL_18 = """
SELECT p.pid,
       p.command,
       p.datname::text AS datname,
       p.relid,
       p.phase,
       p.done,
       p.total,
       p.index_vacuum_count,
       a.backend_type = 'autovacuum worker' AS autovacuum,
       a.backend_type = 'autovacuum worker' AND a.query LIKE '%%(to prevent wraparound)' AS wraparound,
       a.query_start AS started_at,
       a.usename::text AS usename,
       a.wait_event_type,
       a.wait_event,
       p.heap_blks_total,
       p.heap_blks_scanned,
       p.heap_blks_vacuumed,
       NULL::bigint AS max_dead_tuples,
       NULL::bigint AS num_dead_tuples,
       p.max_dead_tuple_bytes,
       p.dead_tuple_bytes,
       p.num_dead_item_ids,
       p.indexes_total,
       p.indexes_processed,
       p.delay_time
  FROM (SELECT v.pid, 'VACUUM' AS command, v.datname, v.relid::bigint AS relid, v.phase,
               CASE v.phase WHEN 'scanning heap' THEN v.heap_blks_scanned
                            ELSE v.heap_blks_vacuumed END AS done,
               v.heap_blks_total AS total, v.index_vacuum_count,
               v.heap_blks_total, v.heap_blks_scanned, v.heap_blks_vacuumed,
               v.max_dead_tuple_bytes, v.dead_tuple_bytes, v.num_dead_item_ids,
               v.indexes_total, v.indexes_processed, v.delay_time
          FROM pg_catalog.pg_stat_progress_vacuum AS v
         UNION ALL
        SELECT n.pid, 'ANALYZE', n.datname, n.relid::bigint, n.phase,
               n.sample_blks_scanned, n.sample_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, n.delay_time
          FROM pg_catalog.pg_stat_progress_analyze AS n
         UNION ALL
        SELECT c.pid, c.command, c.datname, c.relid::bigint, c.phase,
               c.heap_blks_scanned, c.heap_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8
          FROM pg_catalog.pg_stat_progress_cluster AS c
         UNION ALL
        SELECT x.pid, x.command, x.datname, x.relid::bigint, x.phase,
               x.blocks_done, x.blocks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8
          FROM pg_catalog.pg_stat_progress_create_index AS x
         UNION ALL
        SELECT y.pid, y.command, y.datname, NULL::bigint, NULL::text,
               y.bytes_processed, y.bytes_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8
          FROM pg_catalog.pg_stat_progress_copy AS y
         UNION ALL
        SELECT b.pid, 'BASE BACKUP', NULL::name, NULL::bigint, b.phase,
               b.backup_streamed, b.backup_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8
          FROM pg_catalog.pg_stat_progress_basebackup AS b) AS p
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid
"""

SQL_19 = """
SELECT p.pid,
       p.command,
       p.datname::text AS datname,
       p.relid,
       p.phase,
       p.done,
       p.total,
       p.index_vacuum_count,
       a.backend_type = 'autovacuum worker' AS autovacuum,
       coalesce(p.started_by = 'autovacuum_wraparound', false) AS wraparound,
       a.query_start AS started_at,
       a.usename::text AS usename,
       a.wait_event_type,
       a.wait_event,
       p.heap_blks_total,
       p.heap_blks_scanned,
       p.heap_blks_vacuumed,
       NULL::bigint AS max_dead_tuples,
       NULL::bigint AS num_dead_tuples,
       p.max_dead_tuple_bytes,
       p.dead_tuple_bytes,
       p.num_dead_item_ids,
       p.indexes_total,
       p.indexes_processed,
       p.delay_time
  FROM (SELECT v.pid, 'VACUUM' AS command, v.datname, v.relid::bigint AS relid, v.phase,
               CASE v.phase WHEN 'scanning heap' THEN v.heap_blks_scanned
                            ELSE v.heap_blks_vacuumed END AS done,
               v.heap_blks_total AS total, v.index_vacuum_count,
               v.heap_blks_total, v.heap_blks_scanned, v.heap_blks_vacuumed,
               v.max_dead_tuple_bytes, v.dead_tuple_bytes, v.num_dead_item_ids,
               v.indexes_total, v.indexes_processed, v.delay_time, v.started_by
          FROM pg_catalog.pg_stat_progress_vacuum AS v
         UNION ALL
        SELECT n.pid, 'ANALYZE', n.datname, n.relid::bigint, n.phase,
               n.sample_blks_scanned, n.sample_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, n.delay_time,
               n.started_by
          FROM pg_catalog.pg_stat_progress_analyze AS n
         UNION ALL
        SELECT c.pid, c.command, c.datname, c.relid::bigint, c.phase,
               c.heap_blks_scanned, c.heap_blks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8,
               NULL::text
          FROM pg_catalog.pg_stat_progress_repack AS c
         UNION ALL
        SELECT x.pid, x.command, x.datname, x.relid::bigint, x.phase,
               x.blocks_done, x.blocks_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8,
               NULL::text
          FROM pg_catalog.pg_stat_progress_create_index AS x
         UNION ALL
        SELECT y.pid, y.command, y.datname, NULL::bigint, NULL::text,
               y.bytes_processed, y.bytes_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8,
               NULL::text
          FROM pg_catalog.pg_stat_progress_copy AS y
         UNION ALL
        SELECT b.pid, 'BASE BACKUP', NULL::name, NULL::bigint, b.phase,
               b.backup_streamed, b.backup_total, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::float8,
               NULL::text
          FROM pg_catalog.pg_stat_progress_basebackup AS b) AS p
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid
"""

PROBE = Probe(
    name="progress",
    sample=ProgressSample,
    sql={14: SQL_14, 17: SQL_17, 18: SQL_18, 19: SQL_19},
    every=timedelta(seconds=10),
    fast=True,
    rollups=False,
    statement_timeout_ms=2000,
)
