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
    InvalidArguments,
    Kind,
    Parameter,
)
from monitors.pg import backends

SQL_ACTIVE = """WITH target AS MATERIALIZED (
  SELECT a.pid
    FROM pg_catalog.pg_stat_activity AS a
   WHERE a.pid = {pid}
     AND a.backend_start = {backend_start}
     AND a.query_start = {query_start}
     AND a.state IN ('active', 'fastpath function call')
     AND a.backend_type = 'client backend'
     AND a.pid <> pg_catalog.pg_backend_pid())
SELECT (SELECT count(*) FROM target) AS matched,
       (SELECT pg_catalog.pg_terminate_backend(target.pid) FROM target) AS signalled"""

SQL_IDLE_IN_TRANSACTION = """WITH target AS MATERIALIZED (
  SELECT a.pid
    FROM pg_catalog.pg_stat_activity AS a
   WHERE a.pid = {pid}
     AND a.backend_start = {backend_start}
     AND a.xact_start = {xact_start}
     AND a.state_change = {state_change}
     AND a.state IN ('idle in transaction', 'idle in transaction (aborted)')
     AND a.backend_type = 'client backend'
     AND a.pid <> pg_catalog.pg_backend_pid())
SELECT (SELECT count(*) FROM target) AS matched,
       (SELECT pg_catalog.pg_terminate_backend(target.pid) FROM target) AS signalled"""

SQL_IDLE = """WITH target AS MATERIALIZED (
  SELECT a.pid
    FROM pg_catalog.pg_stat_activity AS a
   WHERE a.pid = {pid}
     AND a.backend_start = {backend_start}
     AND a.state_change = {state_change}
     AND a.state = 'idle'
     AND a.backend_type = 'client backend'
     AND a.pid <> pg_catalog.pg_backend_pid())
SELECT (SELECT count(*) FROM target) AS matched,
       (SELECT pg_catalog.pg_terminate_backend(target.pid) FROM target) AS signalled"""

STATEMENTS = {
    frozenset({"query_start"}): SQL_ACTIVE,
    frozenset({"xact_start", "state_change"}): SQL_IDLE_IN_TRANSACTION,
    frozenset({"state_change"}): SQL_IDLE,
}
"""By the times that say what the session does; pid and backend_start are always given."""


def times_in(arguments: Arguments) -> frozenset[str]:
    """Return the names of the times that say what the session does."""
    return frozenset(arguments) - {"pid", "backend_start"}


def rule(arguments: Arguments) -> None:
    """Raise InvalidArguments unless what the session does is named in one way."""
    if times_in(arguments) not in STATEMENTS:
        message = (
            "Give query_start for a backend that runs a statement, xact_start and state_change"
            " for one that is idle in transaction, or state_change for one that is idle."
        )
        raise InvalidArguments(message)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the same backend runs the same statement or idles in the same way."""
    backend = backend_action.same_backend(connection, arguments, identity)
    if "query_start" in arguments:
        backend_action.same_statement(backend, arguments)
    elif "xact_start" in arguments:
        backend_action.same_transaction(backend, arguments)
    else:
        backend_action.same_idleness(backend, arguments)
    return backend_action.seen(connection, backend)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the guarded signal; its row is (matched, signalled)."""
    times = {
        name: backend_action.timestamp(text)
        for name, text in arguments.items()
        if name not in {"pid"}
    }
    return sql.SQL(STATEMENTS[times_in(arguments)]).format(
        pid=sql.Literal(int(arguments["pid"])), **times
    )


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
        Parameter(
            name="query_start",
            kind=Kind.TIMESTAMP,
            help="when its statement started, as pg_stat_activity says it",
        ),
        Parameter(
            name="xact_start",
            kind=Kind.TIMESTAMP,
            help="when its transaction started, where it is idle in transaction",
        ),
        Parameter(
            name="state_change",
            kind=Kind.TIMESTAMP,
            help="since when it is idle, in a transaction or outside",
        ),
    ),
    queue="signals",
    several=True,
    on_standby=True,
    right="signal",
    statement_timeout_ms=10_000,
    lock_timeout_ms=1000,
    destructive=True,
    expires_seconds=60,
    rule=rule,
    object_name=backend_action.object_name,
    resolve=backend_action.resolve,
    guard=guard,
    statement=statement,
    measure=backend_action.measure,
    effect=backend_action.effect,
    settled=settled,
)
