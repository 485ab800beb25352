"""What autovacuum takes beside the tables: system catalogs, and empty TOAST tables that are old.

They are in its queue and nowhere else: nobody vacuums them by hand, and there are many.

Source: https://www.postgresql.org/docs/current/catalog-pg-class.html
"""

from __future__ import annotations

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models

from monitors.probe import Probe, Sample


class CatalogsSample(Sample):
    """One system catalog, its TOAST table, or an empty TOAST table that may be due for its age."""

    relid = models.BigIntegerField()
    n_dead_tup = models.BigIntegerField()
    n_mod_since_analyze = models.BigIntegerField()
    n_ins_since_vacuum = models.BigIntegerField()
    relpages = models.BigIntegerField()
    reltuples = models.FloatField()  # -1: never vacuumed or analyzed
    relallfrozen = models.BigIntegerField()  # 18+
    relfrozenxid = models.BigIntegerField()  # 32 bit
    relminmxid = models.BigIntegerField()  # 32 bit
    schemaname = models.TextField()
    relname = models.TextField()
    relkind = models.CharField(max_length=1)
    toastrelid = models.BigIntegerField()  # 0: none
    reloptions = ArrayField(models.TextField())
    pg_class_ctid = models.CharField(max_length=20)  # "(12,3)"

    key = ("relid",)
    gauges = (
        "n_dead_tup",
        "n_mod_since_analyze",
        "n_ins_since_vacuum",
        "relpages",
        "reltuples",
        "relallfrozen",
    )
    facts = ("relfrozenxid", "relminmxid")
    labels = ("schemaname", "relname", "relkind", "toastrelid", "reloptions", "pg_class_ctid")
    unreplicated = ("n_dead_tup", "n_mod_since_analyze", "n_ins_since_vacuum")

    class Meta:
        abstract = True


# All that `tables` leaves out. An empty TOAST table can be due for its age alone.
SQL_14 = """
SELECT c.oid AS relid,
       pg_catalog.pg_stat_get_dead_tuples(c.oid) AS n_dead_tup,
       pg_catalog.pg_stat_get_mod_since_analyze(c.oid) AS n_mod_since_analyze,
       pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) AS n_ins_since_vacuum,
       c.relpages,
       c.reltuples,
       c.relfrozenxid::text::bigint AS relfrozenxid,
       c.relminmxid::text::bigint AS relminmxid,
       n.nspname AS schemaname,
       c.relname,
       c.relkind,
       c.reltoastrelid AS toastrelid,
       c.reloptions,
       c.ctid::text AS pg_class_ctid
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class AS m ON m.reltoastrelid = c.oid AND m.reloptions IS NOT NULL
 WHERE c.relkind IN ('r', 't', 'm')
   AND c.relpersistence <> 't'
   AND (c.oid < 16384
        OR n.nspname IN ('pg_catalog', 'information_schema')
        OR (c.relkind = 't' AND c.relpages = 0 AND pg_catalog.pg_stat_get_tuples_inserted(c.oid) = 0
            AND (pg_catalog.age(c.relfrozenxid)
                     > pg_catalog.current_setting('autovacuum_freeze_max_age')::bigint / 2
                 OR pg_catalog.mxid_age(c.relminmxid)
                     > pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::bigint / 2
                 OR coalesce(c.reloptions, m.reloptions)::text LIKE '%%freeze_max_age%%')))
"""

SQL_18 = """
SELECT c.oid AS relid,
       pg_catalog.pg_stat_get_dead_tuples(c.oid) AS n_dead_tup,
       pg_catalog.pg_stat_get_mod_since_analyze(c.oid) AS n_mod_since_analyze,
       pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) AS n_ins_since_vacuum,
       c.relpages,
       c.reltuples,
       c.relallfrozen,
       c.relfrozenxid::text::bigint AS relfrozenxid,
       c.relminmxid::text::bigint AS relminmxid,
       n.nspname AS schemaname,
       c.relname,
       c.relkind,
       c.reltoastrelid AS toastrelid,
       c.reloptions,
       c.ctid::text AS pg_class_ctid
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class AS m ON m.reltoastrelid = c.oid AND m.reloptions IS NOT NULL
 WHERE c.relkind IN ('r', 't', 'm')
   AND c.relpersistence <> 't'
   AND (c.oid < 16384
        OR n.nspname IN ('pg_catalog', 'information_schema')
        OR (c.relkind = 't' AND c.relpages = 0 AND pg_catalog.pg_stat_get_tuples_inserted(c.oid) = 0
            AND (pg_catalog.age(c.relfrozenxid)
                     > pg_catalog.current_setting('autovacuum_freeze_max_age')::bigint / 2
                 OR pg_catalog.mxid_age(c.relminmxid)
                     > pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::bigint / 2
                 OR coalesce(c.reloptions, m.reloptions)::text LIKE '%%freeze_max_age%%')))
"""

PROBE = Probe(
    name="catalogs",
    sample=CatalogsSample,
    sql={14: SQL_14, 18: SQL_18},
    every=timedelta(minutes=5),
    per_database=True,
    rollups=False,
)
