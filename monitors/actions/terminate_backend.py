"""Terminate a backend: its session ends and its transaction rolls back.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import backend_action
from monitors.action import (
    Action,
    Arguments,
    Guarded,
    Identity,
)
from monitors.pg import backends, signals


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the same backend runs the same statement or idles in the same way."""
    backend = backend_action.same_backend(connection, arguments, identity)
    backend_action.same_doing(backend, arguments)
    return backend_action.seen(connection, backend)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the guarded signal; its row is (matched, signalled)."""
    return signals.terminate(arguments)


def settled(connection: psycopg.Connection, identity: Identity) -> str:
    """Return that the session ended, '' while it is still there."""
    backend = backends.find(connection, int(identity["pid"]))
    if backend is None or backend.backend_start != backends.moment(identity["backend_start"]):
        return "terminated"
    return ""


ACTION = Action(
    name="terminate_backend",
    verb="Terminate",
    icon="terminate",
    parameters=(
        backend_action.PID,
        backend_action.BACKEND_START,
        *backend_action.DOING,
    ),
    queue="signals",
    several=True,
    on_standby=True,
    right="signal",
    statement_timeout_ms=10_000,
    lock_timeout_ms=1000,
    destructive=True,
    expires_seconds=60,
    rule=backend_action.one_doing,
    object_name=backend_action.object_name,
    resolve=backend_action.resolve,
    guard=guard,
    statement=statement,
    measure=backend_action.measure,
    effect=backend_action.effect,
    settled=settled,
)
