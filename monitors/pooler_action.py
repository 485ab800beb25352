"""What actions on a pooler share: the right, its databases and clients, and numbers around the command.

Source: https://www.pgbouncer.org/usage.html#process-controlling-commands
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from monitors import words
from monitors.action import Arguments, Changed, Identity, Kind, Measured, Parameter, Refused
from monitors.pg import console

AFTER_SECONDS = 1.0
"""How long those that waited may take to be served before they are counted again."""
DATABASE = Parameter(
    name="database",
    kind=Kind.TEXT,
    required=True,
    help="a database as SHOW DATABASES names it",
)


def needs(connection: psycopg.Connection) -> str:
    """Return what lets the operator act, '' where it may."""
    user = connection.info.user
    if console.is_admin(console.config_of(connection), user):
        return ""
    return console.NOT_ADMIN.format(user=user)


def object_name(arguments: Arguments, identity: Identity) -> str:
    """Return the database, the whole pooler where none is named."""
    return str(arguments.get("database", "the pooler"))


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return the database's name; raises Refused where the pooler has none of it."""
    name = arguments["database"]
    if name == console.DATABASE or name not in databases(connection):
        known = ", ".join(sorted(set(databases(connection)) - {console.DATABASE}))
        message = f"The pooler has no database {words.quoted(name)}. It has: {known or 'none'}."
        raise Refused(message)
    return {"database": name}


def databases(connection: psycopg.Connection) -> dict[str, Mapping[str, Any]]:
    """Return {name: row of SHOW DATABASES}."""
    return {row["name"]: row for row in console.show(connection, "DATABASES")}


def database_now(connection: psycopg.Connection, identity: Identity) -> Mapping[str, Any]:
    """Return a database's row; raises Refused for want of the right, Changed where it is gone."""
    lacks = needs(connection)
    if lacks:
        raise Refused(lacks)
    found = databases(connection).get(identity["database"])
    if found is None:
        message = f"The database {words.quoted(identity['database'])} is gone from the pooler."
        raise Changed(message)
    return found


def pools(connection: psycopg.Connection, database: str | None) -> list[Mapping[str, Any]]:
    """Return the pools of a database, of all where it is None; the console's is none."""
    return [
        row
        for row in console.show(connection, "POOLS")
        if row["database"] != console.DATABASE and database in {None, row["database"]}
    ]


def facts_of(rows: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return what a preview says of some pools."""
    return [
        ("Clients", f"{sum(row['cl_active'] + row['cl_waiting'] for row in rows):,}"),
        ("Clients waiting", f"{sum(row['cl_waiting'] for row in rows):,}"),
        ("Servers in use", f"{sum(row['sv_active'] for row in rows):,}"),
    ]


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return how many clients are connected and wait, and how many servers they have.

    After the command those that wait get a moment to be served.
    """
    ends = time.monotonic() + (AFTER_SECONDS if before is not None else 0)
    while True:
        rows = pools(connection, identity.get("database"))
        waiting = sum(row["cl_waiting"] for row in rows)
        if not waiting or time.monotonic() >= ends:
            break
        time.sleep(0.1)
    return {
        "clients_count": sum(row["cl_active"] + row["cl_waiting"] for row in rows),
        "waiting_count": waiting,
        "servers_count": sum(console_servers(row) for row in rows),
    }


def console_servers(pool: Mapping[str, Any]) -> int:
    """Return a pool's connections to servers."""
    names = ("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login")
    return sum(pool[name] for name in names)


def effect(before: Measured, after: Measured) -> str:
    """Return how many clients waited before and wait now."""
    return (
        f"clients waiting: {before['waiting_count']:,} before,"
        f" {after.get('waiting_count', 0):,} after"
        if after
        else ""
    )


def command(text: str, identity: Identity) -> sql.Composed:
    """Return a command about a database, whose name is quoted as the console reads it."""
    return sql.SQL(text + " {}").format(sql.Identifier(identity["database"]))
