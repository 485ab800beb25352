"""What every session of Howdah is set to, and the proof that it holds.

A role, a database, the server and a pooler on the way may all set a session
otherwise: then times are spelled in another zone, a VACUUM without the right
says nothing, or a read has no time limit. So what was set is read back, and a
connection on which it does not hold is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import psycopg

from monitors.pg.errors import Unreachable, reason_of

ROUNDS = 3
"""How often two connections are compared before they count as two sessions."""
CLEANED_SECONDS = 1.0
"""How long a pooler may take to clean what a client left."""
NAMED = 3
"""Settings that a sentence names."""

# A role, a database or the server may set each of these otherwise: what is read back, how it is
# spelled, what is told of a VACUUM, and how long all of it may take.
PINNED = {
    "array_nulls": "on",
    "bytea_output": "hex",
    "client_min_messages": "notice",
    "DateStyle": "ISO, MDY",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "exit_on_error": "off",
    "extra_float_digits": "1",
    "idle_in_transaction_session_timeout": "30000",
    "IntervalStyle": "postgres",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "quote_all_identifiers": "off",
    "role": "none",
    "row_security": "on",
    # PgBouncer 1.26 ends a connection whose search_path is empty text; this is an empty name.
    "search_path": '""',
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
    "transform_null_equals": "off",
}
"""Each setting as `pg_settings` shows it; given at the start, which a role's own value does not beat."""
LATER = {
    "idle_session_timeout": "0",  # 14: an older server must get as far as being told so
    "restrict_nonsystem_relation_kind": "",  # 17, and late minor versions before it
    "stats_fetch_consistency": "cache",  # 15
    "transaction_timeout": "0",  # 17
}
"""The same for what not every version has: a start would fail, so they are set after it."""


def options(settings: Mapping[str, str]) -> str:
    """Return settings as a connection's `options`, blanks escaped."""
    escaped = {name: value.replace(" ", r"\ ") for name, value in settings.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


# Only the bare word takes several arrays; an empty search_path finds it in pg_catalog.
SET_SQL = """
SELECT pg_catalog.set_config(name, value, false)
  FROM unnest(%s::text[], %s::text[]) AS s (name, value)
"""


def set_session(connection: psycopg.Connection, settings: Mapping[str, str]) -> None:
    """Change settings of a session until it ends; one round trip."""
    connection.execute(SET_SQL, [list(settings), list(settings.values())])


# The function behind pg_settings: the right to read the view may have been taken away.
READ_BACK_SQL = """
SELECT s.name, s.setting
  FROM pg_catalog.pg_show_all_settings() AS s
 WHERE s.name = ANY (%(names)s)
    OR s.name = 'track_counts' AND s.source IN ('user', 'database user')
 UNION ALL
SELECT 'role', pg_catalog.current_setting('role')
 UNION ALL
SELECT 'pid', pg_catalog.pg_backend_pid()::text
"""
BEGINS_SQL = """
SELECT s.name, s.setting, s.source
  FROM pg_catalog.pg_show_all_settings() AS s
 WHERE s.name IN ('default_transaction_read_only', 'track_counts')
"""
PID_SQL = "SELECT pg_catalog.pg_backend_pid()"

IN_TRANSACTION_MODE = (
    "A pooler in transaction or statement mode answers there: two connections got one process of the"
    " server, so no time limit would hold. Connect to the server itself, or set pool_mode = session for this"
    " database in the pooler."
)
NO_SERVER = (
    "{what} did not keep Howdah's settings ({named}): its sessions would have no limits there."
    " Connect to the PostgreSQL server itself."
)
NO_SECOND = (
    "A pooler answers there, and a second connection to compare with failed: give this database and"
    " login a pool_size of at least 2 in the pooler."
)
NO_RESET = (
    "A pooler answers there that takes nothing back when a client leaves: the next one would get"
    " Howdah's settings. Connect to the server itself, or set server_reset_query = DISCARD ALL in"
    " the pooler."
)
UNCOUNTED = (
    "track_counts is off for this login alone, so a VACUUM of it would leave no trace in the"
    " statistics. Run as a superuser: ALTER ROLE … RESET track_counts;"
)


def pin(
    connection: psycopg.Connection,
    wanted: Mapping[str, str],
    another: Callable[[], AbstractContextManager[psycopg.Connection]],
    *,
    counted: bool,
) -> None:
    """Make sure that a new session is set to what is wanted, and to LATER.

    `another` opens a second connection to the same place: behind a pooler, which
    gives each client a pid of its own making, nothing is set before it is
    known that no other client would get it. Raises Unreachable, psycopg.Error.
    """
    wanted = {**wanted, **LATER}
    seen = read_back(connection, wanted)
    missing = differences(seen, wanted)
    pooled = seen["pid"] != str(connection.info.backend_pid)
    if pooled:
        refuse_shared(connection, another)
    settable = {name: value for name, value in missing.items() if pooled or name in LATER}
    if settable:
        set_session(connection, settable)
        missing = differences(read_back(connection, wanted), wanted)
    # Only a superuser may set it, so it can't be pinned.
    if counted and seen.get("track_counts") == "off":
        raise Unreachable(UNCOUNTED)
    if missing:
        what = "The pooler there" if pooled else "What answers there"
        raise Unreachable(NO_SERVER.format(what=what, named=named(missing)))


def read_back(connection: psycopg.Connection, names: Mapping[str, str]) -> dict[str, str]:
    """Return {name: setting} as the server has them, and its `pid`; what it lacks is not in it."""
    values = {"names": list(names)}
    return dict(connection.execute(READ_BACK_SQL, values, prepare=False).fetchall())


def begins_with(connection: psycopg.Connection) -> dict[str, tuple[str, str]]:
    """Return {name: (setting, source)} of what role, database or server may say and is not pinned."""
    return {name: (text, source) for name, text, source in connection.execute(BEGINS_SQL)}


def differences(seen: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return what is wanted and not so; what not every version has may be missing."""
    return {
        name: value
        for name, value in wanted.items()
        if seen.get(name, value if name in LATER else None) != value
    }


def named(missing: Mapping[str, str]) -> str:
    """Return `statement_timeout, lock_timeout, role and 4 more`."""
    first = ", ".join(list(missing)[:NAMED])
    more = len(missing) - NAMED
    return f"{first} and {more} more" if more > 0 else first


def refuse_shared(
    connection: psycopg.Connection,
    another: Callable[[], AbstractContextManager[psycopg.Connection]],
) -> None:
    """Raise Unreachable unless a pooler gives each client a process of its own, and cleans it after.

    What one client sets must reach no other, neither beside it nor after it.
    """
    left = None
    try:
        with another() as other:
            if are_apart(connection, other):
                left = leave_mark(other)
    except (psycopg.Error, Unreachable) as error:
        raise Unreachable(f"{NO_SECOND} {reason_of(error)}") from None
    if left is None:
        raise Unreachable(IN_TRANSACTION_MODE)
    if not is_cleaned(connection, left):
        raise Unreachable(NO_RESET)


def are_apart(one: psycopg.Connection, other: psycopg.Connection) -> bool:
    """Return whether two clients keep processes of their own, in turn and at the same time.

    Else the one that comes next gets the process that was given back last, or the one
    that is free longest; only while both are held do they differ.
    """
    pids = {one: pid_of(one), other: pid_of(other)}
    if pids[one] == pids[other]:
        return False
    for _ in range(ROUNDS):
        for first, second in ((one, other), (other, one)):
            if pid_of(first) != pids[first]:
                return False
            with first.transaction():
                if pid_of(first) != pids[first] or pid_of(second) != pids[second]:
                    return False
    return True


MARK = int.from_bytes(b"howdah")
"""The advisory lock that shows whether a pooler discards what a client leaves."""
LEAVE_MARK_SQL = "SELECT pg_catalog.pg_advisory_lock_shared(%s), pg_catalog.pg_backend_pid()"
# The function behind pg_locks, as above. A lock of one bigint has objsubid 1.
FIND_MARK_SQL = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_lock_status() AS l
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid = %(pid)s
       AND (l.classid::bigint << 32) | l.objid::bigint = %(mark)s
)
"""


def leave_mark(connection: psycopg.Connection) -> int:
    """Let a session that is about to end hold the mark; returns the pid of its process.

    A shared lock that nobody else asks for, and none the more where a process has it already: no
    setting, so whom it stays with notices nothing. All can see it, whoever gets the process next.
    """
    row = connection.execute(LEAVE_MARK_SQL, [MARK], prepare=False).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    pid: int = row[1]
    return pid


def is_cleaned(connection: psycopg.Connection, pid: int) -> bool:
    """Return whether the mark of a session that ended goes away, as `DISCARD ALL` takes it."""
    ends = time.monotonic() + CLEANED_SECONDS
    while holds_mark(connection, pid):
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def holds_mark(connection: psycopg.Connection, pid: int) -> bool:
    """Return whether a process of the server holds the mark."""
    row = connection.execute(FIND_MARK_SQL, {"pid": pid, "mark": MARK}, prepare=False).fetchone()
    assert row is not None  # noqa: S101 - a SELECT of EXISTS has one row
    held: bool = row[0]
    return held


def pid_of(connection: psycopg.Connection) -> int:
    """Return the pid of the process that answers, as the server has it."""
    row = connection.execute(PID_SQL, prepare=False).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    pid: int = row[0]
    return pid
