"""ANALYZE a table: the planner gets new statistics.

Source: https://www.postgresql.org/docs/current/sql-analyze.html
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import table_action
from monitors.action import Action, Arguments, Guarded, Identity, Measured
from monitors.pg import relations

LOCK = "ShareUpdateExclusiveLock"


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the oid is still the same table."""
    relation = table_action.same_table(connection, identity)
    return table_action.seen(connection, relation, LOCK)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return ANALYZE of the whole table."""
    return sql.SQL("ANALYZE {}").format(relations.identifier(identity))


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return rows, vacuum counts and size."""
    if before is None:
        return relations.measure(connection, identity["relid"])
    return relations.measure_after(connection, identity["relid"], before, "analyze_count")


def effect(before: Measured, after: Measured) -> str:
    """Return what became of the rows changed since the last ANALYZE."""
    if before.get("n_mod_since_analyze") is None or after.get("n_mod_since_analyze") is None:
        return ""
    changes = f"{before['n_mod_since_analyze']:,} → {after['n_mod_since_analyze']:,}"
    return f"rows changed since the last analyze {changes}"


ACTION = Action(
    name="analyze",
    verb="Analyze",
    parameters=(table_action.DATABASE, table_action.TABLE, table_action.RELID),
    queue="long",
    right="maintain",
    statement_timeout_ms=3600 * 1000,
    lock_timeout_ms=5000,
    lock=LOCK,
    rule=table_action.one_table,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
)
