"""End one client's connection to a pooler, and the server connection that it has.

A number names it, which is given to no other client as long as the pooler runs.

Source: https://www.pgbouncer.org/usage.html#kill_client-id
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from monitors import pooler_action, words
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
from monitors.kinds import PGBOUNCER
from monitors.pg import console

SAME = ("ptr", "connect_time", "addr", "port", "database", "user")
"""What a client keeps as long as it is connected: a pooler that was restarted counts anew."""


def object_name(arguments: Arguments, identity: Identity) -> str:
    """Return `client 12 (till)`."""
    who = identity.get("application_name") or identity.get("user")
    return f"client {arguments['client_id']}" + (f" ({who})" if who else "")


def client_of(connection: psycopg.Connection, client_id: str) -> Mapping[str, Any] | None:
    """Return a client's row by its number, None where there is none; raises Refused before 1.24."""
    rows = console.show(connection, "CLIENTS")
    if rows and "id" not in rows[0]:
        message = "This PgBouncer gives its clients no numbers: kill_client came with 1.24."
        raise Refused(message)
    return next((row for row in rows if str(row["id"]) == client_id), None)


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return what the client is; raises Refused where there is none, or it is one of the console's."""
    found = client_of(connection, arguments["client_id"])
    if found is None:
        message = f"No client has the number {arguments['client_id']}: it has gone."
        raise Refused(message)
    if found["database"] == console.DATABASE:
        message = "It is connected to the console, as Howdah is: only clients of pools are killed."
        raise Refused(message)
    return {name: found[name] for name in (*SAME, "application_name")}


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the same client is connected, Refused where the right is missing."""
    lacks = pooler_action.needs(connection)
    if lacks:
        raise Refused(lacks)
    found = client_of(connection, arguments["client_id"])
    if found is None or any(found[name] != identity[name] for name in SAME):
        message = "The client has gone, or another one has its number: nothing was sent."
        raise Changed(message)
    facts = [
        ("Application", found["application_name"] or "no name"),
        ("Address", f"{found['addr']}:{found['port']}"),
        ("Database and user", f"{found['database']}, {found['user']}"),
        ("State", found["state"]),
        ("Connected since", found["connect_time"]),
    ]
    warnings = ["Its connection ends, and what it has not committed is rolled back."]
    if not found["link"]:
        warnings.append("It has no server now: nothing on the server is freed by this.")
    return Guarded(facts=facts, warnings=warnings)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the command."""
    return sql.SQL("KILL_CLIENT {}").format(sql.SQL(str(int(arguments["client_id"]))))


def effect(before: Measured, after: Measured) -> str:
    """Return how many clients of its database are left."""
    if "clients_count" not in after:
        return ""
    return f"the client is gone; {words.count(after['clients_count'], 'client')} left"


ACTION = Action(
    name="kill_client",
    kind=PGBOUNCER,
    verb="Kill client",
    icon="terminate",
    parameters=(
        Parameter(
            name="client_id",
            kind=Kind.INT,
            required=True,
            help="its id, as SHOW CLIENTS says it",
            minimum=0,
            maximum=9_999_999_999,
        ),
    ),
    queue="long",
    needs=pooler_action.needs,
    statement_timeout_ms=10_000,
    lock_timeout_ms=1000,
    destructive=True,
    since=12400,
    after=("pooler_clients", "pooler_servers"),
    object_name=object_name,
    resolve=resolve,
    guard=guard,
    statement=statement,
    measure=pooler_action.measure,
    effect=effect,
)
