"""REPACK: write the table anew without its free space, from PostgreSQL 19 on also while it is used.

Source: https://www.postgresql.org/docs/19/sql-repack.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from monitors import table_action, words
from monitors.action import Action, Arguments, Guarded, Identity, Kind, Measured, Parameter, Refused
from monitors.pg import relations, repack, rights
from monitors.pg.relations import Relation
from monitors.rules import verdict

MAJOR = 19
LOCK = "ShareUpdateExclusiveLock"
SWAP_LOCK = "AccessExclusiveLock"
"""For the moment of the swap; one that is not concurrent has it from the first to the last."""
WAIT_SECONDS = 5
"""For the lock of one that is not concurrent: nothing is lost when it is not free."""
SWAP_SECONDS = 60
NAMED = 5
"""Others that a sentence names."""
CONCURRENTLY = Parameter(
    name="concurrently",
    kind=Kind.CHOICE,
    choices=("on", "off"),
    default="on",
    help="on: others read and write meanwhile, and are locked out only for the moment of the swap",
    option=True,
)
WAIT = Parameter(
    name="wait_seconds",
    kind=Kind.INT,
    default=str(SWAP_SECONDS),
    minimum=5,
    maximum=3600,
    help="concurrently: how long the swap may wait for its lock, while all others queue behind it;"
    " when that is over, all its work is lost",
    option=True,
)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Refused for all that the server would refuse, Changed unless it is the same table."""
    major = connection.info.server_version // 10000
    if major < MAJOR:
        message = (
            f"This server is PostgreSQL {major}: REPACK came with {MAJOR}. Use vacuum_full or"
            " cluster, which lock everybody out, or the extension pg_repack by hand."
        )
        raise Refused(message)
    relation = table_action.same_table(connection, identity)
    if is_concurrent(arguments):
        reason = repack.reason_not_concurrently(connection, relation)
        if reason:
            message = f"{reason} Nothing was sent; without concurrently it locks everybody out."
            raise Refused(message)
    if not repack.may_maintain(connection, relation.relid):
        login = rights.read_rights(connection)
        owners = rights.table_owners(connection, relation.relid)
        needs = rights.owners_need(owners, "maintain", login, connection.info.server_version)
        message = f"The login has no right to repack {relation.name}. {rights.to_run(needs)}"
        raise Refused(message)
    seen = table_action.seen(connection, relation, SWAP_LOCK)
    size = seen.numbers["size_bytes"]
    facts = list(seen.facts)
    if size is not None:
        facts.append(("Free disk space needed", f"up to {words.size(2 * size)}"))
    return replace(
        seen,
        facts=facts,
        warnings=[*warnings(connection, arguments, relation, seen.conflicts), *seen.warnings],
    )


def is_concurrent(arguments: Arguments) -> bool:
    """Return whether the table stays open until the swap."""
    return arguments.get("concurrently") != "off"


def warnings(
    connection: psycopg.Connection,
    arguments: Arguments,
    relation: Relation,
    holders: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Return what it keeps others from, and who keeps it from going on."""
    disk = "The server can't say how much disk space is free: look before you start."
    if not is_concurrent(arguments):
        return ["Nobody can read or write the table until it is done.", disk]
    return [
        *start_warnings(connection),
        *swap_warnings(arguments.get("wait_seconds") or WAIT.default, holders),
        blind_warning(repack.blind(connection, relation.relid)),
        disk,
    ]


def start_warnings(connection: psycopg.Connection) -> list[str]:
    """Return for whom it waits before it begins, if for anybody."""
    said = []
    writers = repack.writers(connection)
    if writers:
        said.append(
            "It begins once all transactions of the server that have written are over; now that"
            f" is {named(writers)}. Nothing is lost when it can't begin in time."
        )
    for gid, database in repack.prepared(connection)[:NAMED]:
        said.append(
            f"The prepared transaction {gid} in {database} keeps it from beginning:"
            " COMMIT PREPARED or ROLLBACK PREPARED it first."
        )
    return said


def swap_warnings(seconds: str, holders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the swap waits for, and who would make it wait if it were now."""
    waits = (
        f"The swap at its end locks everybody out for a moment. It waits at most {seconds} s"
        " (wait_seconds) for whoever uses the table then, and all others queue behind it; when"
        " that is over, all its work is lost and the table is as before."
    )
    if not holders:
        return [waits]
    return [f"{waits} Now it would wait for {named(holders)}."]


def blind_warning(blind: Sequence[Mapping[str, Any]]) -> str:
    """Return who may find the table empty: the new file has no rows for an older snapshot."""
    text = (
        "Whoever has a snapshot from before the swap and reads the table only after it sees it"
        " empty: transactions in REPEATABLE READ and SERIALIZABLE, dumps, queries on standbys."
    )
    return f"{text} Such a snapshot now: {named(blind)}." if blind else text


def named(backends: Sequence[Mapping[str, Any]]) -> str:
    """Return `pid 4711 (billing-api), pid 4712 (psql) and 3 more`."""
    names = [
        f"pid {one['pid']} ({one['application_name'] or one['usename'] or 'unnamed'})"
        for one in backends[:NAMED]
    ]
    more = len(backends) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def adapt(spec: Action, arguments: Arguments) -> Action:
    """Wait for the swap as long as was asked: there a lock that is not free costs all the work."""
    if not is_concurrent(arguments):
        return replace(
            spec,
            lock=SWAP_LOCK,
            lock_timeout_ms=WAIT_SECONDS * 1000,
            swap_lock="",
            swap_phase="",
        )
    seconds = int(arguments.get("wait_seconds") or WAIT.default)
    return replace(spec, lock_timeout_ms=seconds * 1000)


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
    icon="bloat",
    parameters=(table_action.DATABASE, table_action.TABLE, table_action.RELID, CONCURRENTLY, WAIT),
    queue="long",
    after=("tables", "bloat"),
    right="maintain",
    statement_timeout_ms=6 * 3600 * 1000,
    lock_timeout_ms=SWAP_SECONDS * 1000,
    lock=LOCK,
    swap_lock=SWAP_LOCK,
    swap_phase="catch-up",
    adapt=adapt,
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
    judge=verdict.of_rewrite,
)
