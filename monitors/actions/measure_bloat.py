"""Measure exactly how much of one table or btree index is wasted; reads all of it, changes nothing.

Source: https://www.postgresql.org/docs/current/pgstattuple.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from monitors import table_action, words
from monitors.action import (
    Action,
    Arguments,
    Changed,
    Guarded,
    Identity,
    InvalidArguments,
    Kind,
    Measured,
    Parameter,
    Refused,
)
from monitors.pg import extensions, relations
from monitors.rules import bloat

EXTENSION = "pgstattuple"
LOCK = "AccessShareLock"
NAMES = ("table", "relid", "index", "indexrelid")
MEASURED_KINDS = frozenset("rmti")
FUNCTIONS = {"i": "pgstatindex"}
"""By relkind; of all others pgstattuple."""

# The functions take regclass in every version that is left.
FACTS_SQL = """
SELECT m.amname::text AS method,
       c.relpages::bigint AS relpages,
       coalesce((SELECT o.option_value::int
                   FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
                  WHERE o.option_name = 'fillfactor'),
                CASE WHEN c.relkind = 'i' THEN 90 ELSE 100 END) AS fillfactor,
       current_user::text AS rolname,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usage,
       EXISTS (SELECT
                 FROM pg_catalog.pg_proc AS p
                WHERE p.pronamespace = n.oid
                  AND p.proname = %(function)s
                  AND p.proargtypes[0] = 'pg_catalog.regclass'::pg_catalog.regtype
                  AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) AS execute
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
 CROSS JOIN pg_catalog.pg_namespace AS n
 WHERE c.oid = %(relid)s::oid
   AND n.nspname = %(schema)s
"""

HEAP_SQL = """
SELECT h.table_len AS size,
       h.dead_tuple_len AS dead,
       h.free_space AS free,
       h.tuple_count AS rows
  FROM {function}({relid}::oid::regclass) AS h
"""
HEAP = ("size", "dead", "free", "rows")

BTREE_SQL = """
SELECT i.index_size AS size,
       i.leaf_pages,
       i.avg_leaf_density AS density,
       i.empty_pages AS empty,
       i.deleted_pages AS deleted
  FROM {function}({relid}::oid::regclass) AS i
"""
BTREE = ("size", "leaf_pages", "density", "empty", "deleted")


def rule(arguments: Arguments) -> None:
    """Raise InvalidArguments unless one table or one index is named in one way."""
    if sum(name in arguments for name in NAMES) != 1:
        message = "Give one of table (public.orders), index (public.orders_pkey), or its oid."
        raise InvalidArguments(message)


def as_table(arguments: Arguments) -> dict[str, str]:
    """Return the arguments with an index named as a table is: both are found as relations."""
    renamed = {"index": "table", "indexrelid": "relid"}
    return {renamed.get(name, name): value for name, value in arguments.items()}


def object_name(arguments: Arguments, identity: Identity) -> str:
    """Return `shop: public.orders`."""
    return table_action.object_name(as_table(arguments), identity)


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return oid, names, and the schema of pgstattuple; raises Refused for what is not there."""
    identity = table_action.resolve(connection, as_table(arguments))
    if identity["relkind"] not in MEASURED_KINDS:
        name = words.quoted(identity["schemaname"], identity["relname"])
        message = f"{name} is not a table, materialized view or index: it has no pages of its own."
        raise Refused(message)
    installed = extensions.find(connection, EXTENSION)
    if installed is None:
        message = (
            f"{EXTENSION} is not installed in {identity['database']}. As a superuser run there:"
            f" CREATE EXTENSION {EXTENSION};"
        )
        raise Refused(message)
    return {**identity, "extension_schema": installed.schema}


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the oid is still the same, Refused where the login may not measure."""
    relation = relations.by_oid(connection, identity["relid"])
    if relation is None or not relations.is_same(dict(identity), relation):
        message = "It is gone or another object now. Nothing was sent."
        raise Changed(message)
    facts = facts_of(connection, identity)
    if facts is None:
        message = f"{relation.name} has no pages that pgstattuple could read."
        raise Refused(message)
    if relation.relkind == "i" and facts["method"] != "btree":
        message = f"{relation.name} is a {facts['method']} index: only btree indexes are measured."
        raise Refused(message)
    if not facts["usage"] or not facts["execute"]:
        user, schema = words.quoted(facts["rolname"]), words.quoted(identity["extension_schema"])
        needs = [] if facts["usage"] else [f"GRANT USAGE ON SCHEMA {schema} TO {user};"]
        needs += [] if facts["execute"] else [f"GRANT pg_stat_scan_tables TO {user};"]
        message = f"{user} may not call {function_of(identity)}. Run: {' '.join(needs)}"
        raise Refused(message)
    pages = facts["relpages"]
    return Guarded(
        facts=[
            ("Object", relation.name),
            ("Kind", relations.KINDS[relation.relkind]),
            ("Database", relation.database),
            (
                "Reads",
                f"each page once, about {words.size(pages * bloat.BLOCK_BYTES)},"
                " through a small ring of buffers",
            ),
        ],
        conflicts=relations.holders(connection, relation.relid, LOCK),
    )


def facts_of(connection: psycopg.Connection, identity: Identity) -> dict[str, Any] | None:
    """Return method, relpages, fillfactor and rights; None for what has no access method."""
    values = {
        "relid": identity["relid"],
        "schema": identity["extension_schema"],
        "function": function_of(identity),
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(FACTS_SQL, values).fetchone()


def function_of(identity: Identity) -> str:
    """Return the name of the function that measures a kind of relation."""
    return FUNCTIONS.get(identity["relkind"], EXTENSION)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the call of pgstattuple or pgstatindex."""
    text = BTREE_SQL if identity["relkind"] == "i" else HEAP_SQL
    return sql.SQL(text.strip()).format(
        function=sql.Identifier(identity["extension_schema"], function_of(identity)),
        relid=sql.Literal(identity["relid"]),
    )


def result(rows: Sequence[tuple[Any, ...]]) -> Measured:
    """Return the row of the function by name, under `seen`."""
    if not rows:
        return {}
    names = BTREE if len(rows[0]) == len(BTREE) else HEAP
    return {"seen": dict(zip(names, rows[0], strict=True))}


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return what the fillfactor is: the waste depends on it."""
    facts = facts_of(connection, identity)
    return {"fillfactor": facts["fillfactor"], "relkind": identity["relkind"]} if facts else {}


def effect(before: Measured, after: Measured) -> str:
    """Return how much of it is wasted, and of what that consists."""
    seen, fillfactor = after.get("seen"), before.get("fillfactor")
    if not seen or not fillfactor:
        return ""
    size = seen["size"]
    if before["relkind"] == "i":
        waste = bloat.btree_waste(**seen, fillfactor=fillfactor)
        gone = seen["empty"] + seen["deleted"]
        parts = f"leaf pages are {seen['density']:.0f} % full, {words.count(gone, 'page')} empty or deleted"
    else:
        toast = before["relkind"] == "t"
        waste = bloat.heap_waste(**seen, fillfactor=fillfactor, toast=toast)
        parts = (
            f"{seen['rows']:,} live rows, dead rows take {words.size(seen['dead'])},"
            f" {words.size(seen['free'])} are free"
        )
    share = f" ({100 * waste / size:.1f} %)" if size else ""
    return f"{words.size(waste)} of {words.size(size)} wasted{share}: {parts}"


ACTION = Action(
    name="measure_bloat",
    verb="Measure exactly",
    icon="search",
    parameters=(
        table_action.DATABASE,
        table_action.TABLE,
        table_action.RELID,
        Parameter(
            name="index",
            kind=Kind.TABLE,
            help="an index with its schema, instead of a table, as public.orders_pkey",
        ),
        table_action.INDEXRELID,
    ),
    queue="long",
    on_standby=True,
    right="scan",
    statement_timeout_ms=600_000,
    lock_timeout_ms=2000,
    lock=LOCK,
    keeps="bloat",
    rule=rule,
    object_name=object_name,
    resolve=resolve,
    guard=guard,
    statement=statement,
    result=result,
    measure=measure,
    effect=effect,
)
