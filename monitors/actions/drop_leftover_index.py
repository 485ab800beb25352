"""Drop an invalid index that a concurrent rebuild left behind when it failed.

Source: https://www.postgresql.org/docs/current/sql-reindex.html#SQL-REINDEX-CONCURRENTLY
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import table_action, words
from monitors.action import (
    Action,
    Arguments,
    Changed,
    Guarded,
    Identity,
    InvalidArguments,
    Measured,
    Refused,
)
from monitors.pg import indexes, relations

LOCK = "ShareUpdateExclusiveLock"


def rule(arguments: Arguments) -> None:
    """Raise InvalidArguments unless one index is named in one way."""
    if ("index" in arguments) == ("indexrelid" in arguments):
        message = "Give either index (public.orders_pkey_ccnew) or indexrelid, its oid."
        raise InvalidArguments(message)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed or Refused unless it is an invalid leftover that nobody builds now."""
    relation = table_action.same_table(connection, identity, relations.INDEXES)
    index = indexes.find(connection, relation.relid)
    if index is None:
        message = f"{relation.name} is a partitioned index: choose that of one partition."
        raise Refused(message)
    if index.valid:
        message = f"{relation.name} is valid, queries use it: it is left alone."
        raise Refused(message)
    if index.building:
        message = f"{relation.name} is being built now: it is left alone."
        raise Refused(message)
    if not index.leftover:
        message = (
            f"{relation.name} is invalid, but no rebuild left it (its name would end in _ccnew or"
            " _ccold), or a constraint needs it: reindex it instead."
        )
        raise Refused(message)
    table = relations.by_oid(connection, index.indrelid)
    if table is None:
        message = "Its table is gone. Nothing was sent."
        raise Changed(message)
    size = indexes.size(connection, relation.relid)[1]
    facts = [("Index", relation.name), ("Table", table.name), ("Database", relation.database)]
    if size is not None:
        facts.append(("Size", words.size(size)))
    return Guarded(
        facts=facts,
        conflicts=relations.holders(connection, index.indrelid, LOCK),
        warnings=table_action.autovacuum_warnings(connection, index.indrelid),
    )


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return DROP INDEX CONCURRENTLY."""
    return indexes.drop(identity["schemaname"], identity["relname"])


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return index_bytes, 0 once it is gone."""
    return {"index_bytes": indexes.size(connection, identity["relid"])[1]}


def effect(before: Measured, after: Measured) -> str:
    """Return what was given back."""
    old = before.get("index_bytes")
    return f"{words.size(old)} given back" if old and after.get("index_bytes") == 0 else ""


ACTION = Action(
    name="drop_leftover_index",
    verb="Drop leftover",
    icon="close",
    parameters=(table_action.DATABASE, table_action.INDEX, table_action.INDEXRELID),
    queue="long",
    right="own",
    statement_timeout_ms=3600 * 1000,
    # It waits for transactions that use the table, and keeps nobody from reading or writing.
    lock_timeout_ms=600 * 1000,
    lock=LOCK,
    rule=rule,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
)
