"""Cancel the statement that a backend runs; its session and transaction stay.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import psycopg
from psycopg import sql

from monitors import backend_action
from monitors.action import (
    Action,
    Arguments,
    Changed,
    Guarded,
    Identity,
    Kind,
    Parameter,
    Refused,
)
from monitors.pg import backends

YOUNG_MS = 250
"""A statement that has run for less is not cancelled."""
YOUNG = timedelta(milliseconds=YOUNG_MS)
UNREACHED = (
    "It waits for its client, and a cancel reaches it only once that sends or reads something;"
    " terminating it does at once."
)

# The guard stands in the statement: between reading a page and this, the pid
# may belong to another backend, or the backend may run another statement.
# Between the server's look at the backend and the signal's arrival lies some tenth
# of a millisecond in which the statement may end and the next one be hit. Nobody can
# lock a backend, so its age decides: of cancels sent to statements of 0 to 5 ms one
# in fifty came late (raced, 14 to 18), and none is sent; of what has run for YOUNG_MS
# hardly any ends in just that moment. The function is what pg_stat_activity reads;
# asked for one pid it leaves half the time between look and signal.
SQL = """WITH target AS MATERIALIZED (
  SELECT a.pid
    FROM pg_catalog.pg_stat_get_activity({pid}) AS a
   WHERE a.backend_start = {backend_start}
     AND a.query_start = {query_start}
     AND a.query_start < pg_catalog.clock_timestamp() - {young}
     AND a.state IN ('active', 'fastpath function call')
     AND a.backend_type = 'client backend'
     AND a.pid <> pg_catalog.pg_backend_pid())
SELECT (SELECT count(*) FROM target) AS matched,
       (SELECT pg_catalog.pg_cancel_backend(target.pid) FROM target) AS signalled"""


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the same backend runs the same statement."""
    backend = backend_action.same_backend(connection, arguments, identity)
    if backend.state.startswith("idle in transaction"):
        message = "The session is idle in transaction, there is nothing to cancel: terminate it."
        raise Refused(message)
    backend_action.same_statement(backend, arguments)
    if backend.query_start and backend.read_at - backend.query_start < YOUNG:
        message = (
            f"Its statement began less than {YOUNG_MS} ms ago: a cancel could arrive when the next"
            " one runs. Nothing was sent. Ask again if it still runs."
        )
        raise Changed(message)
    seen = backend_action.seen(connection, backend)
    return replace(seen, warnings=[UNREACHED]) if backend.awaits_client else seen


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the guarded signal; its row is (matched, signalled)."""
    return sql.SQL(SQL).format(
        pid=sql.Literal(int(arguments["pid"])),
        backend_start=backend_action.timestamp(arguments["backend_start"]),
        query_start=backend_action.timestamp(arguments["query_start"]),
        young=sql.SQL("interval {}").format(sql.Literal(f"{YOUNG_MS} ms")),
    )


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
