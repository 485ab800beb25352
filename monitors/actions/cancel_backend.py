"""Cancel the statement that a backend runs; its session and transaction stay.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from monitors import backend_action
from monitors.action import (
    Action,
    Arguments,
    Guarded,
    Identity,
    Kind,
    Parameter,
    Refused,
)
from monitors.pg import backends, signals

UNREACHED = (
    "It waits for its client, and a cancel reaches it only once that sends or reads something;"
    " terminating it does at once."
)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the same backend runs the same statement."""
    backend = backend_action.same_backend(connection, arguments, identity)
    if backend.state.startswith("idle in transaction"):
        message = "The session is idle in transaction, there is nothing to cancel: terminate it."
        raise Refused(message)
    backend_action.same_statement(backend, arguments)
    backend_action.old_enough(backend)
    seen = backend_action.seen(connection, backend)
    return replace(seen, warnings=[UNREACHED]) if backend.awaits_client else seen


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the guarded signal; its row is (matched, signalled)."""
    return signals.cancel(arguments)


def settled(connection: psycopg.Connection, identity: Identity) -> str:
    """Return what became of the statement, '' while it still runs."""
    backend = backends.find(connection, int(identity["pid"]))
    if backend is None or backend.backend_start != backends.moment(identity["backend_start"]):
        return "cancelled, and the session has ended"
    same = backend.query_start == backends.moment(identity["query_start"])
    return "" if same and backend.state == "active" else "cancelled"


ACTION = Action(
    name="cancel_backend",
    verb="Cancel",
    icon="cancel",
    parameters=(
        backend_action.PID,
        backend_action.BACKEND_START,
        Parameter(
            name="query_start",
            kind=Kind.TIMESTAMP,
            required=True,
            help="when its statement started, as pg_stat_activity says it",
        ),
    ),
    queue="signals",
    several=True,
    on_standby=True,
    right="signal",
    statement_timeout_ms=10_000,
    lock_timeout_ms=1000,
    direct=True,
    expires_seconds=60,
    object_name=backend_action.object_name,
    resolve=backend_action.resolve,
    guard=guard,
    statement=statement,
    measure=backend_action.measure,
    effect=backend_action.effect,
    settled=settled,
)
