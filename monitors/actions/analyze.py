"""ANALYZE a table: the planner gets new statistics.

Source: https://www.postgresql.org/docs/current/sql-analyze.html
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import table_action
from monitors.action import (
    Action,
    Arguments,
    Guarded,
    Identity,
    Kind,
    Measured,
    Parameter,
    Refused,
)
from monitors.pg import relations
from monitors.rules import verdict

LOCK = "ShareUpdateExclusiveLock"
ANALYZED = relations.MAINTAINED | {"f"}
WITHOUT_ROWS = "pf"
"""Kinds of relations without rows of their own: what ANALYZE changes is what the planner assumes."""
ONLY = Parameter(
    name="only",
    kind=Kind.BOOL,
    help="of a partitioned table: its own statistics, without visiting each partition's",
    option=True,
    since=18,
)
SKIP_LOCKED = Parameter(
    name="skip_locked", kind=Kind.BOOL, help="don't wait for the table's lock", option=True
)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the oid is still the same table, Refused for an option it lacks."""
    relation = table_action.same_table(connection, identity, ANALYZED)
    if arguments.get("only") == "true":
        table_action.known_here(connection, [ONLY])
        if relation.relkind != "p":
            message = f"{relation.name} is not partitioned: only is for the parent of partitions."
            raise Refused(message)
    return table_action.seen(connection, relation, LOCK)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return ANALYZE of the whole table."""
    return sql.SQL("ANALYZE {}{}{}").format(
        sql.SQL("(SKIP_LOCKED) " if arguments.get("skip_locked") == "true" else ""),
        sql.SQL("ONLY " if arguments.get("only") == "true" else ""),
        relations.identifier(identity),
    )


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return rows, vacuum counts and size; of what has no rows of its own also `reltuples`."""
    relid, kind = identity["relid"], identity["relkind"]
    if kind == "f":  # the server counts nothing of it
        return {"reltuples": relations.reltuples(connection, relid)}
    if before is None:
        found = relations.measure(connection, relid)
    else:
        found = relations.measure_after(connection, relid, before, "analyze_count")
    if kind in WITHOUT_ROWS:
        found["reltuples"] = relations.reltuples(connection, relid)
    return found


def effect(before: Measured, after: Measured) -> str:
    """Return what became of the rows changed since, and of those that the planner assumes."""
    parts = []
    if before.get("n_mod_since_analyze") is not None and "n_mod_since_analyze" in after:
        changes = f"{before['n_mod_since_analyze']:,} → {after['n_mod_since_analyze']:,}"
        parts.append(f"rows changed since the last analyze {changes}")
    if "reltuples" in before and "reltuples" in after:
        parts.append(verdict.rows_assumed(before["reltuples"], after["reltuples"]))
    return ", ".join(parts)


ACTION = Action(
    name="analyze",
    verb="Analyze",
    icon="activity",
    parameters=(
        table_action.DATABASE,
        table_action.TABLE,
        table_action.RELID,
        SKIP_LOCKED,
        ONLY,
    ),
    queue="long",
    after=("tables",),
    right="vacuum",
    statement_timeout_ms=3600 * 1000,
    lock_timeout_ms=5000,
    lock=LOCK,
    several=True,
    rule=table_action.one_table,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
    judge=verdict.of_analyze,
)
