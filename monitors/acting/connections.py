"""The operator's connections to a target, and the watch over a long statement."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from django.db import DatabaseError, connection as history
from django.utils import timezone
from psycopg import sql
from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row

from monitors.action import Action as Spec, Refused
from monitors.models import Action, Target
from monitors.pg import backends, connect, pinned
from monitors.pg.errors import Unreachable
from monitors.pg.identity import Identity, read_identity
from monitors.probes import progress

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
LOOK_TIMEOUT_MS = 3000
LOOK_LOCK_TIMEOUT_MS = 500
RETRY_SECONDS = 0.5
HAND_SECONDS = 60.0
"""How long a connection that sent a signal is kept for the next."""
TAKE_SECONDS = 3.0
"""How long a kept connection may take to answer before another is opened."""
MARGIN_SECONDS = 15
"""How much longer than its statement_timeout a statement is waited for."""


SKIPPING = frozenset(
    {
        "analyze_rel",
        "cluster_is_permitted_for_relation",
        "cluster_rel",
        "expand_vacuum_rel",
        "reindex_relation",
        "repack_is_permitted_for_relation",
        "vacuum_is_permitted_for_relation",
        "vacuum_is_relation_owner",
        "vacuum_open_relation",
        "vacuum_rel",
        "ReindexMultipleTables",
        "ReindexPartitions",
        "ReindexRelationConcurrently",
    }
)
"""Functions of the server's source whose only warnings say that something is left out."""


@dataclass(frozen=True)
class Notice:
    """What the server said besides the result."""

    severity: str  # WARNING, whatever the server's language
    sqlstate: str
    text: str  # in the server's language: for people alone
    function: str  # of the server's source

    @property
    def skips(self) -> bool:
        """Whether it says that something was left out, for want of a right or a lock.

        VACUUM and ANALYZE report success all the same.
        """
        left_out = self.sqlstate in {"55P03", "42501"} or self.function in SKIPPING
        return self.severity == "WARNING" and left_out


def application_name(row: Action) -> str:
    """Return the name of the connection that carries an action out, on the target."""
    return f"howdah:action:{row.pk}"


@contextlib.contextmanager
def looking(address: connect.Address, row: Action) -> Iterator[psycopg.Connection]:
    """Open a read-only connection that waits for nothing; raises Unreachable."""
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
    killed must not leave a VACUUM FULL in the lock queue.
    """
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


@dataclass
class Watch:
    """Keeps an eye on a long statement of ours: signs of life, progress, the stop button."""

    row: Action
    address: connect.Address
    pid: int
    backend_start: datetime
    server_version: int
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False
    """Whether we cancelled the statement ourselves."""
    blockers: list[dict[str, Any]] = field(default_factory=list)
    """Whom it last waited for."""
    phase: str = ""
    """Where the server last said it was."""
    eye: psycopg.Connection | None = None
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """What the statement returned."""

    def look(self) -> None:
        """Do all of it once; a target or history that does not answer is tried again later."""
        seen = self.see()
        try:
            rows = Action.objects.filter(pk=self.row.pk, state=Action.State.RUNNING)
            rows.update(progress=seen, beat_at=timezone.now())
            stop_asked_by = rows.values_list("stop_asked_by", flat=True).first()
        except DatabaseError as error:
            log.warning("Action %s: no sign of life written: %s", self.row.pk, type(error).__name__)
            history.close()
            return
        if stop_asked_by and not self.stopped:
            self.stop()

    def see(self) -> dict[str, Any]:
        """Return the progress: elapsed_seconds, and phase, pct, blockers where they are known."""
        seen: dict[str, Any] = {"elapsed_seconds": round(time.monotonic() - self.started, 1)}
        try:
            connection = self.open_eye()
            with connect.deadline(connection, 5):
                seen |= progress_of(connection, self.pid, self.server_version)
                waits = backends.blockers_of(connection, self.pid)
                behind = len(backends.waiters_behind(connection, self.pid)) if waits else 0
        except (psycopg.Error, Unreachable) as error:
            log.warning("Action %s: not watched: %s", self.row.pk, type(error).__name__)
            self.close()
            return seen
        self.phase = str(seen.get("phase", self.phase))
        if waits:
            self.blockers = waits
            named = self.phase if self.phase.startswith("waiting") else "waiting for a lock"
            waits_for = words_of(waits[0]) + (f", and {behind} wait behind this" if behind else "")
            seen |= {"phase": named, "waits_for": waits_for, "blockers": waits}
        return seen

    def stop(self) -> None:
        """Cancel exactly our own statement."""
        try:
            connection = self.open_eye()
            name = application_name(self.row)
            self.stopped = backends.cancel_ours(connection, self.pid, self.backend_start, name)
        except (psycopg.Error, Unreachable) as error:
            log.warning("Action %s: not stopped: %s", self.row.pk, type(error).__name__)
            self.close()

    def open_eye(self) -> psycopg.Connection:
        """Return the second connection, opened when it is not; raises Unreachable."""
        if self.eye is None or self.eye.closed:
            self.eye = connect.open_target(
                self.address,
                purpose=f"watch:{self.row.pk}",
                statement_timeout_ms=LOOK_TIMEOUT_MS,
                lock_timeout_ms=LOOK_LOCK_TIMEOUT_MS,
                read_only=True,
                deadline_seconds=3,
            )
        return self.eye

    def close(self) -> None:
        """Close the second connection."""
        if self.eye is not None:
            self.eye.close()
            self.eye = None


def words_of(blocker: Mapping[str, object]) -> str:
    """Return `pid 4711 (billing-api)`."""
    who = blocker["application_name"] or blocker["usename"]
    return f"pid {blocker['pid']}" + (f" ({who})" if who else "")


def progress_of(connection: psycopg.Connection, pid: int, server_version: int) -> dict[str, Any]:
    """Return phase and pct of what a backend does, {} where no progress view shows it."""
    text = progress.PROBE.sql_for(server_version)
    if text is None:
        return {}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql.SQL(text), {}).fetchall()
    for found in rows:
        if found["pid"] == pid:
            seen = {"phase": found["phase"], "command": found["command"]}
            if found["total"]:
                seen["pct"] = round(100 * (found["done"] or 0) / found["total"], 1)
            return seen
    return {}


def send(
    connection: psycopg.Connection, statement: sql.Composed, spec: Spec
) -> tuple[list[tuple[Any, ...]], list[Notice]]:
    """Send one statement and return its rows and notices; raises psycopg.Error, Unreachable."""
    notices: list[Notice] = []

    def note(diagnosis: psycopg.errors.Diagnostic) -> None:
        notices.append(noticed(diagnosis))

    connection.add_notice_handler(note)
    try:
        with connect.deadline(connection, spec.statement_timeout_ms / 1000 + MARGIN_SECONDS):
            cursor = connection.execute(statement.as_bytes(None))  # as shown: byte for byte
            rows = cursor.fetchall() if cursor.description else []
    finally:
        connection.remove_notice_handler(note)
    return rows, notices


def noticed(diagnosis: psycopg.errors.Diagnostic) -> Notice:
    """Return what a notice says."""
    return Notice(
        severity=diagnosis.severity_nonlocalized or "",
        sqlstate=diagnosis.sqlstate or "",
        text=" ".join(filter(None, [diagnosis.message_primary, diagnosis.message_detail])),
        function=diagnosis.source_function or "",
    )


def send_watched(
    connection: psycopg.Connection, statement: sql.Composed, spec: Spec, watch: Watch
) -> list[Notice]:
    """Send a long statement from a thread while this one watches; raises as `send` does."""
    with ThreadPoolExecutor(1, thread_name_prefix="action") as pool:
        sent: Future[tuple[list[tuple[Any, ...]], list[Notice]]] = pool.submit(
            send, connection, statement, spec
        )
        pause = 0.2
        while not wait([sent], timeout=pause).done:
            watch.look()
            pause = LOOK_SECONDS
        watch.rows, notices = sent.result()
        return notices


def send_patiently(
    connection: psycopg.Connection, statement: sql.Composed, spec: Spec, watch: Watch
) -> list[Notice]:
    """Send a long statement, and again where its lock was not free, as often as it says."""
    for _ in range(spec.tries - 1):
        try:
            return send_watched(connection, statement, spec, watch)
        except LockNotAvailable:
            if watch.stopped:
                raise
            watch.look()
            time.sleep(RETRY_SECONDS)
    return send_watched(connection, statement, spec, watch)


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
