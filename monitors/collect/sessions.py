"""The connections that reading keeps: one for each lease, opened anew by age and after a failure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg

from monitors.collect.server import note_identity
from monitors.models import (
    Target,
    TargetSecret,
)
from monitors.pg import connect, pinned
from monitors.pg.errors import Full, Unreachable
from monitors.pg.extensions import Installed
from monitors.pg.identity import Identity, oid_of_database, read_identity
from monitors.targets.logins import collector_address

IDENTITY_AGAIN_SECONDS = 60
CONNECTION_SECONDS = 900
"""A connection that is older is opened anew: a backend's memory grows with what it has read."""
ENOUGH_CONNECTIONS = 3
"""Of a login: one for each lease and one for a check; with fewer none is kept."""
FULL_AGAIN_SECONDS = 0.25


@dataclass
class Kept:
    """An open connection to one database of a target."""

    dbname: str
    connection: psycopg.Connection
    datid: int  # the database's oid: another one may have its name by now
    identity: Identity
    opened_at: float  # monotonic
    identity_at: float  # monotonic

    @property
    def is_fit(self) -> bool:
        """Whether it is open, and no older than what is kept that long."""
        return not self.connection.closed and time.monotonic() - self.opened_at < CONNECTION_SECONDS


@dataclass
class Session:
    """The connection of one lease; used by one task at a time.

    One connection at a time, whatever there is to read: a login may have no more.
    """

    kind: str
    fingerprint: tuple[object, ...] = ()
    address: connect.Address | None = None
    kept: Kept | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    extensions: dict[str, tuple[str, Installed]] = field(default_factory=dict)
    """Where each extension was found: (database, version and schema)."""

    def open(self, target: Target, dbname: str, seconds: float) -> Kept:
        """Return the connection to a database, opened instead of another one's.

        Raises Unreachable, psycopg.Error.
        """
        if self.kept is not None and self.kept.dbname == dbname and self.kept.is_fit:
            return self.kept
        self.close()
        assert self.address is not None  # noqa: S101 - set by `prepare`
        connection = open_patiently(
            self.address.in_database(dbname), f"collector:{self.kind}", seconds
        )
        try:
            with connect.deadline(connection, seconds):
                identity = read_identity(connection)
                datid = oid_of_database(connection)
        except (psycopg.Error, Unreachable):
            connection.close()
            raise
        now = time.monotonic()
        self.kept = Kept(dbname, connection, datid, identity, opened_at=now, identity_at=now)
        note_identity(target, identity)
        if target.frozen_reason:
            raise Unreachable(target.frozen_reason)
        return self.kept

    def prepare(self, target: Target) -> None:
        """Read the login; connections of a former address or password are closed."""
        fingerprint = fingerprint_of(target)
        if fingerprint != self.fingerprint:
            self.close()
            self.extensions.clear()
            self.address = collector_address(target)
            self.fingerprint = fingerprint

    def close(self) -> None:
        """Close the connection."""
        if self.kept is not None:
            self.kept.connection.close()
            self.kept = None

    def drop_dead(self, seconds: float) -> None:
        """Close a kept connection that the other side has closed; raises Unreachable.

        Found out before anything is read: a restart, an idle_session_timeout or somebody who
        ended the session costs no snapshot.
        """
        if self.kept is None:
            return
        try:
            with connect.deadline(self.kept.connection, seconds):
                pinned.pid_of(self.kept.connection)
        except psycopg.Error:
            self.close()

    def let_go(self) -> None:
        """Close the connection unless nobody misses what it takes.

        A session in a database makes its DROP, its RENAME and its use as a template fail, and a
        login or database of few connections needs them for the other lease.
        """
        if self.kept is None:
            return
        limit = self.kept.identity.connection_limit
        if self.kept.dbname != connect.MAINTENANCE or (
            limit is not None and limit < ENOUGH_CONNECTIONS
        ):
            self.close()


def open_patiently(address: connect.Address, purpose: str, seconds: float) -> psycopg.Connection:
    """Open a connection that reads; waits while others have all of the login's connections.

    Raises Unreachable: Full where none became free in time.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            return connect.open_target(
                address,
                purpose=purpose,
                statement_timeout_ms=5000,
                lock_timeout_ms=LOCK_TIMEOUT_MS,
                read_only=True,
                deadline_seconds=max(ends - time.monotonic(), 0),
            )
        except Full:
            if time.monotonic() + FULL_AGAIN_SECONDS > ends:
                raise
            time.sleep(FULL_AGAIN_SECONDS)


def fingerprint_of(target: Target) -> tuple[object, ...]:
    """Return what a kept connection was made with."""
    changed_at = TargetSecret.objects.filter(
        target=target, login=TargetSecret.Login.COLLECTOR
    ).values_list("changed_at", flat=True)
    return (
        *(target.host, target.port, target.user, target.sslmode, target.require_auth),
        changed_at.first(),
    )


class Sessions:
    """Every session of this process, by target and kind of lease."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, str], Session] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(
        self, target_id: int, kind: str, make: Callable[[str], Session] = Session
    ) -> Iterator[Session]:
        """Lend a target's session to one task, made where it has none.

        Raises Busy while another task has it.
        """
        with self._lock:
            session = self._sessions.setdefault((target_id, kind), make(kind))
        if not session.lock.acquire(blocking=False):
            raise Busy
        try:
            yield session
        finally:
            session.lock.release()

    def forget(self, keep: set[int]) -> None:
        """Close the sessions of targets that are no longer watched."""
        with self._lock:
            for key, session in list(self._sessions.items()):
                # One that is in use ends by its deadline and is closed the next time.
                if key[0] not in keep and session.lock.acquire(blocking=False):
                    session.close()
                    del self._sessions[key]


class Busy(Exception):
    """The former task of this lease still runs; its deadline will end it."""


SESSIONS = Sessions()


def close_unwatched() -> None:
    """Close this process's connections to targets that are disabled or gone."""
    watched = Target.objects.filter(enabled=True, deleting_at__isnull=True)
    SESSIONS.forget(keep=set(watched.values_list("pk", flat=True)))


LOCK_TIMEOUT_MS = 500
