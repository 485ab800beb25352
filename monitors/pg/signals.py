"""The statements that signal a backend, each with its guard inside.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from psycopg import sql

YOUNG_MS = 250
"""A statement that has run for less is not cancelled."""
YOUNG = timedelta(milliseconds=YOUNG_MS)

# The guard stands in the statement: between reading a page and this, the pid
# may belong to another backend, or the backend may run another statement.
# Between the server's look at the backend and the signal's arrival lies some tenth
# of a millisecond in which the statement may end and the next one be hit. Nobody can
# lock a backend, so its age decides: of cancels sent to statements of 0 to 5 ms one
# in fifty came late (raced, 14 to 18), and none is sent; of what has run for YOUNG_MS
# hardly any ends in just that moment. The function is what pg_stat_activity reads;
# asked for one pid it leaves half the time between look and signal.
CANCEL_SQL = """WITH target AS MATERIALIZED (
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

TERMINATE_ACTIVE_SQL = """WITH target AS MATERIALIZED (
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

TERMINATE_IDLE_IN_TRANSACTION_SQL = """WITH target AS MATERIALIZED (
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

TERMINATE_IDLE_SQL = """WITH target AS MATERIALIZED (
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

TERMINATE_SQL = {
    frozenset({"query_start"}): TERMINATE_ACTIVE_SQL,
    frozenset({"xact_start", "state_change"}): TERMINATE_IDLE_IN_TRANSACTION_SQL,
    frozenset({"state_change"}): TERMINATE_IDLE_SQL,
}
"""By the times that say what the session does; pid and backend_start are always given."""


def times_in(arguments: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the times that say what the session does."""
    return frozenset(arguments) - {"pid", "backend_start"}


def cancel(arguments: Mapping[str, str]) -> sql.Composed:
    """Return the guarded cancel; its row is (matched, signalled)."""
    return sql.SQL(CANCEL_SQL).format(
        pid=sql.Literal(int(arguments["pid"])),
        backend_start=timestamp(arguments["backend_start"]),
        query_start=timestamp(arguments["query_start"]),
        young=sql.SQL("interval {}").format(sql.Literal(f"{YOUNG_MS} ms")),
    )


def terminate(arguments: Mapping[str, str]) -> sql.Composed:
    """Return the guarded terminate; its row is (matched, signalled)."""
    times = {name: timestamp(text) for name, text in arguments.items() if name != "pid"}
    return sql.SQL(TERMINATE_SQL[times_in(arguments)]).format(
        pid=sql.Literal(int(arguments["pid"])), **times
    )


def timestamp(text: str) -> sql.Composed:
    """Return a cleaned moment as SQL."""
    return sql.SQL("{}::timestamptz").format(sql.Literal(text))
