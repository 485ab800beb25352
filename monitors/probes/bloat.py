"""How much of each table and btree index is wasted, and by which method that is known.

Statistics give an estimate of all; where pgstattuple is installed, a slice is
measured at each snapshot; a new file gives the truth. `monitors/rules/bloat.py` says
which of them is believed, docs/bloat.md how the estimate is made.

Source: https://www.postgresql.org/docs/current/pgstattuple.html

Long, since a whole text of SQL for each version that differs, and the estimate in it.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Measuring, Probe, Sample


class BloatSample(Sample):
    """One ordinary table, materialized view, TOAST table or btree index of a database."""

    relid = models.BigIntegerField()  # of the object itself
    relpages_bytes = models.BigIntegerField()  # as vacuum or analyze noted; neither: of its file
    reltuples = models.FloatField()  # -1: never vacuumed or analyzed
    estimate_bytes = models.BigIntegerField()  # wasted by statistics; None: not to be told
    size_bytes = models.BigIntegerField()  # by relpages, or as measured
    bloat_bytes = models.BigIntegerField()  # wasted beyond what fillfactor reserves
    bloat_pct = models.FloatField()  # of size_bytes
    method = models.CharField(max_length=13)  # estimate, approx, exact, after-rewrite
    measured_at = models.DateTimeField()  # when the figure was first known
    stats_at = models.DateTimeField()  # last analyze of the table
    vacuumed_at = models.DateTimeField()  # last vacuum of the table
    relfilenode = models.BigIntegerField()
    schemaname = models.TextField()
    relname = models.TextField()  # the table, also of an index or TOAST table
    indexrelname = models.TextField()  # None: a table
    relkind = models.CharField(max_length=1)
    tablerelid = models.BigIntegerField()  # the table, also of an index or TOAST table
    fillfactor = models.IntegerField()  # pct
    not_estimated = models.CharField(max_length=20)  # why there is no estimate
    seen_bytes = models.BigIntegerField()  # relpages_bytes and reltuples when measured
    seen_tuples = models.FloatField()
    fresh_bytes_per_row = models.FloatField()  # by the last rewrite
    fresh_at = models.DateTimeField()

    key = ("relid",)
    gauges = (
        "relpages_bytes",
        "reltuples",
        "estimate_bytes",
        "size_bytes",
        "bloat_bytes",
        "bloat_pct",
    )
    facts = ("stats_at", "vacuumed_at", "relfilenode", "method", "measured_at")
    labels = (
        "schemaname",
        "relname",
        "indexrelname",
        "relkind",
        "tablerelid",
        "fillfactor",
        "not_estimated",
        "seen_bytes",
        "seen_tuples",
        "fresh_bytes_per_row",
        "fresh_at",
    )
    refined = (
        "size_bytes",
        "bloat_bytes",
        "bloat_pct",
        "method",
        "measured_at",
        "seen_bytes",
        "seen_tuples",
        "fresh_bytes_per_row",
        "fresh_at",
    )

    class Meta:
        abstract = True


# Read once each and joined by hash: the view pg_stats inside a nested loop takes minutes
# on thousands of tables. A column begins at a multiple of its alignment: columns are
# grouped by the 8, 4 and 2 byte ones that they follow, and each group is rounded up.
SQL_14 = """
WITH block AS MATERIALIZED (
  SELECT pg_catalog.current_setting('block_size')::float8 AS bytes),
-- The size of a file is asked only where nothing is noted: it would wait for ACCESS EXCLUSIVE.
locked AS MATERIALIZED (
  SELECT l.relation AS oid
    FROM pg_catalog.pg_locks AS l
   WHERE l.locktype = 'relation'
     AND l.mode = 'AccessExclusiveLock'
     AND l.relation IS NOT NULL
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                        WHERE d.datname = pg_catalog.current_database())),
rel AS MATERIALIZED (
  SELECT c.oid, c.relname, c.relkind, c.relfilenode, c.reltoastrelid, c.relpages, c.reltuples,
         c.relnatts, n.nspname,
         (SELECT o.option_value::int
            FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
           WHERE o.option_name = 'fillfactor') AS own_fillfactor,
         coalesce((SELECT o.option_value::bool
                     FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
                    WHERE o.option_name = 'deduplicate_items'), true) AS deduplicates
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
   WHERE c.relkind IN ('r', 'm', 't', 'i')
     AND m.amname IN ('heap', 'btree')
     AND c.relpersistence <> 't'
     AND c.oid >= 16384
     AND n.nspname NOT IN ('pg_catalog', 'information_schema')
     AND (c.relkind <> 't' OR c.relpages > 0
          OR pg_catalog.pg_stat_get_tuples_inserted(c.oid) > 0)
     AND (c.relkind <> 'i' OR n.nspname <> 'pg_toast')),
main AS MATERIALIZED (
  SELECT t.oid, t.relname, t.nspname, t.reltuples, t.reltoastrelid,
         pg_catalog.has_any_column_privilege(t.oid, 'SELECT')
             AND NOT pg_catalog.row_security_active(t.oid) AS readable,
         greatest(pg_catalog.pg_stat_get_last_analyze_time(t.oid),
                  pg_catalog.pg_stat_get_last_autoanalyze_time(t.oid)) AS stats_at,
         greatest(pg_catalog.pg_stat_get_last_vacuum_time(t.oid),
                  pg_catalog.pg_stat_get_last_autovacuum_time(t.oid)) AS vacuumed_at
    FROM rel AS t
   WHERE t.relkind IN ('r', 'm')),
known AS MATERIALIZED (
  SELECT s.schemaname, s.tablename, s.attname, s.null_frac::float8 AS null_frac,
         s.avg_width::float8 AS avg_width, s.n_distinct::float8 AS n_distinct,
         s.most_common_freqs
    FROM pg_catalog.pg_stats AS s
   WHERE NOT s.inherited
     AND s.schemaname NOT IN ('pg_catalog', 'information_schema')),
idx AS MATERIALIZED (
  SELECT x.indexrelid, x.indrelid, x.indkey, x.indnkeyatts,
         r.reltuples, r.relpages, r.relname AS indexrelname, t.relname, t.nspname, t.reltuples AS table_tuples,
         x.indpred IS NOT NULL AS is_partial,
         NOT x.indisunique AND x.indnkeyatts = x.indnatts AND r.deduplicates
             AS may_deduplicate,
         x.indclass
    FROM pg_catalog.pg_index AS x
    JOIN rel AS r ON r.oid = x.indexrelid
    JOIN main AS t ON t.oid = x.indrelid),
col AS MATERIALIZED (
  SELECT a.attrelid AS oid, a.attnum, a.attlen, a.attalign, a.atttypid, t.nspname,
         t.relname AS tablename, a.attname,
         a.attisdropped OR a.attgenerated = 'v' AS absent,
         true AS is_key, NULL::float8 AS table_tuples, true AS equal_image, false AS is_large
    FROM main AS t
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid
   WHERE a.attnum > 0
   UNION ALL
  SELECT a.attrelid, a.attnum, a.attlen, a.attalign, b.atttypid, x.nspname,
         CASE WHEN x.indkey[a.attnum - 1] = 0 THEN x.indexrelname ELSE x.relname END,
         coalesce(t.attname, a.attname),
         false,
         a.attnum <= x.indnkeyatts, x.table_tuples,
         p.oid IS NOT NULL AND coalesce(l.collisdeterministic, true),
         x.relpages >= 128
    FROM idx AS x
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indexrelid
    LEFT JOIN pg_catalog.pg_attribute AS t
           ON t.attrelid = x.indrelid AND t.attnum = x.indkey[a.attnum - 1]
    JOIN LATERAL (SELECT coalesce(t.atttypid, a.atttypid) AS atttypid) AS b ON true
    LEFT JOIN pg_catalog.pg_opclass AS o ON o.oid = x.indclass[a.attnum - 1]
    LEFT JOIN pg_catalog.pg_amproc AS p
           ON p.amprocfamily = o.opcfamily AND p.amproclefttype = o.opcintype
          AND p.amprocrighttype = o.opcintype AND p.amprocnum = 4
    LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation),
-- avg_width is cut to a whole number, and rounding up to 8 makes as much as a half of it: the
-- values that statistics keep tell how wide an entry of large indexes really is.
sampled AS MATERIALIZED (
  SELECT s.schemaname, s.tablename, s.attname, v.entry_bytes, v.bytes, v.varies
    FROM (SELECT DISTINCT c.nspname, c.tablename, c.attname, c.atttypid
            FROM col AS c
           WHERE c.is_large AND c.attlen = -1
             AND c.atttypid IN ('pg_catalog.numeric'::regtype, 'pg_catalog.text'::regtype,
                                'pg_catalog.varchar'::regtype, 'pg_catalog.bpchar'::regtype)) AS w
    JOIN pg_catalog.pg_stats AS s
      ON s.schemaname = w.nspname AND s.tablename = w.tablename AND s.attname = w.attname
     AND NOT s.inherited
   CROSS JOIN LATERAL (
         SELECT avg(ceil((8 + z.bytes) / 8.0) * 8)::float8 AS entry_bytes,
                avg(z.bytes)::float8 AS bytes,
                min(z.bytes) <> max(z.bytes) AS varies
           FROM unnest(coalesce(s.histogram_bounds::text, s.most_common_vals::text)::text[]) AS u (text)
          CROSS JOIN LATERAL (
                SELECT CASE WHEN w.atttypid = 'pg_catalog.numeric'::regtype
                            THEN pg_catalog.pg_column_size(u.text::numeric) - 3
                            WHEN pg_catalog.octet_length(u.text) <= 126
                            THEN pg_catalog.octet_length(u.text) + 1
                            ELSE pg_catalog.octet_length(u.text) + 4 END AS bytes) AS z) AS v),
width AS MATERIALIZED (
  SELECT c.oid, c.attnum, c.absent, c.atttypid, c.equal_image, s.null_frac, s.avg_width,
         d.entry_bytes,
         c.attlen = -1 AND NOT c.absent AND coalesce(d.varies, true) AS varies,
         c.attlen = -1 AND NOT c.absent AND d.bytes IS NULL AS is_cut,
         cardinality(s.most_common_freqs) AS common_keys,
         CASE WHEN c.table_tuples IS NOT NULL
              THEN (SELECT sum(f.share) FROM unnest(s.most_common_freqs) AS f (share)) END
             AS common_share,
         c.absent OR s.avg_width IS NOT NULL AS has_statistics,
         CASE WHEN c.absent OR c.attlen = -2 OR (c.attlen = -1 AND s.avg_width <= 127) THEN 1
              WHEN c.attalign = 'd' THEN 8 WHEN c.attalign = 'i' THEN 4
              WHEN c.attalign = 's' THEN 2 ELSE 1 END AS alignment,
         CASE WHEN c.absent OR s.avg_width IS NULL THEN 0
              WHEN c.table_tuples IS NULL THEN s.avg_width
              ELSE coalesce(d.bytes, s.avg_width) END AS bytes,
         CASE WHEN c.absent THEN 0 ELSE coalesce(s.null_frac, 0) END AS nulls,
         ln(greatest(CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * c.table_tuples
                          ELSE s.n_distinct END
                     + CASE WHEN s.null_frac > 0 THEN 1 ELSE 0 END, 1)) AS ln_distinct
    FROM col AS c
    LEFT JOIN known AS s
           ON s.schemaname = c.nspname AND s.tablename = c.tablename AND s.attname = c.attname
    LEFT JOIN sampled AS d
           ON d.schemaname = c.nspname AND d.tablename = c.tablename AND d.attname = c.attname
          AND c.table_tuples IS NOT NULL),
placed AS (
  SELECT w.oid, w.bytes,
         count(*) FILTER (WHERE w.alignment = 8) OVER before AS eight,
         count(*) FILTER (WHERE w.alignment >= 4) OVER before AS four,
         count(*) FILTER (WHERE w.alignment >= 2) OVER before AS two,
         lead(w.attnum) OVER before IS NULL AS is_last
    FROM width AS w
  WINDOW before AS (PARTITION BY w.oid ORDER BY w.attnum)),
twos AS (
  SELECT p.oid, p.eight, p.four, bool_or(p.is_last) AS is_last,
         CASE WHEN bool_or(p.is_last) THEN sum(p.bytes) ELSE ceil(sum(p.bytes) / 2) * 2 END AS bytes
    FROM placed AS p GROUP BY p.oid, p.eight, p.four, p.two),
fours AS (
  SELECT p.oid, p.eight, bool_or(p.is_last) AS is_last,
         CASE WHEN bool_or(p.is_last) THEN sum(p.bytes) ELSE ceil(sum(p.bytes) / 4) * 4 END AS bytes
    FROM twos AS p GROUP BY p.oid, p.eight, p.four),
eights AS (
  SELECT p.oid,
         CASE WHEN bool_or(p.is_last) THEN sum(p.bytes) ELSE ceil(sum(p.bytes) / 8) * 8 END AS bytes
    FROM fours AS p GROUP BY p.oid, p.eight),
-- All columns rounded up, and where the last one ends.
aligned AS MATERIALIZED (
  SELECT p.oid, ceil(sum(p.bytes) / 8) * 8 AS bytes, sum(p.bytes) AS end_bytes
    FROM eights AS p GROUP BY p.oid),
shape AS MATERIALIZED (
  SELECT w.oid,
         count(*) AS attributes,
         bool_and(w.has_statistics) AS has_statistics,
         bool_or(w.atttypid = 'pg_catalog.name'::regtype) AS has_name,
         bool_and(w.equal_image) AS equal_image,
         bool_or(w.absent) AS has_absent,
         sum(w.bytes) AS bytes,
         sum(w.bytes * (1 - w.nulls)) AS expected_bytes,
         least(1, sum(w.nulls)) AS null_share,
         avg(w.nulls) AS null_mean,
         bool_and(w.alignment = 8) AS all_eight,
         sum(w.ln_distinct) AS ln_distinct,
         bool_or(w.varies) AS varies,
         bool_or(w.is_cut) AS is_cut,
         max(w.entry_bytes) AS entry_bytes,
         max(w.common_keys) AS common_keys,
         max(w.common_share) AS common_share
    FROM width AS w GROUP BY w.oid),
-- A row of a table: 23 bytes and the null bitmap, then the columns, all of it aligned.
row_of AS MATERIALIZED (
  SELECT s.oid, s.has_statistics, s.has_name,
         24 + (ceil((23 + ceil(s.attributes / 8.0)) / 8) * 8 - 24)
                * CASE WHEN s.has_absent THEN 1 ELSE s.null_share END
            + CASE WHEN s.null_share = 0 THEN a.bytes
                   ELSE s.expected_bytes + (a.bytes - s.bytes) * (1 - s.null_mean)
                        + CASE WHEN s.all_eight THEN 0 ELSE 3.5 END END AS bytes
    FROM shape AS s JOIN aligned AS a ON a.oid = s.oid),
-- An entry of an index: 8 bytes, 16 where a column is NULL, then the columns, aligned: exactly
-- where all are as wide as each other, else by 3.5 bytes more in the mean. Where avg_width alone is
-- known it was cut, and types end values at places of their own (arrays cost 5 in the mean): by 7.5.
-- A beginning between columns is aligned beside a NULL too, where its column is there. How many
-- rows of a partial index are NULL nobody knows (WHERE n IS NOT NULL: none): it has the wider entries.
entry AS MATERIALIZED (
  SELECT x.indexrelid AS oid, greatest(x.reltuples::float8, 0) AS reltuples,
         s.has_statistics, s.has_name, s.attributes,
         CASE WHEN s.attributes = 1 AND s.entry_bytes IS NOT NULL THEN s.entry_bytes
              WHEN s.varies THEN 8 + greatest(a.bytes + 3.5,
                                              CASE WHEN s.is_cut THEN a.end_bytes + 7.5 END)
              ELSE ceil((8 + a.bytes) / 8) * 8 END AS bytes,
         CASE WHEN x.is_partial THEN 0 ELSE s.null_share END AS null_share,
         x.is_partial,
         16 + CASE WHEN n.beside > 0
                   THEN n.beside + (a.end_bytes - s.bytes) * (1 - s.null_mean)
                        + CASE WHEN s.is_cut THEN 7.5 ELSE 3.5 END
                   ELSE 0 END AS null_bytes,
         x.may_deduplicate AND s.equal_image AS deduplicates,
         coalesce(s.common_keys, 0) AS common_keys,
         coalesce(s.common_share, 0) AS common_share,
         exp(least(s.ln_distinct, ln(greatest(x.reltuples::float8, 1)))) AS keys
    FROM idx AS x
    JOIN shape AS s ON s.oid = x.indexrelid
    JOIN aligned AS a ON a.oid = x.indexrelid
    JOIN LATERAL (SELECT greatest(0, s.expected_bytes - (1 - s.null_share) * s.bytes)
                         / nullif(s.null_share, 0) AS beside) AS n ON true),
-- Rows that are alike: of one column NULL, the most common values and the rest, of several all.
-- Of a rest beside a very common value n_distinct is told much too low: it counts as unshared.
part AS MATERIALIZED (
  SELECT e.oid, e.deduplicates AND NOT (p.is_rest AND e.common_share > 0.25 AND p.rows < 3 * p.keys)
             AS deduplicates,
         p.bytes, p.rows, greatest(p.rows / greatest(p.keys, 1), 1) AS per_key
    FROM entry AS e
   CROSS JOIN LATERAL (
         VALUES (e.attributes = 1, false, 16, e.reltuples * e.null_share, 1),
                (e.attributes = 1, false, e.bytes, e.reltuples * e.common_share, e.common_keys),
                (e.attributes = 1, true, e.bytes,
                 e.reltuples * greatest(0, 1 - e.null_share - e.common_share),
                 e.keys - e.common_keys - CASE WHEN e.null_share > 0 THEN 1 ELSE 0 END),
                (e.attributes > 1, false,
                 CASE WHEN e.is_partial THEN greatest(e.bytes, e.null_bytes)
                      ELSE (1 - e.null_share) * e.bytes + e.null_share * e.null_bytes END,
                 e.reltuples, e.keys)) AS p (counts, is_rest, bytes, rows, keys)
   WHERE p.counts AND p.rows > 0),
-- Equal keys share an entry with a list of 6 bytes a row, at most a tenth of a page long.
item AS MATERIALIZED (
  SELECT p.oid, p.rows,
         CASE WHEN NOT l.shared THEN p.bytes + 4
              WHEN p.per_key > m.most THEN floor(b.bytes / 80) * 8 + 4
              ELSE l.bytes END AS item_bytes,
         CASE WHEN NOT l.shared THEN 1 ELSE least(p.per_key, m.most) END AS item_rows
    FROM part AS p
   CROSS JOIN block AS b
    JOIN LATERAL (SELECT greatest(floor((b.bytes / 10 - 4 - p.bytes) / 6), 1) AS most) AS m ON true
    JOIN LATERAL (SELECT ceil((p.bytes + 6 * p.per_key) / 8) * 8 + 4 AS bytes,
                         p.deduplicates
                           AND ceil((p.bytes + 6 * p.per_key) / 8) * 8 + 4
                               < p.per_key * (p.bytes + 4) AS shared) AS l ON true),
leaves AS MATERIALIZED (
  SELECT i.oid,
         ceil(sum(i.rows / (i.item_rows * greatest(1, floor(u.usable / i.item_bytes))))) AS pages
    FROM item AS i
    JOIN rel AS r ON r.oid = i.oid
   CROSS JOIN block AS b
    JOIN LATERAL (SELECT b.bytes - 40 - floor(b.bytes * (100 - coalesce(r.own_fillfactor, 90)) / 100)
                         AS usable) AS u ON true
   GROUP BY i.oid),
table_pages AS (
  SELECT r.oid,
         ceil(t.reltuples::float8
              / greatest(1, floor((b.bytes - 24 - floor(b.bytes * (100 - coalesce(t.own_fillfactor, 100)) / 100))
                                  / (r.bytes + 4)))) AS pages
    FROM row_of AS r
    JOIN rel AS t ON t.oid = r.oid
   CROSS JOIN block AS b
   WHERE r.has_statistics AND NOT r.has_name AND t.relkind <> 'i'),
index_pages AS (
  SELECT e.oid,
         1 + greatest(1, coalesce(l.pages, 0))
           + ceil(coalesce(l.pages, 0) * (e.bytes + 4) / (b.bytes * 0.7)) AS pages
    FROM entry AS e
    LEFT JOIN leaves AS l ON l.oid = e.oid
   CROSS JOIN block AS b
   WHERE e.has_statistics AND NOT e.has_name),
told AS (
  SELECT r.oid, coalesce(m.oid, t.oid, x.indrelid) AS tablerelid, p.pages,
         CASE WHEN r.reltuples < 0 THEN 'never_analyzed'
              WHEN r.relpages = 0 THEN ''
              WHEN r.relkind = 't' THEN 'toast'
              WHEN NOT coalesce(m.readable, y.readable) THEN 'unreadable'
              WHEN w.has_name THEN 'name_column'
              WHEN NOT coalesce(w.has_statistics, false) THEN 'no_statistics'
              ELSE '' END AS not_estimated
    FROM rel AS r
    LEFT JOIN main AS m ON m.oid = r.oid
    LEFT JOIN main AS t ON t.reltoastrelid = r.oid AND r.relkind = 't'
    LEFT JOIN idx AS x ON x.indexrelid = r.oid
    LEFT JOIN main AS y ON y.oid = x.indrelid
    LEFT JOIN shape AS w ON w.oid = r.oid
    LEFT JOIN (SELECT e.oid, e.pages FROM table_pages AS e
                UNION ALL
               SELECT e.oid, e.pages FROM index_pages AS e) AS p ON p.oid = r.oid)
SELECT r.oid::bigint AS relid,
       CASE WHEN r.relpages > 0 OR r.reltuples >= 0 THEN r.relpages * b.bytes
            WHEN r.oid NOT IN (SELECT k.oid FROM locked AS k) THEN pg_catalog.pg_relation_size(r.oid)
        END::bigint AS relpages_bytes,
       r.reltuples::float8 AS reltuples,
       CASE WHEN d.not_estimated <> '' THEN NULL
            WHEN r.relpages = 0 THEN 0
            ELSE greatest(0, r.relpages - d.pages) * b.bytes END::bigint AS estimate_bytes,
       m.stats_at,
       m.vacuumed_at,
       r.relfilenode::bigint AS relfilenode,
       m.nspname::text AS schemaname,
       m.relname::text AS relname,
       CASE WHEN r.relkind = 'i' THEN r.relname::text END AS indexrelname,
       r.relkind::text AS relkind,
       m.oid::bigint AS tablerelid,
       coalesce(r.own_fillfactor, CASE WHEN r.relkind = 'i' THEN 90 ELSE 100 END)::int AS fillfactor,
       d.not_estimated
  FROM told AS d
  JOIN rel AS r ON r.oid = d.oid
  JOIN main AS m ON m.oid = d.tablerelid
 CROSS JOIN block AS b
"""

# What a measurement would read: pages that are not all-visible of a table and its free
# space map, all of an index. Sizes are asked only of those few, since relpages may be old,
# and not of what somebody holds ACCESS EXCLUSIVE: they would wait for VACUUM FULL.
PICK_SQL = """
WITH locked AS MATERIALIZED (
  SELECT l.relation AS oid
    FROM pg_catalog.pg_locks AS l
   WHERE l.locktype = 'relation'
     AND l.mode = 'AccessExclusiveLock'
     AND l.relation IS NOT NULL
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                        WHERE d.datname = pg_catalog.current_database())),
free AS MATERIALIZED (  -- apart, since 19 may join the locks after it has asked for sizes
  SELECT c.oid, c.relkind, c.relallvisible, w.place
    FROM unnest(%(keys)s::oid[]) WITH ORDINALITY AS w (oid, place)
    JOIN pg_catalog.pg_class AS c ON c.oid = w.oid
   WHERE c.oid NOT IN (SELECT k.oid FROM locked AS k))
SELECT f.oid::bigint AS relid,
       f.relkind::text AS relkind,
       CASE WHEN f.relkind = 'i' THEN s.pages
            ELSE greatest(s.pages - f.relallvisible, 0) + s.pages / 50 + 1
        END::bigint AS pages
  FROM free AS f
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_relation_size(f.oid)
                            / pg_catalog.current_setting('block_size')::bigint AS pages) AS s
 ORDER BY f.place
"""

HEAP_SQL = """
SELECT h.table_len AS size,
       h.dead_tuple_len AS dead,
       h.approx_free_space AS free,
       h.approx_tuple_count AS rows
  FROM {schema}.pgstattuple_approx(%(key)s::oid::regclass) AS h
"""

BTREE_SQL = """
SELECT i.index_size AS size,
       i.leaf_pages,
       i.avg_leaf_density AS density,
       i.empty_pages AS empty,
       i.deleted_pages AS deleted
  FROM {schema}.pgstatindex(%(key)s::oid::regclass) AS i
"""

PROBE = Probe(
    name="bloat",
    sample=BloatSample,
    sql={14: SQL_14},
    every=timedelta(hours=1),
    per_database=True,
    statement_timeout_ms=15_000,
    nested_loops=False,
    measuring=Measuring(
        extension="pgstattuple",
        pick_sql=PICK_SQL,
        sql={"r": HEAP_SQL, "m": HEAP_SQL, "t": HEAP_SQL, "i": BTREE_SQL},
    ),
)
