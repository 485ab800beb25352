"""REINDEX an index or all of a table's: built anew without its empty pages, while it is used.

Source: https://www.postgresql.org/docs/current/sql-reindex.html
"""

from __future__ import annotations

from dataclasses import replace

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
    Kind,
    Leftover,
    Measured,
    Parameter,
)
from monitors.pg import indexes, relations
from monitors.rules import verdict

LOCK = "ShareUpdateExclusiveLock"
BLOCKING_LOCK = "ShareLock"
HOURS = 6 * 3600 * 1000
BLOCKING_WAIT_MS = 5000
KINDS = relations.MAINTAINED | relations.INDEXES
NAMES = ("table", "relid", "index", "indexrelid")


def rule(arguments: Arguments) -> None:
    """Raise InvalidArguments unless one table or one index is named in one way."""
    if sum(name in arguments for name in NAMES) != 1:
        message = "Give one of table (public.orders), index (public.orders_pkey), or its oid."
        raise InvalidArguments(message)


def is_concurrent(arguments: Arguments) -> bool:
    """Return whether the table stays open for writing."""
    return arguments.get("concurrently") != "off"


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the oid is still the same; says whom it waits for."""
    relation = table_action.same_table(connection, identity, kinds(arguments))
    count, size = indexes.size(connection, relation.relid)
    if not count:
        message = f"{relation.name} has no index. Nothing was sent."
        raise Changed(message)
    facts = [
        ("Index" if relation.relkind in relations.INDEXES else "Table", relation.name),
        ("Database", relation.database),
        ("Indexes", f"{count:,}"),
    ]
    if size is not None:
        facts.append(("Size of the indexes", words.size(size)))
        facts.append(("Free disk space needed", f"up to {words.size(size)}"))
    table = indexes.table_of(connection, relation.relid)
    conflicts = relations.holders(connection, table, ACTION.given(arguments).lock)
    warnings = table_action.autovacuum_warnings(connection, table)
    if is_concurrent(arguments):
        waited = indexes.waited_for(connection)
        known = {one["pid"] for one in conflicts}
        conflicts += [one for one in waited if one["pid"] not in known]
        warnings += waiting_warnings(waited)
    else:
        warnings.insert(
            0,
            "Nobody can write to the table until it is done, and nobody can read with the index"
            " that is being built. CONCURRENTLY would let both go on.",
        )
    warnings += leftover_warnings(connection, relation.relid)
    return Guarded(facts=facts, conflicts=conflicts, warnings=warnings)


def kinds(arguments: Arguments) -> frozenset[str]:
    """Return the kinds of relations that the arguments may name."""
    named_index = "index" in arguments or "indexrelid" in arguments
    return relations.INDEXES if named_index else relations.MAINTAINED


def waiting_warnings(waited: list[dict[str, object]]) -> list[str]:
    """Return whom a concurrent rebuild would wait for."""
    if not waited:
        return []
    oldest = waited[0]
    count = "1 transaction is" if len(waited) == 1 else f"{len(waited)} transactions are"
    return [
        f"{count} open in this database. The rebuild waits for those that are older than it,"
        f" as long as they last; the oldest is that of pid {oldest['pid']}"
        f" ({oldest['application_name'] or oldest['usename'] or 'unnamed'})."
    ]


def leftover_warnings(connection: psycopg.Connection, relid: int) -> list[str]:
    """Return the invalid indexes that stand there now; none that is being built."""
    said = []
    for index in indexes.invalid(connection, relid):
        name = words.quoted(index.schemaname, index.relname)
        if index.building:
            continue
        if index.leftover:
            said.append(
                f"{name} is left from a rebuild that failed: it is not used, but every write"
                " maintains it. Drop it with drop_leftover_index; this leaves it as it is."
            )
        else:
            said.append(f"{name} is invalid: no query uses it.")
    return said


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return REINDEX of the index or table."""
    is_index = identity["relkind"] in relations.INDEXES
    return sql.SQL("REINDEX {} {}{}").format(
        sql.SQL("INDEX") if is_index else sql.SQL("TABLE"),
        sql.SQL("CONCURRENTLY ") if is_concurrent(arguments) else sql.SQL(""),
        relations.identifier(identity),
    )


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return index_bytes, and the oids of the invalid indexes that stand there.

    CONCURRENTLY builds another index and gives it the name: afterwards the oid is another one.
    """
    relid = identity["relid"]
    if before is not None and identity["relkind"] in relations.INDEXES:
        relid = indexes.oid_of(connection, identity["schemaname"], identity["relname"]) or relid
    count, size = indexes.size(connection, relid)
    size = size if count else None  # it is gone: nothing is known of its size
    left = [index.indexrelid for index in indexes.invalid(connection, relid)]
    return {"index_bytes": size, "invalid": left}


def effect(before: Measured, after: Measured) -> str:
    """Return `indexes 12 MB → 4.0 MB`."""
    old, new = before.get("index_bytes"), after.get("index_bytes")
    if old is None or new is None:
        return ""
    if old == new:
        return f"indexes {words.size(new)}, as before"
    return f"indexes {words.size(old)} → {words.size(new)}"


def leftovers(
    connection: psycopg.Connection, identity: Identity, before: Measured
) -> list[Leftover]:
    """Return the invalid indexes of a rebuild's kind that were not there before."""
    left = indexes.leftovers(connection, identity["relid"], before.get("invalid", ()))
    return [
        Leftover(
            words.quoted(index.schemaname, index.relname),
            indexes.drop(index.schemaname, index.relname),
        )
        for index in left
    ]


def adapt(spec: Action, arguments: Arguments) -> Action:
    """Return the action; without CONCURRENTLY it blocks writes, so it waits little and asks."""
    if is_concurrent(arguments):
        return spec
    return replace(spec, lock=BLOCKING_LOCK, lock_timeout_ms=BLOCKING_WAIT_MS, destructive=True)


ACTION = Action(
    name="reindex",
    verb="Reindex",
    icon="bloat",
    parameters=(
        table_action.DATABASE,
        table_action.TABLE,
        table_action.RELID,
        table_action.INDEX,
        table_action.INDEXRELID,
        Parameter(
            name="concurrently",
            kind=Kind.CHOICE,
            choices=("on", "off"),
            default="on",
            help="off: quicker, but nobody can write to the table meanwhile",
            option=True,
        ),
    ),
    queue="long",
    after=("tables", "bloat"),
    right="maintain",
    statement_timeout_ms=HOURS,
    # A rebuild that gives up while it waits for old transactions leaves an invalid
    # index behind, and who waits for this lock keeps nobody from reading or writing.
    lock_timeout_ms=HOURS,
    lock=LOCK,
    partly=True,
    rule=rule,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
    judge=verdict.of_rebuild,
    adapt=adapt,
    leftovers=leftovers,
)
