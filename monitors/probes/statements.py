"""What each normalised statement cost, from pg_stat_statements.

Counters are read without texts; a text is read when its statement is seen for
the first time, and its literals are replaced before it is kept.

Source: https://www.postgresql.org/docs/current/pgstatstatements.html
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class StatementsSample(Sample):
    """One statement of one role in one database, at top level or nested in a function."""

    queryid = models.BigIntegerField()
    userid = models.BigIntegerField()
    dbid = models.BigIntegerField()
    toplevel = models.BooleanField()
    calls = models.BigIntegerField()
    total_exec_time = models.FloatField()  # ms
    rows = models.BigIntegerField()
    shared_blks_hit = models.BigIntegerField()
    shared_blks_read = models.BigIntegerField()
    shared_blks_dirtied = models.BigIntegerField()
    temp_blks_read = models.BigIntegerField()
    temp_blks_written = models.BigIntegerField()
    blk_read_time = models.FloatField()  # ms, of shared blocks
    wal_bytes = models.BigIntegerField()
    stats_since = models.DateTimeField()  # 17+ (extension 1.11)
    usename = models.TextField()
    datname = models.TextField()
    query_hash = models.CharField(max_length=32)  # of the text as it is kept
    query = models.TextField()

    key = ("queryid", "userid", "dbid", "toplevel")
    counters = (
        "calls",
        "total_exec_time",
        "rows",
        "shared_blks_hit",
        "shared_blks_read",
        "shared_blks_dirtied",
        "temp_blks_read",
        "temp_blks_written",
        "blk_read_time",
        "wal_bytes",
    )
    facts = ("stats_since",)
    labels = ("usename", "datname", "query_hash", "query")
    redacted = ("query",)
    refined = ("usename", "datname", "query", "query_hash")
    counts_since = "stats_since"

    class Meta:
        abstract = True


SQL_1_9 = """
SELECT s.queryid,
       s.userid,
       s.dbid,
       s.toplevel,
       s.calls,
       s.total_exec_time,
       s.rows,
       s.shared_blks_hit,
       s.shared_blks_read,
       s.shared_blks_dirtied,
       s.temp_blks_read,
       s.temp_blks_written,
       s.blk_read_time,
       s.wal_bytes::bigint AS wal_bytes
  FROM {schema}.pg_stat_statements(false) AS s
 WHERE s.queryid IS NOT NULL
"""

SQL_1_11 = """
SELECT s.queryid,
       s.userid,
       s.dbid,
       s.toplevel,
       s.calls,
       s.total_exec_time,
       s.rows,
       s.shared_blks_hit,
       s.shared_blks_read,
       s.shared_blks_dirtied,
       s.temp_blks_read,
       s.temp_blks_written,
       s.shared_blk_read_time AS blk_read_time,
       s.wal_bytes::bigint AS wal_bytes,
       s.stats_since
  FROM {schema}.pg_stat_statements(false) AS s
 WHERE s.queryid IS NOT NULL
"""

RESET_SQL = """
SELECT i.stats_reset, i.dealloc
  FROM {schema}.pg_stat_statements_info AS i
"""

TEXTS_SQL = """
SELECT s.queryid,
       s.userid,
       s.dbid,
       s.toplevel,
       pg_catalog.pg_get_userbyid(s.userid)::text AS usename,
       coalesce((SELECT d.datname::text FROM pg_catalog.pg_database AS d WHERE d.oid = s.dbid), '')
           AS datname,
       s.query,
       NULL::text AS query_hash
  FROM {schema}.pg_stat_statements(true) AS s
 WHERE s.queryid = ANY (%(keys)s)
   AND s.query IS NOT NULL
"""

# The function gives out all texts or none: one that the database's encoding can't hold costs
# them all. In a database without an encoding every text passes. The hash stays unknown, so
# that the text is asked for again.
UNREAD_SQL = """
SELECT s.queryid,
       s.userid,
       s.dbid,
       s.toplevel,
       pg_catalog.pg_get_userbyid(s.userid)::text AS usename,
       coalesce((SELECT d.datname::text FROM pg_catalog.pg_database AS d WHERE d.oid = s.dbid), '')
           AS datname,
       '/* not shown: PostgreSQL gives out no text in '
       || pg_catalog.quote_ident(pg_catalog.current_database())
       || ' while one of them holds what its encoding can''t; CREATE EXTENSION pg_stat_statements in '
       || coalesce((SELECT pg_catalog.string_agg(pg_catalog.quote_ident(d.datname), ' or ')
                      FROM pg_catalog.pg_database AS d
                     WHERE pg_catalog.pg_encoding_to_char(d.encoding) = 'SQL_ASCII'
                       AND d.datallowconn), 'a database whose encoding is SQL_ASCII')
       || ' makes all readable */' AS query,
       NULL::text AS query_hash
  FROM {schema}.pg_stat_statements(false) AS s
 WHERE s.queryid = ANY (%(keys)s)
"""

PROBE = Probe(
    name="statements",
    sample=StatementsSample,
    sql={109: SQL_1_9, 111: SQL_1_11},
    every=timedelta(seconds=60),
    extension="pg_stat_statements",
    reset_sql=RESET_SQL,
    reset_is_whole=True,
    evicts=True,
    refine_sql=TEXTS_SQL,
    unread_sql=UNREAD_SQL,
    refine_at_once=5000,
    needs="CREATE EXTENSION pg_stat_statements;",
)
