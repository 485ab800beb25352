"""What long maintenance is doing: VACUUM, ANALYZE, CLUSTER, VACUUM FULL, index builds.

Source: https://www.postgresql.org/docs/current/progress-reporting.html
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class ProgressSample(Sample):
    """One running maintenance command."""

    pid = models.IntegerField()
    command = models.CharField(max_length=40)  # VACUUM, VACUUM FULL, ANALYZE, …
    datname = models.TextField()
    relid = models.BigIntegerField()
    phase = models.TextField()
    done = models.BigIntegerField()  # blocks
    total = models.BigIntegerField()  # blocks; None or 0: not known yet
    index_vacuum_count = models.BigIntegerField()
    autovacuum = models.BooleanField()
    wraparound = models.BooleanField()  # autovacuum to prevent wraparound
    started_at = models.DateTimeField()

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
    )

    class Meta:
        abstract = True


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
       a.query_start AS started_at
  FROM (SELECT v.pid, 'VACUUM' AS command, v.datname, v.relid::bigint AS relid, v.phase,
               CASE v.phase WHEN 'scanning heap' THEN v.heap_blks_scanned
                            ELSE v.heap_blks_vacuumed END AS done,
               v.heap_blks_total AS total, v.index_vacuum_count
          FROM pg_catalog.pg_stat_progress_vacuum AS v
         UNION ALL
        SELECT n.pid, 'ANALYZE', n.datname, n.relid::bigint, n.phase,
               n.sample_blks_scanned, n.sample_blks_total, NULL::bigint
          FROM pg_catalog.pg_stat_progress_analyze AS n
         UNION ALL
        SELECT c.pid, c.command, c.datname, c.relid::bigint, c.phase,
               c.heap_blks_scanned, c.heap_blks_total, NULL::bigint
          FROM pg_catalog.pg_stat_progress_cluster AS c
         UNION ALL
        SELECT x.pid, x.command, x.datname, x.relid::bigint, x.phase,
               x.blocks_done, x.blocks_total, NULL::bigint
          FROM pg_catalog.pg_stat_progress_create_index AS x) AS p
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid
"""

PROBE = Probe(
    name="progress",
    sample=ProgressSample,
    sql={14: SQL_14},
    every=timedelta(seconds=10),
    fast=True,
    rollups=False,
    statement_timeout_ms=2000,
)
