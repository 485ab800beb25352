"""Set the counters of pg_stat_statements back to 0, for all statements of the server.

What they said is kept: a last snapshot is stored before, and the reset is a
mark in the history.

Source: https://www.postgresql.org/docs/current/pgstatstatements.html
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from monitors import words
from monitors.action import (
    Action,
    Arguments,
    Changed,
    Guarded,
    Identity,
    Kind,
    Measured,
    Parameter,
    Refused,
)
from monitors.pg import extensions
from monitors.pg.extensions import STATEMENTS, Reset

ARGUMENTS = {
    0: "",  # before 1.7
    3: "0::oid, 0::oid, 0::bigint",
    4: "0::oid, 0::oid, 0::bigint, false",  # 1.11 and newer
}
"""All arguments by their number, so that nobody's function of the same name fits better."""

COUNT_SQL = """
SELECT count(*)
  FROM {schema}.pg_stat_statements(false) AS s
"""

SINCE_SQL = """
SELECT i.stats_reset::text
  FROM {schema}.pg_stat_statements_info AS i
"""


def object_name(arguments: Arguments, identity: Identity) -> str:
    """Return what is reset: there is one for all databases."""
    return STATEMENTS


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return version, schema and argument_count; raises Refused where it is not installed."""
    found = extensions.find_reset(connection)
    if found is None:
        message = (
            f"{STATEMENTS} is not installed in {connection.info.dbname}: name the database that"
            " has it, or install it."
        )
        raise Refused(message)
    if found.argument_count not in ARGUMENTS:
        message = f"{STATEMENTS} {found.version} is not known here: reset it by hand."
        raise Refused(message)
    return identity_of(found)


def identity_of(found: Reset) -> dict[str, Any]:
    """Return what must still be so when it is sent."""
    return {
        "version": found.version,
        "schema": found.schema,
        "argument_count": found.argument_count,
    }


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed where the extension is another one, Refused where a right is missing."""
    found = extensions.find_reset(connection)
    if found is None or not identity_of(found).items() <= identity.items():
        message = f"{STATEMENTS} was dropped, moved or updated meanwhile: nothing was sent."
        raise Changed(message)
    if found.needs:
        message = (
            f"The operator login may not reset it. Run in {connection.info.dbname}: {found.needs}"
        )
        raise Refused(message)
    since = one_text(connection, SINCE_SQL, found.schema) if found.argument_count else ""
    count = one_text(connection, COUNT_SQL, found.schema)
    facts = [
        ("Extension", f"{STATEMENTS} {found.version} in the schema {found.schema}"),
        ("Statements", f"{int(count):,}"),
        ("Counted since", since),
    ]
    return Guarded(
        facts=[(label, value) for label, value in facts if value],
        warnings=[
            "All statements of all databases count from 0 again, for everybody who reads them.",
            "Howdah stores a last snapshot first: its own history goes on across the reset.",
        ],
    )


def one_text(connection: psycopg.Connection, text: str, schema: str) -> str:
    """Return a one-row answer as text, '' for NULL."""
    statement = sql.SQL(text).format(schema=sql.Identifier(schema))
    row = connection.execute(statement).fetchone()
    return "" if row is None or row[0] is None else str(row[0])


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the call that resets everything."""
    return sql.SQL("SELECT {}.pg_stat_statements_reset({})").format(
        sql.Identifier(identity["schema"]), sql.SQL(ARGUMENTS[identity["argument_count"]])
    )


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return how many statements are counted."""
    return {"statement_count": int(one_text(connection, COUNT_SQL, identity["schema"]))}


def effect(before: Measured, after: Measured) -> str:
    """Return how many statements were forgotten."""
    return f"{words.count(before['statement_count'], 'statement')} counted from 0 on"


ACTION = Action(
    name="reset_statements",
    verb="Reset",
    icon="actions",
    parameters=(
        Parameter(
            name="database",
            kind=Kind.DATABASE,
            help="a database that has pg_stat_statements; the first that has it if none is given",
        ),
    ),
    queue="long",
    on_standby=True,
    right="reset",
    statement_timeout_ms=30_000,
    lock_timeout_ms=1000,
    destructive=True,
    before="statements",
    extension=STATEMENTS,
    after=("statements",),
    object_name=object_name,
    resolve=resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
)
