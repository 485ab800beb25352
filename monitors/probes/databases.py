"""Each database's counters, age and limits, with the server's next transaction id.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Sample


class DatabasesSample(Sample):
    """One database; templates, those that take no connections and invalid ones too: they all have an age."""

    datid = models.BigIntegerField()
    numbackends = models.IntegerField()
    xact_commit = models.BigIntegerField()
    xact_rollback = models.BigIntegerField()
    blks_read = models.BigIntegerField()
    blks_hit = models.BigIntegerField()
    tup_returned = models.BigIntegerField()
    tup_fetched = models.BigIntegerField()
    tup_inserted = models.BigIntegerField()
    tup_updated = models.BigIntegerField()
    tup_deleted = models.BigIntegerField()
    conflicts = models.BigIntegerField()
    temp_files = models.BigIntegerField()
    temp_bytes = models.BigIntegerField()
    deadlocks = models.BigIntegerField()
    session_time = models.FloatField()  # ms
    active_time = models.FloatField()  # ms
    idle_in_transaction_time = models.FloatField()  # ms
    sessions = models.BigIntegerField()
    sessions_abandoned = models.BigIntegerField()  # the client was lost
    sessions_fatal = models.BigIntegerField()  # a fatal error
    sessions_killed = models.BigIntegerField()  # somebody terminated it
    next_xid = models.BigIntegerField()  # 64 bit, of the server
    xid_age = models.BigIntegerField()  # age(datfrozenxid)
    mxid_age = models.BigIntegerField()  # mxid_age(datminmxid)
    next_mxid = models.BigIntegerField()  # 32 bit, of the server: it wraps
    stats_reset = models.DateTimeField()
    datname = models.TextField()
    encoding = models.TextField()
    datistemplate = models.BooleanField()
    datallowconn = models.BooleanField()
    datconnlimit = models.IntegerField()  # -1: none, -2: an interrupted DROP DATABASE left it

    key = ("datid",)
    counters = (
        "xact_commit",
        "xact_rollback",
        "blks_read",
        "blks_hit",
        "tup_returned",
        "tup_fetched",
        "tup_inserted",
        "tup_updated",
        "tup_deleted",
        "conflicts",
        "temp_files",
        "temp_bytes",
        "deadlocks",
        "session_time",
        "active_time",
        "idle_in_transaction_time",
        "sessions",
        "sessions_abandoned",
        "sessions_fatal",
        "sessions_killed",
    )
    gauges = ("numbackends", "next_xid", "xid_age", "mxid_age", "next_mxid")
    facts = ("stats_reset",)
    labels = ("datname", "encoding", "datistemplate", "datallowconn", "datconnlimit")
    added = ("sessions_abandoned", "sessions_fatal", "sessions_killed")
    reset_fact = "stats_reset"

    class Meta:
        abstract = True


# pg_current_snapshot() says the next transaction id without consuming one. No function says the
# next multixact id of this moment, but an age is counted from it.
SQL_14 = """
SELECT d.oid::bigint AS datid,
       s.numbackends,
       s.xact_commit,
       s.xact_rollback,
       s.blks_read,
       s.blks_hit,
       s.tup_returned,
       s.tup_fetched,
       s.tup_inserted,
       s.tup_updated,
       s.tup_deleted,
       s.conflicts,
       s.temp_files,
       s.temp_bytes,
       s.deadlocks,
       s.session_time,
       s.active_time,
       s.idle_in_transaction_time,
       s.sessions,
       s.sessions_abandoned,
       s.sessions_fatal,
       s.sessions_killed,
       pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint AS next_xid,
       pg_catalog.age(d.datfrozenxid)::bigint AS xid_age,
       pg_catalog.mxid_age(d.datminmxid)::bigint AS mxid_age,
       pg_catalog.mod(d.datminmxid::text::bigint + pg_catalog.mxid_age(d.datminmxid), 4294967296)
           AS next_mxid,
       s.stats_reset,
       d.datname::text AS datname,
       pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
       d.datistemplate,
       d.datallowconn,
       d.datconnlimit
  FROM pg_catalog.pg_database AS d
  JOIN pg_catalog.pg_stat_database AS s ON s.datid = d.oid
"""

PROBE = Probe(
    name="databases",
    sample=DatabasesSample,
    sql={14: SQL_14},
    every=timedelta(seconds=60),
)
