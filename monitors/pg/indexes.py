"""Indexes as actions see them: their sizes, what a rebuild left behind, whom it waits for.

Source: https://www.postgresql.org/docs/current/sql-reindex.html#SQL-REINDEX-CONCURRENTLY
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from monitors.pg import backends

# The relation, its partitions where it has some, and the TOAST tables of them all;
# nothing here takes a lock.
TREE = """
WITH RECURSIVE tree AS (
  SELECT c.oid AS relid,
         c.relkind
    FROM pg_catalog.pg_class AS c
   WHERE c.oid = %(relid)s::oid
  UNION ALL
  SELECT c.oid,
         c.relkind
    FROM tree
    JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.relid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
   WHERE tree.relkind IN ('p', 'I')),
chosen AS (
  SELECT i.indexrelid,
         i.indrelid
    FROM pg_catalog.pg_index AS i
    JOIN tree ON i.indexrelid = tree.relid OR i.indrelid = tree.relid),
homes AS (
  SELECT indrelid AS relid FROM chosen
  UNION
  SELECT c.reltoastrelid
    FROM chosen
    JOIN pg_catalog.pg_class AS c ON c.oid = chosen.indrelid
   WHERE c.reltoastrelid <> 0)
"""

SIZE_SQL = (
    TREE
    + """
SELECT count(*) AS indexes,
       coalesce(sum(pg_catalog.pg_relation_size(indexrelid)), 0)::bigint AS index_bytes
  FROM chosen
"""
)

# A build in progress shows itself in the progress view and, for as long as it
# lasts, by its lock on the index.
COLUMNS = """
SELECT i.indexrelid::bigint AS indexrelid,
       n.nspname::text AS schemaname,
       c.relname::text AS relname,
       i.indrelid::bigint AS indrelid,
       i.indisvalid AS valid,
       c.relname ~ '_cc(new|old)[0-9]*$' AS transient,
       EXISTS (SELECT 1
                 FROM pg_catalog.pg_stat_progress_create_index AS p
                WHERE p.datname = pg_catalog.current_database()
                  AND (p.index_relid = i.indexrelid OR p.relid = i.indrelid))
       OR EXISTS (SELECT 1
                    FROM pg_catalog.pg_locks AS l
                   WHERE l.locktype = 'relation'
                     AND l.relation = i.indexrelid
                     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                                        WHERE d.datname = pg_catalog.current_database())
                     AND l.mode = 'ShareUpdateExclusiveLock'
                     AND l.pid <> pg_catalog.pg_backend_pid()) AS building,
       EXISTS (SELECT 1 FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid)
           AS constrains,
       i.indpred IS NOT NULL AS partial,
       coalesce(pg_catalog.pg_index_has_property(i.indexrelid, 'clusterable'), false)
           AS clusterable
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""

INVALID_SQL = (
    TREE  # noqa: S608 - texts of ours
    + COLUMNS
    + """
 WHERE NOT i.indisvalid
   AND c.relkind = 'i'
   AND i.indrelid IN (SELECT relid FROM homes)
 ORDER BY c.relname
"""
)

TABLE_SQL = """
SELECT coalesce((SELECT i.indrelid::bigint
                   FROM pg_catalog.pg_index AS i
                  WHERE i.indexrelid = %(relid)s::oid), %(relid)s)
"""

INDEX_SQL = (
    COLUMNS
    + """
 WHERE i.indexrelid = %(indexrelid)s::oid
   AND c.relkind = 'i'
"""
)

OF_TABLE_SQL = (
    COLUMNS
    + """
 WHERE i.indrelid = %(relid)s::oid
   AND c.relname = %(relname)s
"""
)

CLUSTERED_SQL = (
    COLUMNS
    + """
 WHERE i.indrelid = %(relid)s::oid
   AND i.indisclustered
"""
)

NAMED_SQL = """
SELECT c.oid::bigint
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schemaname)s
   AND c.relname = %(relname)s
   AND c.relkind IN ('i', 'I')
"""

# Whose snapshots a concurrent build waits for: all of this database but lazy vacuums.
WAITED_SQL = """
SELECT a.pid
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.datname = pg_catalog.current_database()
   AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND NOT EXISTS (SELECT 1
                     FROM pg_catalog.pg_stat_progress_vacuum AS v
                    WHERE v.pid = a.pid)
"""


@dataclass(frozen=True)
class Index:
    """One index at one moment."""

    indexrelid: int
    schemaname: str
    relname: str
    indrelid: int
    valid: bool
    transient: bool  # named as REINDEX CONCURRENTLY names what it works on
    building: bool  # somebody works on it now
    constrains: bool
    partial: bool
    clusterable: bool  # whether its access method has an order

    @property
    def leftover(self) -> bool:
        """Whether a rebuild that failed left it and nobody uses or needs it."""
        return not self.valid and self.transient and not self.building and not self.constrains


def size(connection: psycopg.Connection, relid: int) -> tuple[int, int | None]:
    """Return how many indexes an index or table has, partitions too, and their bytes.

    Bytes are None where one stays locked longer than the session's lock_timeout.
    """
    try:
        row = connection.execute(SIZE_SQL, {"relid": relid}).fetchone()
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
        return 1, None
    return (row[0], row[1]) if row else (0, None)


def oid_of(connection: psycopg.Connection, schemaname: str, relname: str) -> int | None:
    """Return the oid of the index that has a name now, None where none has."""
    values = {"schemaname": schemaname, "relname": relname}
    row = connection.execute(NAMED_SQL, values).fetchone()
    return int(row[0]) if row else None


def invalid(connection: psycopg.Connection, relid: int) -> list[Index]:
    """Return the invalid indexes of a table, or of an index's table, with TOAST and partitions."""
    with connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(INVALID_SQL, {"relid": relid}).fetchall()


def table_of(connection: psycopg.Connection, relid: int) -> int:
    """Return the oid of an index's table; of anything else its own."""
    row = connection.execute(TABLE_SQL, {"relid": relid}).fetchone()
    return int(row[0]) if row else relid


def find(connection: psycopg.Connection, indexrelid: int) -> Index | None:
    """Return an index by oid, None where there is none (any more)."""
    with connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(INDEX_SQL, {"indexrelid": indexrelid}).fetchone()


def of_table(connection: psycopg.Connection, relid: int, relname: str) -> Index | None:
    """Return a table's index by name, None where it has none of that name."""
    with connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(OF_TABLE_SQL, {"relid": relid, "relname": relname}).fetchone()


def clustered(connection: psycopg.Connection, relid: int) -> Index | None:
    """Return the index by which a table was clustered last, None for none."""
    with connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(CLUSTERED_SQL, {"relid": relid}).fetchone()


def leftovers(connection: psycopg.Connection, relid: int, known: Iterable[int] = ()) -> list[Index]:
    """Return what failed rebuilds left that is not known already."""
    kept = set(known)
    return [
        index
        for index in invalid(connection, relid)
        if index.leftover and index.indexrelid not in kept
    ]


def drop(schemaname: str, relname: str) -> sql.Composed:
    """Return the statement that drops an index while the table is used."""
    return sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(schemaname, relname))


def waited_for(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return the transactions that a concurrent build would wait for, described, oldest first."""
    pids = [pid for (pid,) in connection.execute(WAITED_SQL)]
    return backends.describe(connection, pids) if pids else []
