"""Backends as actions see them: who one is now, whom it blocks, what may not be signalled.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg.rows import class_row, dict_row

from monitors.pg.text import decoded, redact

# In autocommit each statement sees the present; inside a transaction the view
# would keep its first answer. A statement of another database may be in another
# encoding: as bytes it fails nothing.
BACKEND_SQL = """
SELECT a.pid,
       a.backend_start,
       a.query_start,
       a.xact_start,
       a.state_change,
       coalesce(a.state, '') AS state,
       coalesce(a.backend_type, '') AS backend_type,
       coalesce(a.usename::text, '') AS usename,
       coalesce(a.application_name, '') AS application_name,
       coalesce(a.datname::text, '') AS datname,
       coalesce(a.wait_event_type, '') AS wait_event_type,
       coalesce(a.wait_event, '') AS wait_event,
       pg_catalog.textsend(coalesce(a.query, '')) AS query,
       coalesce(r.rolsuper, false) AS superuser,
       coalesce(pg_catalog.pg_has_role(current_user, a.usesysid, 'USAGE'), false) AS is_mine,
       pg_catalog.clock_timestamp() AS read_at
  FROM pg_catalog.pg_stat_activity AS a
  LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
 WHERE a.pid = %(pid)s
"""

MYSELF_SQL = """
SELECT r.rolsuper AS superuser,
       pg_catalog.pg_has_role(r.oid, 'pg_signal_backend', 'USAGE') AS may_signal,
       pg_catalog.pg_has_role(r.oid, 'pg_read_all_stats', 'USAGE') AS may_see,
       r.rolname::text AS rolname,
       pg_catalog.pg_backend_pid() AS pid
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolname = current_user
"""

WAITERS_SQL = """
SELECT a.pid,
       pg_catalog.pg_blocking_pids(a.pid) AS blockers
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.wait_event_type = 'Lock'
    OR a.wait_event = 'RepackWorkerExport'  -- its worker waits for a lock
"""

DESCRIBED_SQL = """
SELECT a.pid,
       coalesce(a.usename::text, '') AS usename,
       coalesce(a.application_name, '') AS application_name,
       pg_catalog.textsend(coalesce(a.query, '')) AS query,
       extract(epoch FROM pg_catalog.clock_timestamp()
               - coalesce(a.xact_start, a.query_start, a.backend_start))::float8 AS seconds
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.pid = ANY (%(pids)s)
 ORDER BY seconds DESC NULLS LAST
"""

NAMED_SQL = """
SELECT a.pid
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.application_name = %(name)s
   AND a.pid <> pg_catalog.pg_backend_pid()
"""

CANCEL_OURS_SQL = """
SELECT pg_catalog.pg_cancel_backend(a.pid)
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.pid = %(pid)s
   AND a.backend_start = %(backend_start)s
   AND a.application_name = %(name)s
"""

LIMIT_SQL = """
SELECT pg_catalog.set_config('lock_timeout', %(text)s, false),
       pg_catalog.set_config('statement_timeout', %(text)s, false)
"""

OWN_SQL = """
SELECT a.pid,
       a.backend_start
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.pid = pg_catalog.pg_backend_pid()
"""


@dataclass(frozen=True)
class Backend:
    """One backend at one moment; its start is None where the login may not see it."""

    pid: int
    backend_start: datetime | None
    query_start: datetime | None
    xact_start: datetime | None
    state_change: datetime | None
    state: str
    backend_type: str
    usename: str
    application_name: str
    datname: str
    wait_event_type: str
    wait_event: str
    query: str
    superuser: bool
    is_mine: bool  # of the login that asks, or of a role whose rights it has
    read_at: datetime

    @property
    def awaits_client(self) -> bool:
        """Whether its statement waits for its client: COPY FROM STDIN without data, a result nobody reads.

        A cancel is let by then and takes effect only once the client sends or reads something.
        """
        return self.state == "active" and self.wait_event in {"ClientRead", "ClientWrite"}

    @property
    def waits(self) -> str:
        """`Lock: relation`, '' where it does not wait."""
        return f"{self.wait_event_type}: {self.wait_event}" if self.wait_event_type else ""


@dataclass(frozen=True)
class Myself:
    """The login that signals, and its own backend."""

    superuser: bool
    may_signal: bool
    may_see: bool
    rolname: str
    pid: int


def find(connection: psycopg.Connection, pid: int) -> Backend | None:
    """Return the backend that has a pid now, None for nobody."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(BACKEND_SQL, {"pid": pid}).fetchone()
    return Backend(**{**row, "query": decoded(row["query"])}) if row else None


def myself(connection: psycopg.Connection) -> Myself:
    """Return who asks."""
    with connection.cursor(row_factory=class_row(Myself)) as cursor:
        found = cursor.execute(MYSELF_SQL).fetchone()
    assert found is not None  # noqa: S101 - a session has a role
    return found


def reason_not_to_signal(backend: Backend, me: Myself) -> str:  # noqa: PLR0911 - one a rule
    """Return why a client's or server's backend is never signalled, '' where it may be."""
    if backend.pid == me.pid:
        return "This is the backend that asks."
    if backend.backend_type == "walsender":
        return "This is a walsender: replication would break."
    if backend.backend_type == "autovacuum worker":
        if "(to prevent wraparound)" in backend.query:
            return "This is an autovacuum to prevent wraparound: it must finish."
        return "This is an autovacuum worker, not a client: it would only start again."
    if backend.backend_type != "client backend":
        return f"This is not a client but a {backend.backend_type or 'hidden process'}."
    if backend.superuser and not me.superuser:
        return "A superuser's backend can be signalled by a superuser alone."
    return ""


def waiters_behind(connection: psycopg.Connection, pid: int) -> set[int]:
    """Return all who wait for a lock behind a backend, directly or behind each other."""
    blockers = {waiter: set(found) for waiter, found in connection.execute(WAITERS_SQL)}
    behind: set[int] = set()
    frontier = {pid}
    while frontier:
        frontier = {
            waiter
            for waiter, found in blockers.items()
            if found & frontier and waiter not in behind
        }
        behind |= frontier
    return behind


def blockers_of(connection: psycopg.Connection, pid: int) -> list[dict[str, object]]:
    """Return those whom a waiting backend waits for, described; [] where it does not wait."""
    waiting: dict[int, list[int]] = dict(connection.execute(WAITERS_SQL).fetchall())
    return describe(connection, waiting.get(pid, []))


def describe(connection: psycopg.Connection, pids: Iterable[int]) -> list[dict[str, object]]:
    """Return pid, usename, application_name, query (redacted) and seconds, longest first."""
    rows = connection.execute(DESCRIBED_SQL, {"pids": sorted(set(pids))}).fetchall()
    return [
        {
            "pid": pid,
            "usename": usename,
            "application_name": application_name,
            "query": redact(decoded(query))[:500],
            "seconds": seconds,
        }
        for pid, usename, application_name, query, seconds in rows
    ]


def own(connection: psycopg.Connection) -> tuple[int, datetime]:
    """Return pid and start of our own backend, together unmistakable.

    The server says the pid: the one that the connection knows may be a pooler's.
    """
    row = connection.execute(OWN_SQL).fetchone()
    assert row is not None  # noqa: S101 - a login sees its own backend
    return row[0], row[1]


def limit(connection: psycopg.Connection, limit_ms: int) -> None:
    """Give a session other time limits for what it sends from now on."""
    connection.execute(LIMIT_SQL, {"text": f"{limit_ms}ms"})


def cancel_ours(
    connection: psycopg.Connection, pid: int, backend_start: datetime, name: str
) -> bool:
    """Cancel what exactly that backend of ours runs; False where it is gone."""
    values = {"pid": pid, "backend_start": backend_start, "name": name}
    row = connection.execute(CANCEL_OURS_SQL, values).fetchone()
    return bool(row and row[0])


def named(connection: psycopg.Connection, name: str) -> list[int]:
    """Return the pids of backends with an application_name, without the one that asks."""
    return [pid for (pid,) in connection.execute(NAMED_SQL, {"name": name})]


def moment(text: str) -> datetime:
    """Return the moment that a cleaned argument names."""
    return datetime.fromisoformat(re.sub(r" ", "T", text, count=1)).astimezone(UTC)
