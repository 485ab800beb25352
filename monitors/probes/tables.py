"""What `pg_stat_user_tables` and `pg_statio_user_tables` say, at a fifth of the cost.

The views aggregate over `pg_index` for each table; the functions under them
do not. `relpages` is read for all, the exact size only for what changed:
`pg_total_relation_size` opens every relation it is asked for.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ALL-TABLES-VIEW

Long, since a whole text of SQL for each version that differs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from django.contrib.postgres.fields import ArrayField
from django.db import models

from monitors.probe import Probe, Row, Sample


class TablesSample(Sample):
    """One ordinary, TOAST or partitioned table or materialized view of a database.

    Of a partitioned one (relkind p) only scans and analyzes are its own: it has no rows.
    """

    relid = models.BigIntegerField()
    seq_scan = models.BigIntegerField()
    seq_tup_read = models.BigIntegerField()
    n_tup_ins = models.BigIntegerField()
    n_tup_upd = models.BigIntegerField()
    n_tup_del = models.BigIntegerField()
    n_tup_hot_upd = models.BigIntegerField()
    n_tup_newpage_upd = models.BigIntegerField()  # 16+
    vacuum_count = models.BigIntegerField()
    autovacuum_count = models.BigIntegerField()
    analyze_count = models.BigIntegerField()
    autoanalyze_count = models.BigIntegerField()
    heap_blks_read = models.BigIntegerField()
    heap_blks_hit = models.BigIntegerField()
    total_vacuum_time = models.FloatField()  # ms, 18+
    total_autovacuum_time = models.FloatField()  # ms, 18+
    total_analyze_time = models.FloatField()  # ms, 18+
    total_autoanalyze_time = models.FloatField()  # ms, 18+
    n_live_tup = models.BigIntegerField()
    n_dead_tup = models.BigIntegerField()
    n_mod_since_analyze = models.BigIntegerField()
    n_ins_since_vacuum = models.BigIntegerField()
    relpages = models.BigIntegerField()
    reltuples = models.FloatField()  # -1: never vacuumed or analyzed
    relallvisible = models.BigIntegerField()
    relallfrozen = models.BigIntegerField()  # 18+
    size_bytes = models.BigIntegerField()  # with indexes and TOAST; None: not read yet
    last_seq_scan = models.DateTimeField()  # 16+
    last_vacuum = models.DateTimeField()
    last_autovacuum = models.DateTimeField()
    last_analyze = models.DateTimeField()
    last_autoanalyze = models.DateTimeField()
    relfrozenxid = models.BigIntegerField()  # 32 bit; its age needs databases.next_xid
    relminmxid = models.BigIntegerField()
    schemaname = models.TextField()
    relname = models.TextField()
    relkind = models.CharField(max_length=1)
    toastrelid = models.BigIntegerField()  # its TOAST table, 0: none
    relfilenode = models.BigIntegerField()  # another one: it was rewritten
    rewritten_dead_tup = models.BigIntegerField()  # counted by the server, gone by a rewrite
    filled_file = models.BigIntegerField()  # the relfilenode that last had pages, 0: none has
    parentrelid = models.BigIntegerField()  # the partitioned table that it is a partition of
    relpersistence = models.CharField(max_length=1)
    reloptions = ArrayField(models.TextField())
    pg_class_ctid = models.CharField(max_length=20)  # where autovacuum finds it: "(12,3)"

    key = ("relid",)
    counters = (
        "seq_scan",
        "seq_tup_read",
        "n_tup_ins",
        "n_tup_upd",
        "n_tup_del",
        "n_tup_hot_upd",
        "n_tup_newpage_upd",
        "vacuum_count",
        "autovacuum_count",
        "analyze_count",
        "autoanalyze_count",
        "heap_blks_read",
        "heap_blks_hit",
        "total_vacuum_time",
        "total_autovacuum_time",
        "total_analyze_time",
        "total_autoanalyze_time",
    )
    gauges = (
        "n_live_tup",
        "n_dead_tup",
        "n_mod_since_analyze",
        "n_ins_since_vacuum",
        "relpages",
        "reltuples",
        "relallvisible",
        "relallfrozen",
        "size_bytes",
    )
    facts = (
        "last_seq_scan",
        "last_vacuum",
        "last_autovacuum",
        "last_analyze",
        "last_autoanalyze",
        "relfrozenxid",
        "relminmxid",
        "relfilenode",
        "rewritten_dead_tup",
    )
    labels = (
        "schemaname",
        "relname",
        "relkind",
        "toastrelid",
        "parentrelid",
        "relpersistence",
        "reloptions",
        "pg_class_ctid",
        "filled_file",
    )
    refined = ("filled_file", "size_bytes")
    unreplicated = (
        *(name for name in counters if name not in {"seq_scan", "seq_tup_read"}),
        "n_live_tup",
        "n_dead_tup",
        "n_mod_since_analyze",
        "n_ins_since_vacuum",
        "last_vacuum",
        "last_autovacuum",
        "last_analyze",
        "last_autoanalyze",
    )

    class Meta:
        abstract = True


# Nearly every table has a TOAST table and most of those are empty: they are left out.
# Only what psycopg would not read as a number is cast: a cast of each row costs too.
SQL_14 = """
SELECT c.oid AS relid,
       pg_catalog.pg_stat_get_numscans(c.oid) AS seq_scan,
       pg_catalog.pg_stat_get_tuples_returned(c.oid) AS seq_tup_read,
       pg_catalog.pg_stat_get_tuples_inserted(c.oid) AS n_tup_ins,
       pg_catalog.pg_stat_get_tuples_updated(c.oid) AS n_tup_upd,
       pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS n_tup_del,
       pg_catalog.pg_stat_get_tuples_hot_updated(c.oid) AS n_tup_hot_upd,
       pg_catalog.pg_stat_get_vacuum_count(c.oid) AS vacuum_count,
       pg_catalog.pg_stat_get_autovacuum_count(c.oid) AS autovacuum_count,
       pg_catalog.pg_stat_get_analyze_count(c.oid) AS analyze_count,
       pg_catalog.pg_stat_get_autoanalyze_count(c.oid) AS autoanalyze_count,
       pg_catalog.pg_stat_get_blocks_fetched(c.oid)
           - pg_catalog.pg_stat_get_blocks_hit(c.oid) AS heap_blks_read,
       pg_catalog.pg_stat_get_blocks_hit(c.oid) AS heap_blks_hit,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_live_tuples(c.oid) END AS n_live_tup,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_dead_tuples(c.oid) END AS n_dead_tup,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_mod_since_analyze(c.oid) END AS n_mod_since_analyze,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) END AS n_ins_since_vacuum,
       c.relpages,
       c.reltuples,
       c.relallvisible,
       pg_catalog.pg_stat_get_last_vacuum_time(c.oid) AS last_vacuum,
       pg_catalog.pg_stat_get_last_autovacuum_time(c.oid) AS last_autovacuum,
       pg_catalog.pg_stat_get_last_analyze_time(c.oid) AS last_analyze,
       pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid) AS last_autoanalyze,
       c.relfrozenxid::text::bigint AS relfrozenxid,
       c.relminmxid::text::bigint AS relminmxid,
       n.nspname AS schemaname,
       c.relname,
       c.relkind,
       c.reltoastrelid AS toastrelid,
       c.relfilenode::bigint AS relfilenode,
       NULL::bigint AS rewritten_dead_tup,
       CASE WHEN c.relispartition
            THEN (SELECT i.inhparent FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid)
       END AS parentrelid,
       c.relpersistence,
       c.reloptions,
       c.ctid::text AS pg_class_ctid
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 't', 'm', 'p')
   AND c.relpersistence <> 't'
   AND c.oid >= 16384
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (c.relkind <> 't' OR c.relpages > 0 OR pg_catalog.pg_stat_get_tuples_inserted(c.oid) > 0)
"""

SQL_16 = """
SELECT c.oid AS relid,
       pg_catalog.pg_stat_get_numscans(c.oid) AS seq_scan,
       pg_catalog.pg_stat_get_tuples_returned(c.oid) AS seq_tup_read,
       pg_catalog.pg_stat_get_tuples_inserted(c.oid) AS n_tup_ins,
       pg_catalog.pg_stat_get_tuples_updated(c.oid) AS n_tup_upd,
       pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS n_tup_del,
       pg_catalog.pg_stat_get_tuples_hot_updated(c.oid) AS n_tup_hot_upd,
       pg_catalog.pg_stat_get_tuples_newpage_updated(c.oid) AS n_tup_newpage_upd,
       pg_catalog.pg_stat_get_vacuum_count(c.oid) AS vacuum_count,
       pg_catalog.pg_stat_get_autovacuum_count(c.oid) AS autovacuum_count,
       pg_catalog.pg_stat_get_analyze_count(c.oid) AS analyze_count,
       pg_catalog.pg_stat_get_autoanalyze_count(c.oid) AS autoanalyze_count,
       pg_catalog.pg_stat_get_blocks_fetched(c.oid)
           - pg_catalog.pg_stat_get_blocks_hit(c.oid) AS heap_blks_read,
       pg_catalog.pg_stat_get_blocks_hit(c.oid) AS heap_blks_hit,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_live_tuples(c.oid) END AS n_live_tup,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_dead_tuples(c.oid) END AS n_dead_tup,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_mod_since_analyze(c.oid) END AS n_mod_since_analyze,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) END AS n_ins_since_vacuum,
       c.relpages,
       c.reltuples,
       c.relallvisible,
       pg_catalog.pg_stat_get_lastscan(c.oid) AS last_seq_scan,
       pg_catalog.pg_stat_get_last_vacuum_time(c.oid) AS last_vacuum,
       pg_catalog.pg_stat_get_last_autovacuum_time(c.oid) AS last_autovacuum,
       pg_catalog.pg_stat_get_last_analyze_time(c.oid) AS last_analyze,
       pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid) AS last_autoanalyze,
       c.relfrozenxid::text::bigint AS relfrozenxid,
       c.relminmxid::text::bigint AS relminmxid,
       n.nspname AS schemaname,
       c.relname,
       c.relkind,
       c.reltoastrelid AS toastrelid,
       c.relfilenode::bigint AS relfilenode,
       NULL::bigint AS rewritten_dead_tup,
       CASE WHEN c.relispartition
            THEN (SELECT i.inhparent FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid)
       END AS parentrelid,
       c.relpersistence,
       c.reloptions,
       c.ctid::text AS pg_class_ctid
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 't', 'm', 'p')
   AND c.relpersistence <> 't'
   AND c.oid >= 16384
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (c.relkind <> 't' OR c.relpages > 0 OR pg_catalog.pg_stat_get_tuples_inserted(c.oid) > 0)
"""

SQL_18 = """
SELECT c.oid AS relid,
       pg_catalog.pg_stat_get_numscans(c.oid) AS seq_scan,
       pg_catalog.pg_stat_get_tuples_returned(c.oid) AS seq_tup_read,
       pg_catalog.pg_stat_get_tuples_inserted(c.oid) AS n_tup_ins,
       pg_catalog.pg_stat_get_tuples_updated(c.oid) AS n_tup_upd,
       pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS n_tup_del,
       pg_catalog.pg_stat_get_tuples_hot_updated(c.oid) AS n_tup_hot_upd,
       pg_catalog.pg_stat_get_tuples_newpage_updated(c.oid) AS n_tup_newpage_upd,
       pg_catalog.pg_stat_get_vacuum_count(c.oid) AS vacuum_count,
       pg_catalog.pg_stat_get_autovacuum_count(c.oid) AS autovacuum_count,
       pg_catalog.pg_stat_get_analyze_count(c.oid) AS analyze_count,
       pg_catalog.pg_stat_get_autoanalyze_count(c.oid) AS autoanalyze_count,
       pg_catalog.pg_stat_get_blocks_fetched(c.oid)
           - pg_catalog.pg_stat_get_blocks_hit(c.oid) AS heap_blks_read,
       pg_catalog.pg_stat_get_blocks_hit(c.oid) AS heap_blks_hit,
       pg_catalog.pg_stat_get_total_vacuum_time(c.oid) AS total_vacuum_time,
       pg_catalog.pg_stat_get_total_autovacuum_time(c.oid) AS total_autovacuum_time,
       pg_catalog.pg_stat_get_total_analyze_time(c.oid) AS total_analyze_time,
       pg_catalog.pg_stat_get_total_autoanalyze_time(c.oid) AS total_autoanalyze_time,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_live_tuples(c.oid) END AS n_live_tup,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_dead_tuples(c.oid) END AS n_dead_tup,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_mod_since_analyze(c.oid) END AS n_mod_since_analyze,
       CASE WHEN c.relkind <> 'p' THEN pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) END AS n_ins_since_vacuum,
       c.relpages,
       c.reltuples,
       c.relallvisible,
       pg_catalog.pg_stat_get_lastscan(c.oid) AS last_seq_scan,
       pg_catalog.pg_stat_get_last_vacuum_time(c.oid) AS last_vacuum,
       pg_catalog.pg_stat_get_last_autovacuum_time(c.oid) AS last_autovacuum,
       pg_catalog.pg_stat_get_last_analyze_time(c.oid) AS last_analyze,
       pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid) AS last_autoanalyze,
       c.relfrozenxid::text::bigint AS relfrozenxid,
       c.relminmxid::text::bigint AS relminmxid,
       n.nspname AS schemaname,
       c.relname,
       c.relkind,
       c.reltoastrelid AS toastrelid,
       c.relfilenode::bigint AS relfilenode,
       NULL::bigint AS rewritten_dead_tup,
       CASE WHEN c.relispartition
            THEN (SELECT i.inhparent FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid)
       END AS parentrelid,
       c.relpersistence,
       c.reloptions,
       c.relallfrozen,
       c.ctid::text AS pg_class_ctid
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 't', 'm', 'p')
   AND c.relpersistence <> 't'
   AND c.oid >= 16384
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (c.relkind <> 't' OR c.relpages > 0 OR pg_catalog.pg_stat_get_tuples_inserted(c.oid) > 0)
"""

# pg_stat_reset_single_table_counters() changes stats_reset too: only where the
# database's own counter also fell was everything reset.
RESET_SQL = """
SELECT s.stats_reset,
       s.xact_commit
  FROM pg_catalog.pg_stat_database AS s
 WHERE s.datname = pg_catalog.current_database()
"""

# Size functions wait behind ACCESS EXCLUSIVE, also that of an index or TOAST table.
SIZES_SQL = """
WITH locked AS MATERIALIZED (
  SELECT l.relation AS oid
    FROM pg_catalog.pg_locks AS l
   WHERE l.locktype = 'relation'
     AND l.mode = 'AccessExclusiveLock'
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                        WHERE d.datname = pg_catalog.current_database())),
barred AS MATERIALIZED (
  SELECT k.oid FROM locked AS k
   UNION ALL
  SELECT i.indrelid FROM locked AS k JOIN pg_catalog.pg_index AS i ON i.indexrelid = k.oid)
SELECT c.oid::bigint AS relid,
       CASE WHEN pg_catalog.pg_relation_size(c.oid) > 0 THEN c.relfilenode::bigint
            ELSE 0 END AS filled_file,
       pg_catalog.pg_total_relation_size(c.oid) AS size_bytes
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = ANY (%(keys)s::oid[])
   AND c.oid NOT IN (SELECT b.oid FROM barred AS b WHERE b.oid IS NOT NULL)
   AND c.reltoastrelid NOT IN (SELECT b.oid FROM barred AS b WHERE b.oid IS NOT NULL)
"""

COLUMNS = TablesSample.columns()
DEAD, FILE, REWRITTEN, VISIBLE = map(
    COLUMNS.index, ("n_dead_tup", "relfilenode", "rewritten_dead_tup", "relallvisible")
)
COUNTERS = [COLUMNS.index(name) for name in TablesSample.counters]
COUNTED_AT = ("last_vacuum", "last_autovacuum", "last_analyze", "last_autoanalyze")
"""When the server last counted dead rows itself."""
COUNTED = [COLUMNS.index(name) for name in COUNTED_AT]


class Dead(NamedTuple):
    """What a reading says of a table's dead rows."""

    relid: int
    relfilenode: int | None
    n_dead_tup: int | None
    rewritten_dead_tup: int | None
    relallvisible: int | None
    counted_at: tuple[datetime | None, ...]  # as COUNTED_AT


def known_dead(
    before: Dead | None, now: Dead, *, is_reset: bool = False
) -> tuple[int | None, int | None]:
    """Return `n_dead_tup` and `rewritten_dead_tup` as they are kept, given those that a server says.

    VACUUM FULL, CLUSTER and whatever else writes a table anew (`relfilenode` is another one) leave
    the server's number as it was, up to the next VACUUM or ANALYZE, so:

    - (0, n): the table was rewritten and no row has died since `before`; n is what the server goes
      on counting.
    - (None, n): how many of the n are gone is not known until the server counts again: rows died
      between `before` and now, before or after the rewrite, or nobody saw the table before it.
    - (n, None): the server's own number.

    The server's own number, by which autovacuum comes, is the sum. `before` is what is kept of the
    snapshot before, None where the table was not in it; `is_reset` whether the table's counters
    began anew since. A rewrite sets `relallvisible` to 0 and only VACUUM and ANALYZE set it to
    more, so where it is more the server has counted since the last one.
    """
    said = now.n_dead_tup
    if not said:
        return said, None
    if before is None:
        is_doubtful = now.relfilenode not in {0, None, now.relid} and not now.relallvisible
        return (None, said) if is_doubtful else (said, None)
    is_counted = before.counted_at != now.counted_at
    if before.relfilenode and now.relfilenode and before.relfilenode != now.relfilenode:
        if is_counted or is_reset:
            return (said, None) if is_counted and now.relallvisible else (None, said)
        counted = (before.n_dead_tup or 0) + (before.rewritten_dead_tup or 0)
        return (0 if said == counted else None, said)
    gone = before.rewritten_dead_tup
    if is_counted or is_reset or not gone or said < gone:
        return said, None
    return (None, said) if before.n_dead_tup is None else (said - gone, gone)


def without_rewritten(before: Row | None, now: Row) -> Row:
    """Return a table's row with the dead rows that are known of it."""
    if before is None:
        if not now[FILE] or now[FILE] == now[0]:
            return now
    elif before[FILE] == now[FILE] and not before[REWRITTEN]:
        return now
    known = known_dead(
        dead_of(before) if before else None,
        dead_of(now),
        is_reset=before is not None and have_fallen(before, now),
    )
    row = list(now)
    row[DEAD], row[REWRITTEN] = known
    return tuple(row)


def have_fallen(before: Row, now: Row) -> bool:
    """Tell whether a counter of a table is less than it was: they began anew."""
    return any((now[place] or 0) < (before[place] or 0) for place in COUNTERS)


def dead_of(row: Row) -> Dead:
    """Return what a row says of dead rows."""
    counted_at = tuple(row[place] for place in COUNTED)
    return Dead(row[0], row[FILE], row[DEAD], row[REWRITTEN], row[VISIBLE], counted_at)


PROBE = Probe(
    name="tables",
    sample=TablesSample,
    sql={14: SQL_14, 16: SQL_16, 18: SQL_18},
    every=timedelta(minutes=5),
    per_database=True,
    reset_sql=RESET_SQL,
    refine_sql=SIZES_SQL,
    refine_changed=True,
    carry=without_rewritten,
)
