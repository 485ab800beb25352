"""REPACK: write the table anew without its free space, from PostgreSQL 19 on also while it is used.

Source: https://www.postgresql.org/docs/19/sql-repack.html
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from monitors import table_action
from monitors.action import Action, Arguments, Guarded, Identity, Kind, Measured, Parameter, Refused
from monitors.pg import relations

MAJOR = 19
LOCK = "AccessExclusiveLock"
WAIT_SECONDS = 5
CONCURRENTLY = Parameter(
    name="concurrently",
    kind=Kind.CHOICE,
    choices=("on", "off"),
    default="on",
    help="on: others read and write meanwhile, and are locked out only for the moment of the swap",
    option=True,
)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Refused before 19, Changed unless the oid is still the same table."""
    major = connection.info.server_version // 10000
    if major < MAJOR:
        message = (
            f"This server is PostgreSQL {major}: REPACK came with {MAJOR}. Use vacuum_full or"
            " cluster, which lock everybody out, or the extension pg_repack by hand."
        )
        raise Refused(message)
    relation = table_action.same_table(connection, identity)
    if is_concurrent(arguments) and (relation.relkind != "r" or relation.relpersistence != "p"):
        message = f"{relation.name} can't be repacked concurrently: it is no ordinary logged table."
        raise Refused(message)
    seen = table_action.seen(connection, relation, LOCK)
    size = relations.measure(connection, relation.relid)["size_bytes"]
    facts = list(seen.facts)
    if size is not None:
        facts.append(("Free disk space needed", f"up to {relations.size_text(2 * size)}"))
    return replace(seen, facts=facts, warnings=[*warnings(arguments), *seen.warnings])


def is_concurrent(arguments: Arguments) -> bool:
    """Return whether the table stays open until the swap."""
    return arguments.get("concurrently") != "off"


def warnings(arguments: Arguments) -> list[str]:
    """Return what it keeps others from."""
    disk = "The server can't say how much disk space is free: look before you start."
    if is_concurrent(arguments):
        return [
            "The table needs a primary key or a replica identity index. Changes made meanwhile"
            " are kept by a replication slot of its own and applied before the swap, which locks"
            " everybody out for a moment.",
            "Transactions that began before it may afterwards see the table empty.",
            disk,
        ]
    return ["Nobody can read or write the table until it is done.", disk]


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return REPACK of the table."""
    how = sql.SQL("(CONCURRENTLY) ") if is_concurrent(arguments) else sql.SQL("")
    return sql.SQL("REPACK {}{}").format(how, relations.identifier(identity))


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return rows and size."""
    return relations.measure(connection, identity["relid"])


def effect(before: Measured, after: Measured) -> str:
    """Return what became of the size."""
    return relations.effect(before, after, rows=False)


ACTION = Action(
    name="repack",
    verb="Repack",
    parameters=(table_action.DATABASE, table_action.TABLE, table_action.RELID, CONCURRENTLY),
    queue="long",
    right="maintain",
    statement_timeout_ms=6 * 3600 * 1000,
    lock_timeout_ms=WAIT_SECONDS * 1000,
    lock=LOCK,
    since=MAJOR,
    destructive=True,
    second_person=True,
    rule=table_action.one_table,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
)
