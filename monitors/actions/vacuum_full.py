"""VACUUM FULL: write the table anew without its free space; nobody can read it meanwhile.

Source: https://www.postgresql.org/docs/current/sql-vacuum.html
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from monitors import table_action, words
from monitors.action import Action, Arguments, Guarded, Identity, Kind, Measured, Parameter
from monitors.pg import relations
from monitors.rules import verdict

LOCK = "AccessExclusiveLock"
WAIT_SECONDS = 5


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the oid is still the same table; says the disk space it needs."""
    relation = table_action.same_table(connection, identity)
    seen = table_action.seen(connection, relation, LOCK)
    size = seen.numbers["size_bytes"]
    facts = list(seen.facts)
    if size is not None:
        facts.append(("Free disk space needed", f"up to {words.size(size)}"))
    warnings = [
        "Nobody can read or write the table until it is done."
        f" While this waits for its lock, at most {WAIT_SECONDS} s, all others queue behind it.",
        "The server can't say how much disk space is free: look before you start.",
        *seen.warnings,
    ]
    return replace(seen, facts=facts, warnings=warnings)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return VACUUM FULL, with ANALYZE where it was asked for."""
    text = "VACUUM (FULL, ANALYZE) {}" if arguments.get("analyze") == "true" else "VACUUM (FULL) {}"
    return sql.SQL(text).format(relations.identifier(identity))


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return rows and size; VACUUM FULL itself does not count in the statistics."""
    return relations.measure(connection, identity["relid"])


def effect(before: Measured, after: Measured) -> str:
    """Return what became of the size: dead rows are told only by the next ANALYZE."""
    return relations.effect(before, after, rows=False)


ACTION = Action(
    name="vacuum_full",
    verb="Vacuum full",
    icon="bloat",
    parameters=(
        table_action.DATABASE,
        table_action.TABLE,
        table_action.RELID,
        Parameter(
            name="analyze",
            kind=Kind.BOOL,
            help="also renew the planner's statistics",
            option=True,
        ),
    ),
    queue="long",
    after=("tables", "bloat"),
    right="vacuum",
    statement_timeout_ms=6 * 3600 * 1000,
    lock_timeout_ms=WAIT_SECONDS * 1000,
    lock=LOCK,
    destructive=True,
    second_person=True,
    rule=table_action.one_table,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
    judge=verdict.of_rewrite,
)
