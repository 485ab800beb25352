"""What all actions on a backend share: its identity, the guard, and who is released."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import psycopg

from monitors import words
from monitors.action import (
    MAX_PID,
    Arguments,
    Changed,
    Guarded,
    Identity,
    InvalidArguments,
    Kind,
    Measured,
    Parameter,
    Refused,
)
from monitors.advisor import is_ours
from monitors.pg import backends, rights, signals
from monitors.pg.backends import Backend
from monitors.pg.text import redact

PID = Parameter(
    name="pid",
    kind=Kind.INT,
    required=True,
    minimum=1,
    maximum=MAX_PID,
    help="the backend's pid",
)
BACKEND_START = Parameter(
    name="backend_start",
    kind=Kind.TIMESTAMP,
    required=True,
    help="when the backend started, as pg_stat_activity says it: pids are used again",
)
DOING = (
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
)
"""The times that say what the session does: of these one way (`one_doing`)."""
RELEASE_SECONDS = 0.5


def object_name(arguments: Arguments, identity: Identity) -> str:
    """Return `pid 4711`."""
    return f"pid {arguments['pid']}"


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return the arguments: pid and times are the identity."""
    return dict(arguments)


def same_backend(
    connection: psycopg.Connection, arguments: Arguments, identity: Identity
) -> Backend:
    """Return the backend that was asked for; raises Changed, or Refused where a rule forbids."""
    pid = int(arguments["pid"])
    backend = backends.find(connection, pid)
    if backend is None:
        message = f"The backend with pid {pid} has ended: nothing was sent."
        raise Changed(message)
    me = backends.myself(connection)
    if backend.backend_start is None:
        needs = rights_to_gain(connection, "pg_read_all_stats")
        message = f"The operator login can't see this backend: {needs}"
        raise Refused(message)
    if backend.backend_start != backends.moment(arguments["backend_start"]):
        message = f"pid {pid} is no longer the same backend: nothing was sent."
        raise Changed(message)
    if is_ours(backend.application_name, backend.usename, identity.get("logins", ())):
        message = "This is one of Howdah's own backends."
        raise Refused(message)
    reason = backends.reason_not_to_signal(backend, me)
    if reason:
        raise Refused(reason)
    if not (me.may_signal or me.superuser or backend.is_mine):
        needs = rights_to_gain(connection, "pg_signal_backend")
        message = f"The login may not signal others: {needs}"
        raise Refused(message)
    return backend


def rights_to_gain(connection: psycopg.Connection, role: str) -> str:
    """Return the statements that give the login a predefined role's rights."""
    return rights.read_rights(connection).gain([role], connection.info.server_version)


def same_statement(backend: Backend, arguments: Arguments) -> None:
    """Raise Changed unless the backend still runs the statement that was asked for."""
    if backend.state not in {"active", "fastpath function call"}:
        message = f"Its statement has ended, the backend is {backend.state}: nothing was sent."
        raise Changed(message)
    if backend.query_start != backends.moment(arguments["query_start"]):
        now = redact(backend.query)[:200]
        message = f"The backend now runs another statement ({now}): nothing was sent."
        raise Changed(message)


def old_enough(backend: Backend) -> None:
    """Raise Changed where the statement began so lately that a cancel could hit the next one."""
    if backend.query_start and backend.read_at - backend.query_start < signals.YOUNG:
        message = (
            f"Its statement began less than {signals.YOUNG_MS} ms ago: a cancel could arrive when"
            " the next one runs. Nothing was sent. Ask again if it still runs."
        )
        raise Changed(message)


def same_doing(backend: Backend, arguments: Arguments) -> None:
    """Raise Changed unless the backend runs the same statement or idles in the same way."""
    if "query_start" in arguments:
        same_statement(backend, arguments)
    elif "xact_start" in arguments:
        same_transaction(backend, arguments)
    else:
        same_idleness(backend, arguments)


def one_doing(arguments: Arguments) -> None:
    """Raise InvalidArguments unless what the session does is named in one way."""
    if signals.times_in(arguments) not in signals.TERMINATE_SQL:
        message = (
            "Give query_start for a backend that runs a statement, xact_start and state_change"
            " for one that is idle in transaction, or state_change for one that is idle."
        )
        raise InvalidArguments(message)


def same_transaction(backend: Backend, arguments: Arguments) -> None:
    """Raise Changed unless the backend is idle in the transaction that was asked for."""
    asked = (backends.moment(arguments["xact_start"]), backends.moment(arguments["state_change"]))
    if not backend.state.startswith("idle in transaction") or asked != (
        backend.xact_start,
        backend.state_change,
    ):
        message = (
            f"The backend is no longer idle in that transaction but {backend.state}:"
            " nothing was sent."
        )
        raise Changed(message)


def same_idleness(backend: Backend, arguments: Arguments) -> None:
    """Raise Changed unless the backend has been idle since the moment that was asked for."""
    since = backends.moment(arguments["state_change"])
    if backend.state != "idle" or backend.state_change != since:
        message = "The backend is no longer idle since then: nothing was sent."
        raise Changed(message)


def since(moment: datetime | None, now: datetime) -> str:
    """Return how long it is since a moment, '' for None."""
    return words.duration(max(0.0, (now - moment).total_seconds())) if moment else ""


def seen(connection: psycopg.Connection, backend: Backend) -> Guarded:
    """Return what a person should know of a backend before it is signalled."""
    behind = backends.waiters_behind(connection, backend.pid)
    now = backend.read_at
    facts = [
        ("User", backend.usename),
        ("Application", backend.application_name),
        ("Database", backend.datname),
        ("State", backend.state),
        ("Waits for", backend.waits),
        ("Statement for", since(backend.query_start, now)),
        ("Transaction for", since(backend.xact_start, now)),
        ("Connected for", since(backend.backend_start, now)),
        ("Blocks", f"{len(behind)} sessions" if len(behind) != 1 else "1 session"),
        ("Statement", redact(backend.query)[:500]),
    ]
    return Guarded(
        facts=[(label, value) for label, value in facts if value],
        conflicts=backends.describe(connection, behind) if behind else [],
    )


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return the victim and who waits behind it; afterwards, who still does."""
    pid = int(identity["pid"])
    if before is None:
        backend = backends.find(connection, pid)
        waiting = sorted(backends.waiters_behind(connection, pid))
        return {**victim(backend), "waiting_pids": waiting}
    deadline = time.monotonic() + RELEASE_SECONDS
    while True:
        still = backends.waiters_behind(connection, pid) & set(before["waiting_pids"])
        if not still or time.monotonic() > deadline:
            released = len(before["waiting_pids"]) - len(still)
            return {"waiting_pids": sorted(still), "released_count": released}
        time.sleep(0.02)


def victim(backend: Backend | None) -> dict[str, Any]:
    """Return who a backend is, its statement without literals; {} where it is gone."""
    if backend is None:
        return {}
    return {
        "usename": backend.usename,
        "application_name": backend.application_name,
        "datname": backend.datname,
        "state": backend.state,
        "query": redact(backend.query)[:2000],
    }


def effect(before: Measured, after: Measured) -> str:
    """Return `3 sessions released`, '' where nobody waited."""
    waited = len(before.get("waiting_pids", []))
    released = after.get("released_count", 0)
    if not waited:
        return ""
    counted = f"{released} session{'' if released == 1 else 's'} released"
    return counted if released == waited else f"{counted}, {waited - released} still wait"
