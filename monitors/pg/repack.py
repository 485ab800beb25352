"""What REPACK (CONCURRENTLY) asks of a table and its server, and for whom it waits; 19 and newer.

Source: https://www.postgresql.org/docs/19/sql-repack.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

from monitors.pg.relations import Relation
from monitors.pg.text import decoded, redact

# Postmaster's own children and clients take no slot of a background worker.
STATE_SQL = """
SELECT c.relreplident::text AS replica_identity,
       EXISTS (SELECT FROM pg_catalog.pg_index AS i
                WHERE i.indrelid = c.oid
                  AND i.indisvalid
                  AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                          WHEN 'i' THEN i.indisreplident
                                          ELSE false END) AS has_identity,
       EXISTS (SELECT FROM pg_catalog.pg_index AS i
                WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate)
           AS deferrable,
       pg_catalog.current_setting('wal_level') AS wal_level,
       pg_catalog.current_setting('max_repack_replication_slots')::int AS slots,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots AS s
         WHERE s.plugin = 'pgrepack')::int AS used_slots,
       pg_catalog.current_setting('max_worker_processes')::int AS workers,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity AS a
         WHERE a.backend_type NOT IN
               ('client backend', 'walsender', 'autovacuum launcher', 'autovacuum worker',
                'checkpointer', 'background writer', 'walwriter', 'walreceiver', 'startup',
                'archiver', 'logger', 'walsummarizer', 'slotsync worker', 'io worker',
                'standalone backend'))::int AS used_workers
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = %(relid)s::oid
"""

MAY_SQL = """
SELECT pg_catalog.has_table_privilege(%(relid)s::oid, 'MAINTAIN')
"""

# Its decoding begins once every transaction of the server that has an id then is over.
# An autovacuum gives its id back at once.
WRITERS_SQL = """
SELECT a.pid,
       coalesce(a.usename::text, '') AS usename,
       coalesce(a.application_name, '') AS application_name,
       pg_catalog.textsend(coalesce(a.query, '')) AS query,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS seconds
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.backend_xid IS NOT NULL
   AND a.pid <> pg_catalog.pg_backend_pid()
 ORDER BY a.xact_start
"""

PREPARED_SQL = """
SELECT p.gid, p.database::text AS database
  FROM pg_catalog.pg_prepared_xacts AS p
 ORDER BY p.prepared
"""

# Who has a snapshot and no lock on the table has not read it: after the swap it finds none of
# its rows. A snapshot that a statement alone has ends with it, usually before the swap.
SNAPSHOTS_SQL = """
SELECT a.pid,
       coalesce(a.usename::text, '') AS usename,
       coalesce(a.application_name, '') AS application_name,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS seconds
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.datname = pg_catalog.current_database()
   AND a.backend_xmin IS NOT NULL
   AND a.backend_type = 'client backend'
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks AS l
                    WHERE l.pid = a.pid
                      AND l.locktype = 'relation'
                      AND l.relation = %(relid)s::oid)
 ORDER BY a.xact_start
"""

NO_INDEX = {"f": "FULL", "n": "NOTHING"}
"""A replica identity that is no index, by its letter in pg_class."""


@dataclass(frozen=True)
class State:
    """What the server looks at before it begins."""

    replica_identity: str
    has_identity: bool
    deferrable: bool
    wal_level: str
    slots: int
    used_slots: int
    workers: int
    used_workers: int


def may_maintain(connection: psycopg.Connection, relid: int) -> bool:
    """Tell whether the login has the right MAINTAIN on a table."""
    row = connection.execute(MAY_SQL, {"relid": relid}).fetchone()
    return bool(row and row[0])


def reason_not_concurrently(connection: psycopg.Connection, relation: Relation) -> str:
    """Return why the server would refuse it with CONCURRENTLY, and what helps; '' where not."""
    if relation.relkind == "p":
        return f"{relation.name} is partitioned: repack its partitions one by one."
    if relation.relkind != "r" or relation.relpersistence != "p":
        return (
            f"{relation.name} can't be repacked concurrently: it is not an ordinary logged table."
        )
    with connection.cursor(row_factory=class_row(State)) as cursor:
        state = cursor.execute(STATE_SQL, {"relid": relation.relid}).fetchone()
    if state is None:
        return ""
    return reason_of_table(relation.name, state) or reason_of_server(state)


def reason_of_table(name: str, state: State) -> str:
    """Return why changes that are made meanwhile can't be found again by an index."""
    if state.has_identity:
        return ""
    if state.replica_identity in NO_INDEX:
        what = NO_INDEX[state.replica_identity]
        return f"{name} has REPLICA IDENTITY {what}: it needs an index instead."
    if state.deferrable and state.replica_identity == "d":
        return (
            f"The primary key of {name} is deferrable: name another unique index with"
            " ALTER TABLE … REPLICA IDENTITY USING INDEX."
        )
    return (
        f"{name} has no primary key and no replica identity index, by which changes that"
        " are made meanwhile are found again."
    )


def reason_of_server(state: State) -> str:
    """Return what the server lacks for it now, '' where nothing."""
    if state.wal_level == "minimal":
        return "wal_level is minimal: set it to replica and restart the server."
    if state.slots == 0:
        return "max_repack_replication_slots is 0: raise it and restart the server."
    if state.used_slots >= state.slots:
        return f"All {state.slots} max_repack_replication_slots are in use: wait for one."
    if state.used_workers >= state.workers:
        return f"All {state.workers} background workers (max_worker_processes) are in use."
    return ""


def writers(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return the transactions of the server that have written, described, oldest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(WRITERS_SQL).fetchall()
    return [{**one, "query": redact(decoded(one["query"]))[:500]} for one in found]


def prepared(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """Return (name, database) of prepared transactions, oldest first."""
    return connection.execute(PREPARED_SQL).fetchall()


def blind(connection: psycopg.Connection, relid: int) -> list[dict[str, Any]]:
    """Return who would see the table empty after the swap: pid, usename, application_name, seconds."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(SNAPSHOTS_SQL, {"relid": relid}).fetchall()
