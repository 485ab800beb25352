"""Release what a stuck backend holds: cancel its statement, read again, terminate what goes on.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from monitors import backend_action
from monitors.action import Action, Arguments, Guarded, Identity, text_of
from monitors.advisor import RUNNING
from monitors.pg import backends, signals

TOLD = (
    "If the same statement still runs 5 s after the cancel, its session is terminated and its"
    " transaction rolls back."
)
AT_ONCE = (
    "The session runs nothing that could be cancelled: it is terminated at once, and its"
    " transaction rolls back."
)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the same backend runs the same statement or idles in the same way."""
    backend = backend_action.same_backend(connection, arguments, identity)
    backend_action.same_doing(backend, arguments)
    if "query_start" not in arguments:
        return replace(backend_action.seen(connection, backend), warnings=[AT_ONCE])
    backend_action.old_enough(backend)
    seen = backend_action.seen(connection, backend)
    then = ("If it goes on", text_of(signals.terminate(arguments)))
    return replace(seen, facts=[*seen.facts, then], warnings=[TOLD])


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the first guarded signal: a cancel of what runs, else a terminate."""
    if "query_start" in arguments:
        return signals.cancel(arguments)
    return signals.terminate(arguments)


def escalation(arguments: Arguments) -> sql.Composed | None:
    """Return the guarded terminate that follows a cancel without effect; None where none went."""
    return signals.terminate(arguments) if "query_start" in arguments else None


def settled(connection: psycopg.Connection, identity: Identity) -> str:
    """Return what became of the statement or the session, '' while it is as before."""
    backend = backends.find(connection, int(identity["pid"]))
    if backend is None or backend.backend_start != backends.moment(identity["backend_start"]):
        return "the session is gone"
    if "query_start" not in identity:
        return ""
    same = backend.query_start == backends.moment(identity["query_start"])
    return "" if same and backend.state in RUNNING else "the statement has ended"


ACTION = Action(
    name="release_backend",
    verb="Release",
    icon="stuck",
    parameters=(backend_action.PID, backend_action.BACKEND_START, *backend_action.DOING),
    queue="signals",
    on_standby=True,
    right="signal",
    statement_timeout_ms=10_000,
    lock_timeout_ms=1000,
    destructive=True,
    direct=True,
    expires_seconds=60,
    rule=backend_action.one_doing,
    object_name=backend_action.object_name,
    resolve=backend_action.resolve,
    guard=guard,
    statement=statement,
    escalation=escalation,
    measure=backend_action.measure,
    effect=backend_action.effect,
    settled=settled,
)
