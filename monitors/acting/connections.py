"""The operator's connections to a target: one to look, one to send, one kept for the next signal."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import psycopg

from monitors.action import Action as Spec, Refused
from monitors.kinds import PGBOUNCER
from monitors.models import Action, Target
from monitors.pg import connect, console, console_door, pinned
from monitors.pg.errors import Unreachable
from monitors.pg.identity import Identity, read_identity

log = logging.getLogger(__name__)

LOOK_TIMEOUT_MS = 3000
LOOK_LOCK_TIMEOUT_MS = 500
HAND_SECONDS = 60.0
"""How long a connection that sent a signal is kept for the next."""
TAKE_SECONDS = 3.0
"""How long a kept connection may take to answer before another is opened."""
MARGIN_SECONDS = 15
"""How much longer than its statement_timeout a statement is waited for."""


def application_name(row: Action) -> str:
    """Return the name of the connection that carries an action out, on the target."""
    return f"howdah:action:{row.pk}"


@contextlib.contextmanager
def looking(address: connect.Address, row: Action) -> Iterator[psycopg.Connection]:
    """Open a read-only connection that waits for nothing, of a pooler to its console; raises Unreachable."""
    if row.target is not None and row.target.kind == PGBOUNCER:
        connection = console_door.open_console(address, purpose=f"watch:{row.pk}")
    else:
        connection = connect.open_target(
            address,
            purpose=f"watch:{row.pk}",
            statement_timeout_ms=LOOK_TIMEOUT_MS,
            lock_timeout_ms=LOOK_LOCK_TIMEOUT_MS,
            read_only=True,
        )
    try:
        yield connection
    finally:
        connection.close()


def open_hand(address: connect.Address, row: Action, spec: Spec) -> psycopg.Connection:
    """Open the connection that sends the statement; raises Unreachable.

    The server looks each second whether we are still there: a worker that was
    killed must not leave a VACUUM FULL in the lock queue. Of a pooler it leads to its console.
    """
    if spec.kind == PGBOUNCER:
        return console_door.open_console(address, purpose=f"action:{row.pk}")
    return connect.open_target(
        address,
        purpose=f"action:{row.pk}",
        statement_timeout_ms=spec.statement_timeout_ms,
        lock_timeout_ms=spec.lock_timeout_ms,
        read_only=False,
        client_connection_check=True,
        counted=spec.settled is None,
    )


@contextlib.contextmanager
def sending(address: connect.Address, row: Action, spec: Spec) -> Iterator[psycopg.Connection]:
    """Lend a new connection that sends one statement; raises Unreachable."""
    connection = open_hand(address, row, spec)
    try:
        yield connection
    finally:
        connection.close()


class Hands:
    """The connections that sent a signal, kept for the next one: where one query is stuck, more are.

    One a target at most, closed after 60 s without use. It is looked at like a new one
    before each use: who answers, and whether it may be acted on.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[connect.Address, psycopg.Connection, threading.Timer]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def signalling(
        self, address: connect.Address, row: Action, spec: Spec
    ) -> Iterator[psycopg.Connection]:
        """Lend a connection that sends a signal, a kept or a new one; raises Unreachable."""
        connection = self._take(address, row, spec) or open_hand(address, row, spec)
        try:
            yield connection
        except (psycopg.Error, Unreachable):
            connection.close()
            raise
        finally:
            if address.dbname != connect.MAINTENANCE:
                connection.close()  # it would be in the way of whoever drops or renames that one
            if not connection.closed:
                self._keep(row.target_id or 0, address, connection)

    def close(self) -> None:
        """Close every connection that is kept."""
        with self._lock:
            kept, self._kept = list(self._kept.values()), {}
        for _, connection, timer in kept:
            timer.cancel()
            connection.close()

    def _take(self, address: connect.Address, row: Action, spec: Spec) -> psycopg.Connection | None:
        """Return the target's kept connection under a new name, None where none is fit."""
        with self._lock:
            found = self._kept.pop(row.target_id or 0, None)
        if found is None:
            return None
        known, connection, timer = found
        timer.cancel()
        if known == address and self._name(connection, application_name(row), spec):
            return connection
        connection.close()
        return None

    @staticmethod
    def _name(connection: psycopg.Connection, name: str, spec: Spec | None) -> bool:
        """Name a connection and set its limits; False where it has died meanwhile."""
        limits = (
            {
                "statement_timeout": spec.statement_timeout_ms,
                "lock_timeout": spec.lock_timeout_ms,
            }
            if spec
            else {}
        )
        settings = {"application_name": name, **{key: str(ms) for key, ms in limits.items()}}
        try:
            with connect.deadline(connection, TAKE_SECONDS):
                pinned.set_session(connection, settings)
        except (psycopg.Error, Unreachable):
            return False
        return True

    def _keep(
        self, target_id: int, address: connect.Address, connection: psycopg.Connection
    ) -> None:
        """Keep a connection for a minute, instead of the one that is kept.

        It gets a name at which nobody takes it for an action that runs.
        """
        if not self._name(connection, "howdah:operator", None):
            connection.close()
            return
        timer = threading.Timer(HAND_SECONDS, self._drop, (target_id, connection))
        timer.daemon = True
        with self._lock:
            former = self._kept.pop(target_id, None)
            self._kept[target_id] = (address, connection, timer)
        timer.start()
        if former is not None:
            former[2].cancel()
            former[1].close()

    def _drop(self, target_id: int, connection: psycopg.Connection) -> None:
        """Close a connection that nobody used for a minute."""
        with self._lock:
            found = self._kept.get(target_id)
            if found is None or found[1] is not connection:
                return
            del self._kept[target_id]
        connection.close()


HANDS = Hands()


def version_checked(connection: psycopg.Connection, target: Target, spec: Spec) -> int:
    """Return the version of who answers (180004; 12601 of a pooler).

    Raises Refused unless it may be acted on in this way.
    """
    if spec.kind != PGBOUNCER:
        return check_server(connection, target, spec).server_version
    version, _ = console.version_of(connection)
    lacks = spec.lacks(version)
    if lacks:
        raise Refused(lacks)
    return version


def check_server(connection: psycopg.Connection, target: Target, spec: Spec) -> Identity:
    """Return who answers, without settings.

    Raises Refused unless it is the target's server and may be acted on in this way.
    """
    identity = read_identity(connection, with_settings=False)
    if identity.system_identifier is None:
        message = (
            "Which server answers is not known, so nothing is done to it."
            f" {identity.unknown['system_identifier']}"
        )
        raise Refused(message)
    if target.system_identifier and identity.system_identifier != target.system_identifier:
        message = (
            f"Another server answers at {target.address}: its system identifier is"
            f" {identity.system_identifier}, known is {target.system_identifier}."
        )
        raise Refused(message)
    if identity.in_recovery and not spec.on_standby:
        message = f"{target.name} is a standby in recovery: act on its primary."
        raise Refused(message)
    if identity.superuser and not target.allow_superuser:
        message = (
            f"The operator login {target.operator_user} is a superuser: give it less,"
            " or allow that for this target."
        )
        raise Refused(message)
    return identity


LONG_AT_ONCE = 12
"""So many long actions run in one process; its other tasks keep their threads."""
LONG_SLOTS = threading.BoundedSemaphore(LONG_AT_ONCE)


@contextlib.contextmanager
def slot(spec: Spec) -> Iterator[bool]:
    """Give a long action one of this process's slots; False where none is free."""
    if spec.queue != "long":
        yield True
        return
    taken = LONG_SLOTS.acquire(blocking=False)
    try:
        yield taken
    finally:
        if taken:
            LONG_SLOTS.release()
