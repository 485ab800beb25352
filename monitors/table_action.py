"""What all actions on a table share: finding it, the guard, and the numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import psycopg

from monitors import words
from monitors.action import (
    MAX_OID,
    Arguments,
    Changed,
    Guarded,
    Identity,
    InvalidArguments,
    Kind,
    Parameter,
    Refused,
)
from monitors.pg import relations
from monitors.pg.relations import Relation

DATABASE = Parameter(
    name="database", kind=Kind.DATABASE, required=True, help="the database that has the table"
)
TABLE = Parameter(
    name="table", kind=Kind.TABLE, help='the table with its schema, as public.orders or shop."Odd"'
)
RELID = Parameter(
    name="relid",
    kind=Kind.INT,
    minimum=1,
    maximum=MAX_OID,
    help="the table's oid, instead of its name",
)


INDEX = Parameter(
    name="index", kind=Kind.TABLE, help="the index with its schema, as public.orders_pkey"
)
INDEXRELID = Parameter(
    name="indexrelid",
    kind=Kind.INT,
    minimum=1,
    maximum=MAX_OID,
    help="the index's oid, instead of its name",
)


def one_table(arguments: Arguments) -> None:
    """Raise InvalidArguments unless a table is named in one way."""
    if ("table" in arguments) == ("relid" in arguments):
        message = "Give either table (public.orders) or relid, its oid."
        raise InvalidArguments(message)


def object_name(arguments: Arguments, identity: Identity) -> str:
    """Return `shop: public.orders`."""
    if "relname" in identity:
        name = words.quoted(identity["schemaname"], identity["relname"])
    else:
        name = (
            arguments.get("table")
            or arguments.get("index")
            or f"oid {arguments.get('relid') or arguments.get('indexrelid')}"
        )
    return f"{arguments['database']}: {name}"


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return a table's oid and names; raises Refused for what is not there."""
    what = "index" if "index" in arguments or "indexrelid" in arguments else "table"
    oid, name = arguments.get("relid") or arguments.get("indexrelid"), arguments.get(what, "")
    if oid:
        relation = relations.by_oid(connection, int(oid))
    else:
        try:
            relation = relations.by_name(connection, name)
        except ValueError as error:
            message = f"{name} is no {what}'s name: {error}."
            raise Refused(message) from None
    if relation is None:
        message = (
            f"There is no {what} {name or f'with oid {oid}'} in {arguments['database']}:"
            f" give it with its schema, as public.orders{'_pkey' if what == 'index' else ''}."
        )
        raise Refused(message)
    return {**relation.identity(), "owner": relation.owner, "owner_superuser": relation.superuser}


def same_table(
    connection: psycopg.Connection,
    identity: Identity,
    kinds: Collection[str] = relations.MAINTAINED,
) -> Relation:
    """Return the table as it is now; raises Changed, or Refused where a rule forbids."""
    relation = relations.by_oid(connection, identity["relid"])
    if relation is None:
        what = "index" if kinds == relations.INDEXES else "table"
        message = f"The {what} is gone: it was dropped after this was asked for. Nothing was sent."
        raise Changed(message)
    if not relations.is_same(dict(identity), relation):
        message = (
            f"Object changed: oid {relation.relid} is now {relation.name} in"
            f" {relation.database}. Nothing was sent."
        )
        raise Changed(message)
    reason = relations.reason_not_to_maintain(relation, kinds)
    if reason:
        raise Refused(reason)
    if not relation.usable:
        schema, login = words.quoted(relation.schemaname), words.quoted(relation.login)
        message = (
            f"The login {login} may not use the schema {schema}, so it can't name {relation.name}."
            f" In the database {relation.database}: GRANT USAGE ON SCHEMA {schema} TO {login};"
        )
        raise Refused(message)
    return relation


def seen(connection: psycopg.Connection, relation: Relation, lock: str) -> Guarded:
    """Return what a person should know of a table before it is maintained."""
    if relation.relkind == "f":
        return Guarded(
            facts=[("Table", relation.name), ("Database", relation.database)],
            conflicts=relations.holders(connection, relation.relid, lock),
            warnings=["This is a foreign table: rows of it are fetched from where they are."],
        )
    numbers = relations.measure(connection, relation.relid)
    warnings = autovacuum_warnings(connection, relation.relid)
    if relation.relkind == "p":
        warnings.append(
            "This is a partitioned table: its partitions are worked on one after another,"
            " each under its own lock. What the numbers say is their sum."
        )
    return Guarded(
        facts=[("Table", relation.name), ("Database", relation.database)],
        conflicts=relations.holders(connection, relation.relid, lock),
        warnings=warnings,
        numbers=numbers,
    )


def known_here(connection: psycopg.Connection, parameters: Iterable[Parameter]) -> None:
    """Raise Refused for options that came with a newer version than the server's."""
    major = connection.info.server_version // 10000
    newer = [parameter for parameter in parameters if parameter.since > major]
    if newer:
        names = ", ".join(f"{one.name} (PostgreSQL {one.since})" for one in newer)
        message = f"This server is PostgreSQL {major}, which has no {names}. Nothing was sent."
        raise Refused(message)


def autovacuum_warnings(connection: psycopg.Connection, relid: int) -> list[str]:
    """Return what an action on a table would do to the autovacuum that works on it."""
    warnings = []
    for worker in relations.autovacuums(connection, relid):
        done = f", {100 * worker['done'] // worker['total']} %" if worker["total"] else ""
        where = f"Autovacuum works on this table now (pid {worker['pid']}, {worker['phase']}{done})"
        if worker["wraparound"]:
            warnings.append(f"{where}, to prevent wraparound: it won't give way, this will wait.")
        else:
            warnings.append(f"{where}: it will be cancelled after deadlock_timeout and start anew.")
    return warnings
