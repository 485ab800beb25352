"""CLUSTER: write the table anew in an index's order; nobody can read it meanwhile.

Source: https://www.postgresql.org/docs/current/sql-cluster.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from monitors import table_action, words
from monitors.action import Action, Arguments, Guarded, Identity, Kind, Measured, Parameter, Refused
from monitors.pg import indexes, relations
from monitors.rules import verdict

LOCK = "AccessExclusiveLock"
WAIT_SECONDS = 5
USING = Parameter(
    name="using",
    kind=Kind.TEXT,
    help="the index whose order it takes, by its name without schema; else the one of last time",
    option=True,
)


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return the table, and the index by oid and name; raises Refused for what is not there."""
    identity = table_action.resolve(connection, arguments)
    if identity["relkind"] not in relations.MAINTAINED:
        return identity  # the guard says what is wrong
    if "using" in arguments:
        index = indexes.of_table(connection, identity["relid"], arguments["using"])
        if index is None:
            message = f"The table has no index {arguments['using']}: name it without its schema."
            raise Refused(message)
    else:
        index = indexes.clustered(connection, identity["relid"])
        if index is None:
            message = "It was never clustered: say by which index, with the option using."
            raise Refused(message)
    return {**identity, "indexrelid": index.indexrelid, "indexrelname": index.relname}


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless table and index are still the same; says the disk space it needs."""
    relation = table_action.same_table(connection, identity)
    if relation.relkind == "p":
        message = f"{relation.name} is partitioned: cluster its partitions one by one."
        raise Refused(message)
    index = indexes.of_table(connection, relation.relid, identity["indexrelname"])
    reason = reason_not_by(index, identity)
    if reason:
        raise Refused(reason)
    seen = table_action.seen(connection, relation, LOCK)
    size = seen.numbers["size_bytes"]
    facts = [*seen.facts, ("In the order of", identity["indexrelname"])]
    if size is not None:
        # A sort writes its runs beside the new table.
        facts.append(("Free disk space needed", f"up to {words.size(2 * size)}"))
    warnings = [
        "Nobody can read or write the table until it is done."
        f" While this waits for its lock, at most {WAIT_SECONDS} s, all others queue behind it.",
        "The server can't say how much disk space is free: look before you start.",
        "Rows that come later are not kept in this order. ANALYZE the table afterwards.",
        *seen.warnings,
    ]
    return replace(seen, facts=facts, warnings=warnings)


def reason_not_by(index: indexes.Index | None, identity: Identity) -> str:
    """Return why a table can't be clustered by an index, '' where it can."""
    name = identity["indexrelname"]
    if index is None or index.indexrelid != identity["indexrelid"]:
        return f"The index {name} is gone or another one. Nothing was sent."
    if not index.valid:
        return f"The index {name} is invalid: rebuild it first."
    if index.partial:
        return f"The index {name} is partial and orders only some of the rows: choose another one."
    if not index.clusterable:
        return f"The index {name} has no order to follow: choose a btree or GiST index."
    return ""


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return CLUSTER by the index; its name is looked up in the table's schema."""
    return sql.SQL("CLUSTER {} USING {}").format(
        relations.identifier(identity), sql.Identifier(identity["indexrelname"])
    )


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return rows and size; CLUSTER itself does not count in the statistics."""
    return relations.measure(connection, identity["relid"])


def effect(before: Measured, after: Measured) -> str:
    """Return what became of the size."""
    return relations.effect(before, after, rows=False)


ACTION = Action(
    name="cluster",
    verb="Cluster",
    icon="bloat",
    parameters=(table_action.DATABASE, table_action.TABLE, table_action.RELID, USING),
    queue="long",
    after=("tables", "bloat"),
    right="maintain",
    statement_timeout_ms=6 * 3600 * 1000,
    lock_timeout_ms=WAIT_SECONDS * 1000,
    lock=LOCK,
    destructive=True,
    second_person=True,
    rule=table_action.one_table,
    object_name=table_action.object_name,
    resolve=resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
    judge=verdict.of_rewrite,
)
