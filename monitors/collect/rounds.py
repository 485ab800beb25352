"""Takes the due snapshots of a target over its kept connections.

One task reads everything that is due of one lease. Connections are kept
between tasks: one for the fast lease, two for the slow one. Each probe and
database is one transaction of its own, so one that fails costs no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from operator import itemgetter
from typing import Any

import psycopg
from django.core.cache import cache
from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from psycopg import errors
from psycopg.rows import dict_row
from redis.exceptions import RedisError

from monitors.collect import leases, vacuum_runs
from monitors.collect.live import publish, text_key
from monitors.findings import past
from monitors.history import relabel, settle, store
from monitors.history.freshness import interval_of
from monitors.models import (
    HISTORY,
    Database,
    Lease,
    Mark,
    ProbeState,
    Snapshot,
    Target,
    TargetSecret,
)
from monitors.pg import connect, doors, extensions, knock, pinned, rights, text
from monitors.pg.doors import Door
from monitors.pg.errors import DatabaseClosed, Full, Unreachable, reason_of
from monitors.pg.extensions import Installed
from monitors.pg.identity import Identity, is_new_epoch, oid_of_database, read_identity
from monitors.pg.relations import quoted
from monitors.probe import Measuring, Probe, Row
from monitors.probes import PROBES
from monitors.rows.configuration import note_changes
from monitors.targets import secrets

log = logging.getLogger(__name__)

LOCK_TIMEOUT_MS = 500
IDENTITY_AGAIN_SECONDS = 60
CONNECTION_SECONDS = 900
"""A connection that is older is opened anew: a backend's memory grows with what it has read."""
ENOUGH_CONNECTIONS = 3
"""Of a login: one for each lease and one for a check; with fewer none is kept."""
FULL_AGAIN_SECONDS = 0.25
LIVE_TEXT_SECONDS = 30
LIVE_SECONDS = 3.0
MEASURE_MARGIN = 2.0
"""Seconds of a round that measuring leaves to what comes after it."""
MEASURE_TIMEOUT_MS = 5000
"""For one object."""
PUT_OFF = frozenset({Snapshot.State.DENIED, Snapshot.State.UNSUPPORTED})
EARLY = timedelta(milliseconds=200)  # what is due so soon is taken in the same round


class UnknownColumns(Exception):
    """A probe's SQL returns columns that its sample does not declare."""


@dataclass(frozen=True)
class SnapshotResult:
    """What `manage.py snapshot` prints for one attempt; database is '' for the whole server."""

    probe: str
    database: str
    state: str
    rows: int
    stored: int
    client_ms: float
    target_ms: float
    error: str


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


def collector_address(target: Target) -> connect.Address:
    """Return where and as whom to read a target; raises secrets.SecretUnreadable."""
    row = TargetSecret.objects.filter(target=target, login=TargetSecret.Login.COLLECTOR).first()
    password = None
    if row is not None:
        password = secrets.unseal_password(
            bytes(row.sealed), row.key_id, target.host, target.port, target.user
        )
    return connect.Address(
        target.host,
        target.port,
        target.user,
        target.dbname,
        target.sslmode,
        target.require_auth,
        password,
    )


class Sessions:
    """Every session of this process, by target and kind of lease."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, str], Session] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self, target_id: int, kind: str) -> Iterator[Session]:
        """Lend a target's session to one task; raises Busy while another has it."""
        with self._lock:
            session = self._sessions.setdefault((target_id, kind), Session(kind))
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


def take_due(target_id: int, kind: str, claim: str) -> set[str]:
    """Take what is due of a lease, if the claim still holds, and give it back.

    Returns the names of the probes that were read well.
    """
    lease = leases.hold(target_id, kind, claim)
    if lease is None or not lease.target.enabled:
        return set()
    try:
        with SESSIONS.use(target_id, kind) as session, unless_removed(lease.target):
            return take_held(lease, session)
    except Busy:
        log.warning("%s: the former %s read still runs", lease.target.name, kind)
    return set()


def take_held(lease: Lease, session: Session) -> set[str]:
    """Take what is due of a lease that is held, and give it back; returns as `take_due` does."""
    target, kind, probes = lease.target, lease.kind, leases.probes_of(lease.kind)
    holds = partial(leases.still_holds, target.pk, kind, str(lease.claim))
    run = Run(target, session, leases.budget_of(kind), holds)
    run.take(probes, only_due=True)
    names = {probe.name for probe in probes}
    due = [moment for (name, _), moment in run.due.items() if name in names]
    leases.release(lease, timezone.now(), reached=run.reached, due_at=min(due, default=None))
    if run.reached:
        leases.wake(target.pk, timezone.now())
    return good(run.results)


@contextlib.contextmanager
def unless_removed(target: Target) -> Iterator[None]:
    """End quietly what reads a target that is removed meanwhile: nothing is left to keep it for."""
    try:
        yield
    except (ObjectDoesNotExist, IntegrityError):
        if Target.objects.filter(pk=target.pk, deleting_at=None).exists():
            raise
        log.info("%s was removed while it was read", target.name)


def give_up(now: datetime) -> None:
    """Find out together who answers of the targets that are doubted, and record that the others don't.

    Each of them would take a thread for seconds to learn the same.
    """
    doubted = leases.doubted(now)
    closed = knock.unanswered({(target.host, target.port) for target in doubted})
    silent = [target for target in doubted if (target.host, target.port) in closed]
    if silent:
        log.warning("%s targets do not answer", len(silent))
    for lease in leases.take_over(silent, timezone.now()):
        target = lease.target
        holds = partial(leases.still_holds, target.pk, lease.kind, str(lease.claim))
        run = Run(target, Session(lease.kind), leases.budget_of(lease.kind), holds)
        run.broken = closed[target.host, target.port]
        with unless_removed(target):
            run.take(leases.probes_of(lease.kind), only_due=True)
        leases.release(lease, timezone.now(), reached=False)


def good(results: Iterable[SnapshotResult]) -> set[str]:
    """Return the names of the probes that were read well, be it in one database alone."""
    return {result.probe for result in results if result.state == Snapshot.State.OK}


def read_live(target_id: int) -> None:
    """Read a target's activity for those who look at it now; stores nothing.

    Does nothing while the stored rhythm's own read runs or the target can't
    be reached: the page then shows the last stored state and its age.
    """
    target = Target.objects.filter(pk=target_id, enabled=True, frozen_reason="").first()
    if target is None:
        return
    probe = HISTORY["activity"].probe
    reading = None
    try:
        with SESSIONS.use(target_id, Lease.Kind.FAST) as session, unless_removed(target):
            reading = read_now(target, session, probe)
    except Busy:
        return
    except (Unreachable, psycopg.Error, secrets.SecretUnreadable) as error:
        log.warning("%s is not read live: %s", target.name, reason_of(error))
        return
    if reading is None:
        return
    redacted, texts = redact(probe, reading)
    publish(target_id, probe.sample, redacted.rows, texts, reading.target_at)


def read_now(target: Target, session: Session, probe: Probe) -> store.Reading | None:
    """Read a probe of the whole server, None where the login sees too little.

    Raises Unreachable, psycopg.Error, secrets.SecretUnreadable.
    """
    ends = time.monotonic() + LIVE_SECONDS
    session.prepare(target)
    try:
        kept = session.open(target, target.dbname, LIVE_SECONDS)
        statement = probe.sql_for(kept.identity.server_version)
        if statement is None or not kept.identity.reads_all_stats:
            return None
        with connect.deadline(kept.connection, max(ends - time.monotonic(), 0.1)):
            try:
                with kept.connection.transaction():
                    return read(kept.connection, probe, statement)
            except connect.ENCODING_ERRORS:
                connect.read_any_bytes(kept.connection)
                return None  # the next second's read takes any bytes
    finally:
        session.let_go()


def take_now(
    target: Target,
    probe_names: list[str] | None = None,
    *,
    seconds: float = 60,
    database: str = "",
) -> list[SnapshotResult]:
    """Take snapshots in this process, over connections of its own, due or not.

    Of what is read in each database only that one's, where `database` names it.
    """
    session = Session(Lease.Kind.SLOW)
    try:
        run = Run(target, session, seconds, database=database)
        run.take([p for p in PROBES if not probe_names or p.name in probe_names], only_due=False)
    finally:
        session.close()
    return run.results


class Run:
    """One pass over the probes of a target, within a budget of seconds."""

    def __init__(
        self,
        target: Target,
        session: Session,
        seconds: float,
        holds: Callable[[], bool] = lambda: True,
        database: str = "",
    ) -> None:
        self.target = target
        self.database = database  # '': all
        self.holds = holds
        """Asked before anything is stored: whether nobody else has the lease by now."""
        self.session = session
        self.ends = time.monotonic() + seconds
        self.reached = False
        self.broken = ""  # why the target can't be reached; ends the pass
        self.lost = False  # another worker has the lease; ends the pass too
        self.plain: frozenset[str] = frozenset()  # databases without an encoding, once looked for
        self.closed: dict[str, str] = {}
        """Databases that were tried in this pass and can't be entered, with the reason."""
        self.doors: dict[int, Door] | None = None  # by oid; read when the first one is entered
        self.results: list[SnapshotResult] = []
        states = ProbeState.objects.filter(target=target)
        self.due: dict[tuple[str, int | None], datetime] = {
            (name, database_id): due_at
            for name, database_id, due_at in states.filter(
                Q(database__isnull=True)
                | Q(database__included=True, database__gone_at__isnull=True)
            ).values_list("probe", "database_id", "due_at")
        }
        """When each probe and database is next due; None is the whole server."""

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.ends - time.monotonic()

    def take(self, probes: list[Probe], *, only_due: bool) -> None:
        """Take the probes of the whole server, then those of each database, one after another.

        Of a target that is known not to answer (`broken`) it is recorded for each of them.
        """
        if not self.broken:
            self.reach()
        try:
            for database in itertools.chain([None], self.databases(probes)):
                self.take_in(
                    database,
                    [
                        probe
                        for probe in probes
                        if probe.per_database == (database is not None)
                        and (not only_due or self.is_due(probe, database))
                    ],
                )
        finally:
            self.session.let_go()
        if self.broken:
            log.warning("%s: %s", self.target.name, self.broken)
            self.session.close()

    def reach(self) -> None:
        """Connect and look who answers; what can't be reached is `broken`."""
        try:
            self.session.prepare(self.target)
            self.session.drop_dead(min(self.left, 5))
            self.refresh_identity()
            self.reached = True
        except secrets.SecretUnreadable as error:
            self.broken = str(error)
        except (Unreachable, psycopg.Error) as error:
            self.broken = reason_of(error)

    def is_due(self, probe: Probe, database: Database | None) -> bool:
        """Return whether a probe's turn on the server or a database has come."""
        due_at = self.due.get((probe.name, database.pk if database is not None else None))
        return due_at is None or due_at <= timezone.now() + EARLY

    def refresh_identity(self) -> None:
        """Ask the server again who it is, when the last answer is a minute old."""
        kept = self.session.open(self.target, self.target.dbname, self.left)
        if time.monotonic() - kept.identity_at > IDENTITY_AGAIN_SECONDS:
            with connect.deadline(kept.connection, min(self.left, 5)):
                kept.identity = read_identity(kept.connection)
            kept.identity_at = time.monotonic()
            note_identity(self.target, kept.identity)
            if self.target.frozen_reason:
                raise Unreachable(self.target.frozen_reason)

    def databases(self, probes: list[Probe]) -> Iterator[Database]:
        """Yield the databases that are read, as they are known when the first one's turn comes."""
        if any(probe.per_database for probe in probes):
            watched = Database.objects.filter(
                target=self.target, included=True, gone_at__isnull=True
            )
            yield from watched.filter(datname=self.database) if self.database else watched

    def take_in(self, database: Database | None, probes: list[Probe]) -> None:
        """Take probes in one database; where it is gone by now, read the list of them instead."""
        try:
            for probe in probes:
                if not self.lost:
                    self.attempt(probe, database)
        except Replaced:
            self.doors = None
            self.attempt(HISTORY["databases"].probe, None)

    def attempt(self, probe: Probe, database: Database | None) -> None:
        """Take one snapshot and keep it, or the reason why not; raises Replaced."""
        place = store.Place(
            HISTORY[probe.name], self.target.pk, database.pk if database is not None else 0
        )
        taken_at = timezone.now()
        interval = interval_of(self.target, probe.name)
        due = leases.next_slot(self.target.pk, interval, taken_at)
        rhythm: dict[str, Any] = {"taken_at": taken_at, "interval_seconds": interval}
        after = store.sequence_of(place)
        state: str = Snapshot.State.UNREACHABLE
        reason = self.broken
        if not self.broken and self.left <= 0:
            state, reason = Snapshot.State.TIMEOUT, "The time for this round was used up."
            due = self.soon(probe, taken_at)
        elif not self.broken:
            try:
                snapshot = self.read_any(probe, database, place, after, next_due=due, **rhythm)
            except Hidden:
                # Not put off for an hour: it sends nothing, and a GRANT is seen within a minute.
                state = Snapshot.State.DENIED
                reason = f"{HIDDEN[:-1]}: GRANT pg_monitor TO {quoted(self.target.user)};"
            except (psycopg.Error, Unreachable, UnknownColumns, Unsupported, Denied) as error:
                state, reason = self.classify(error)
                if state in PUT_OFF and not isinstance(error, DatabaseClosed):
                    due = max(due, taken_at + leases.DENIED_AGAIN)
            else:
                self.note(snapshot, database, due)
                return
        if self.broken:
            due = self.soon(probe, taken_at)
        snapshot = store.record_failure(
            place,
            state=state,
            reason=reason,
            next_due=due,
            after=after,
            holds=self.holds,
            **rhythm,
        )
        self.note(snapshot, database, due)

    def soon(self, probe: Probe, now: datetime) -> datetime:
        """Return the next turn of a probe's lease: what cost the target costs no whole interval."""
        kind = Lease.Kind.FAST if probe.fast else Lease.Kind.SLOW
        return leases.next_turn(self.target, kind, now)

    def note(self, snapshot: Snapshot, database: Database | None, due: datetime) -> None:
        """Remember how an attempt went and when its next turn is."""
        if snapshot.state == Snapshot.State.SUPERSEDED:
            log.warning("%s: %s: %s", self.target.name, snapshot.probe, snapshot.reason)
            self.lost = snapshot.reason == store.TAKEN_OVER
        self.results.append(result_of(snapshot, database))
        self.due[snapshot.probe, database.pk if database is not None else None] = due

    def classify(self, error: Exception) -> tuple[str, str]:
        """Return an attempt's state and reason; a broken connection ends the pass."""
        if isinstance(error, DatabaseClosed | Denied):
            return Snapshot.State.DENIED, str(error)
        if isinstance(error, Unsupported):
            return Snapshot.State.UNSUPPORTED, str(error)
        reason = reason_of(error)
        if isinstance(error, Unreachable):
            self.broken = reason
            return Snapshot.State.UNREACHABLE, reason
        kept = self.session.kept
        if isinstance(error, psycopg.Error) and (kept is None or kept.connection.closed):
            self.broken = reason
            return Snapshot.State.UNREACHABLE, reason
        if isinstance(error, errors.InsufficientPrivilege) and kept is not None:
            reason = rights.reason_with_remedy(kept.connection, error)
        for kinds, state in FAILURES:
            if isinstance(error, kinds):
                return state, reason
        return Snapshot.State.FAILED, reason

    def read_any(
        self, probe: Probe, database: Database | None, place: store.Place, after: int, **rhythm: Any
    ) -> Snapshot:
        """Read and keep a probe; once more where a text is in another encoding than expected."""
        try:
            return self.read_and_store(probe, database, place, after, **rhythm)
        except connect.ENCODING_ERRORS:
            if self.session.kept is not None:
                connect.read_any_bytes(self.session.kept.connection)
            return self.read_and_store(probe, database, place, after, **rhythm)

    def enter(self, dbname: str) -> Kept:
        """Open a database, the one that is read.

        Raises DatabaseClosed where it alone can't be entered, Unreachable where nothing answers.
        """
        if dbname in self.closed:
            raise DatabaseClosed(self.closed[dbname])
        try:
            return self.session.open(self.target, dbname, min(self.left, 5))
        except Unreachable as error:
            if dbname == self.target.dbname:
                raise
            self.session.open(self.target, self.target.dbname, min(self.left, 5))
            self.closed[dbname] = str(error)
            raise DatabaseClosed(str(error)) from None

    def enter_database(self, database: Database) -> Kept:
        """Open a database under the name that it has now; raises as `enter` does.

        The server is asked first: one that is being dropped or copied lets nobody in and
        answers nothing, and each try would leave a backend that waits there. Raises Replaced
        where it is gone, or another one has its name by now.
        """
        if self.doors is None:
            entry = self.enter(self.target.dbname)
            with connect.deadline(entry.connection, max(self.left, 0.1)):
                self.doors = doors.read_doors(entry.connection)
        door = self.doors.get(database.datid)
        if door is None:
            raise Replaced
        if door.reason:
            raise DatabaseClosed(door.reason)
        kept = self.enter(door.datname)
        if kept.datid != database.datid:
            raise Replaced
        return kept

    def open_for(
        self, probe: Probe, database: Database | None
    ) -> tuple[Kept, Installed | None, str]:
        """Return where to read a probe, its extension and its text.

        Raises Unsupported, Hidden, Denied, Replaced, and as `enter` does.
        """
        installed = None
        if probe.extension:
            kept, installed = self.find_extension(probe.extension)
        elif database is not None:
            kept = self.enter_database(database)
        else:
            kept = self.enter(self.target.dbname)
        version = installed.version if installed else ""
        statement = probe.sql_for(kept.identity.server_version, version)
        if statement is None:
            raise Unsupported(too_old(probe, kept.identity, version))
        if probe.needs_all_statistics and not kept.identity.reads_all_stats:
            raise Hidden
        return kept, installed, statement

    def read_and_store(  # noqa: PLR0913 - what, where and the rhythm
        self,
        probe: Probe,
        database: Database | None,
        place: store.Place,
        after: int,
        *,
        taken_at: datetime,
        interval_seconds: float,
        next_due: datetime,
    ) -> Snapshot:
        """Read a probe in one transaction of the target and keep it in one of ours."""
        kept, installed, statement = self.open_for(probe, database)
        snapshot: Snapshot | None = None
        seen = vacuum_runs.Seen()
        try:
            with (
                connect.deadline(kept.connection, max(self.left, 0.1)),
                kept.connection.transaction(),
            ):
                reading = read(kept.connection, probe, statement, installed)
                reading = replace(reading, after=after)
                if kept.identity.in_recovery:
                    reading = without_unreplicated(probe, reading)
                if set(probe.sample.redacted) - set(probe.sample.refined):
                    reading, texts = redact(probe, reading)
                    keep_live(probe, self.target, texts)
                snapshot = store.store(
                    place,
                    reading,
                    taken_at=taken_at,
                    interval_seconds=interval_seconds,
                    next_due=next_due,
                    epoch=kept.identity.epoch,
                    holds=self.holds,
                    refine=refiner(kept.connection, probe, installed, self.move_to_plain)
                    if probe.refine_sql
                    else None,
                    measure=measurer(kept.connection, probe.measuring, self.left)
                    if probe.measuring
                    else None,
                    note=note_changes if probe.name == "settings" else relabel.note,
                    observe=seen.take,
                )
        except (psycopg.Error, Unreachable) as error:
            if snapshot is None:
                raise
            # What was read is kept; only the end of the target's transaction was cut off.
            log.warning("%s: after %s: %s", self.target.name, probe.name, reason_of(error))
            self.session.close()
        if snapshot.state == Snapshot.State.OK:
            self.note_read(place, reading, snapshot, seen, kept.dbname)
        return snapshot

    def note_read(
        self,
        place: store.Place,
        reading: store.Reading,
        snapshot: Snapshot,
        seen: vacuum_runs.Seen,
        dbname: str,
    ) -> None:
        """Draw from a reading that was kept what stands beside the history."""
        vacuum_runs.note(place, snapshot, seen, dbname)
        if snapshot.probe == "databases":
            note_databases(self.target, place.history.probe, reading, snapshot.taken_at)

    def find_extension(self, name: str) -> tuple[Kept, Installed]:
        """Enter the first database that has an extension, the entry database first.

        Raises Unsupported where none has it, Denied where its schema may not be used. What
        was found is looked up again each time: an extension may be dropped or updated.
        """
        known = self.session.extensions.pop(name, None)
        names = self.databases_to_search(known[0] if known else self.target.dbname)
        # In databases without an encoding every text can be read.
        for dbname in sorted(names, key=lambda one: one not in self.plain) if self.plain else names:
            try:
                kept = self.enter(dbname)
            except DatabaseClosed:
                continue
            with connect.deadline(kept.connection, max(self.left, 0.1)):
                installed = extensions.find(kept.connection, name)
            if installed is None:
                continue
            self.session.extensions[name] = (dbname, installed)
            if not installed.usage:
                raise Denied(extensions.no_usage(name, installed, dbname, self.target.user))
            return kept, installed
        message = f"The extension {name} is installed in no database that is read."
        raise Unsupported(message)

    def move_to_plain(self, connection: psycopg.Connection) -> bool:
        """Tell whether an extension may be better read in a database without an encoding.

        Then it is looked for there first, once in a pass.
        """
        if self.plain:
            return False
        self.plain = frozenset(extensions.plain_databases(connection))
        return bool(self.plain.intersection(self.databases_to_search(self.target.dbname)))

    def databases_to_search(self, first: str) -> Iterator[str]:
        """Yield the databases that are read, one of them first: the others are rarely asked for."""
        yield first
        included = Database.objects.filter(target=self.target, included=True, gone_at__isnull=True)
        names = [self.target.dbname, *included.values_list("datname", flat=True)]
        yield from (name for name in dict.fromkeys(names) if name != first)


class Unsupported(Exception):
    """A probe has no SQL for the server's version."""


class Replaced(Exception):
    """A database was dropped, another one may have its name: the list of them is read again."""


class Denied(Exception):
    """A right is missing; its text says which one and the GRANT."""


class Hidden(Exception):
    """The server would answer without an error, and leave out what other roles do."""


HIDDEN = "What other roles do is hidden from this login."


FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (errors.InsufficientPrivilege, Snapshot.State.DENIED),
    (
        (
            errors.UndefinedTable,
            errors.UndefinedFunction,
            errors.UndefinedColumn,
            errors.ObjectNotInPrerequisiteState,  # not in shared_preload_libraries
        ),
        Snapshot.State.UNSUPPORTED,
    ),
    (errors.QueryCanceled, Snapshot.State.TIMEOUT),
)


def too_old(probe: Probe, identity: Identity, extension_version: str) -> str:
    """Say why a probe has no text for a server or for its extension's version."""
    if not probe.extension:
        return f"Not on PostgreSQL {identity.server_version // 10000}."
    return (
        f"{probe.extension} {extension_version} is too old here: "
        f"ALTER EXTENSION {probe.extension} UPDATE;"
    )


def read(
    connection: psycopg.Connection,
    probe: Probe,
    statement: str,
    installed: Installed | None = None,
) -> store.Reading:
    """Run a probe's SQL inside the caller's transaction; raises psycopg.Error, UnknownColumns."""
    cpu = time.thread_time()
    if not probe.nested_loops:
        connect.forbid_nested_loops(connection)
    target_at = connect.begin_read(connection, probe.statement_timeout_ms)
    reset_at = reset_counter = None
    if probe.reset_sql:
        reset = extensions.in_schema(probe.reset_sql, installed)
        found = connection.execute(reset, binary=True).fetchone()
        reset_at, reset_counter = found or (None, None)
    began = time.perf_counter()
    cursor = connection.execute(extensions.in_schema(statement, installed), binary=True)
    waited = time.perf_counter() - began
    ended_at = connect.clock_of(connection) if probe.reset_sql else None
    rows = in_order(probe, [column.name for column in cursor.description or ()], cursor.fetchall())
    return store.Reading(
        rows,
        target_at,
        reset_at,
        reset_counter,
        client_ms=(time.thread_time() - cpu) * 1000,
        target_ms=waited * 1000,
        ended_at=ended_at,
    )


def in_order(probe: Probe, names: list[str], rows: list[Row]) -> list[Row]:
    """Return rows in the order of the sample's columns, None where a version has none."""
    columns = probe.sample.columns()
    unknown = set(names) - set(columns)
    if unknown or len(set(names)) != len(names):
        message = f"Probe {probe.name} returns columns that its sample lacks: {sorted(unknown)}."
        raise UnknownColumns(message)
    if tuple(names) == columns:
        return rows
    pick = itemgetter(*(names.index(n) if n in names else len(names) for n in columns))
    return [pick((*row, None)) for row in rows]


def without_unreplicated(probe: Probe, reading: store.Reading) -> store.Reading:
    """Return a standby's reading without what only its primary knows."""
    left_out = set(probe.sample.unreplicated)
    if not left_out:
        return reading
    known = [name not in left_out for name in probe.sample.columns()]
    rows = [
        tuple(value if there else None for value, there in zip(row, known, strict=True))
        for row in reading.rows
    ]
    return replace(reading, rows=rows)


def redact(probe: Probe, reading: store.Reading) -> tuple[store.Reading, dict[str, str]]:
    """Return a reading without literals, and its texts as they ran by `text_key`."""
    columns = probe.sample.columns()
    places = [columns.index(name) for name in probe.sample.redacted if name in columns]
    texts: dict[str, str] = {}
    rows = []
    for row in reading.rows:
        values = list(row)
        for place in places:
            if values[place]:
                texts[text_key(row[: len(probe.sample.key)])] = values[place][: text.MAX_STATEMENT]
                values[place] = text.redact(values[place])
        rows.append(tuple(values))
    return replace(reading, rows=rows), texts


def refiner(
    connection: psycopg.Connection,
    probe: Probe,
    installed: Installed | None,
    moves: Callable[[psycopg.Connection], bool],
) -> store.Refine:
    """Return what reads the refined columns of some objects.

    A lock that is not free within the lock_timeout costs them this once, not
    the snapshot. `moves` is asked where a text is in an encoding that this
    database can't hold, and tells whether to read all again in another one: then the error
    is raised. Else the texts are said to be unread.
    """
    keys = len(probe.sample.key)

    def fetch(statement: str, wanted: list[store.Key]) -> list[Row]:
        with connection.transaction():
            return connection.execute(
                extensions.in_schema(statement, installed),
                {"keys": [key[0] for key in wanted]},
                binary=True,
            ).fetchall()

    def refine(wanted: list[store.Key]) -> dict[store.Key, Row]:
        if not wanted:
            return {}
        try:
            found = without_literals(probe, fetch(probe.refine_sql, wanted))
        except (errors.LockNotAvailable, errors.QueryCanceled, errors.UndefinedTable):
            return {}
        except (errors.CharacterNotInRepertoire, errors.UntranslatableCharacter):
            if not probe.unread_sql:
                return {}
            if moves(connection):
                raise
            asked = set(wanted)
            found = [row for row in fetch(probe.unread_sql, wanted) if row[:keys] in asked]
        return {row[:keys]: row[keys:] for row in found}

    return refine


def without_literals(probe: Probe, rows: list[Row]) -> list[Row]:
    """Return rows of a key and refined columns with their texts redacted, and hashes of those.

    A hash of the text itself would tell a password to who tries many.
    """
    columns = (*probe.sample.key, *probe.sample.refined)
    texts = [columns.index(name) for name in probe.sample.redacted if name in columns]
    if not texts:
        return rows
    hashes = [columns.index(f"{columns[place]}_hash") for place in texts]
    found = []
    for row in rows:
        values = list(row)
        for place, hashed in zip(texts, hashes, strict=True):
            values[place] = text.redact(values[place])
            values[hashed] = hashlib.md5(values[place].encode(), usedforsecurity=False).hexdigest()
        found.append(tuple(values))
    return found


def measurer(
    connection: psycopg.Connection, measuring: Measuring, left: float
) -> settle.Measure | None:
    """Return what measures objects within their budget, None where the extension is missing."""
    installed = extensions.find(connection, measuring.extension)
    if installed is None:
        return None
    ends = time.monotonic() + min(measuring.seconds, max(left - MEASURE_MARGIN, 0))

    return partial(measure_some, connection, measuring, installed, ends)


def measure_some(
    connection: psycopg.Connection,
    measuring: Measuring,
    installed: Installed,
    ends: float,
    wanted: list[store.Key],
) -> dict[store.Key, tuple[str, settle.Figures]]:
    """Measure objects in the order of their urgency until pages, number or time are used up."""
    found: dict[store.Key, tuple[str, settle.Figures]] = {}
    pages = 0
    for relid, relkind, cost in pick(connection, measuring, wanted):
        if time.monotonic() > ends or len(found) >= measuring.objects:
            break
        if pages + cost > measuring.pages:
            continue  # a smaller one may still fit
        pages += cost
        try:
            seen = measure_one(connection, measuring, installed, relid, relkind)
        except errors.InsufficientPrivilege:
            break
        except psycopg.Error as error:
            if connection.closed:
                raise
            # It costs this object its measurement: locked, dropped, damaged, its file missing.
            log.warning("Object %s is not measured: %s", relid, reason_of(error))
            continue
        if seen is not None:
            found[relid,] = (relkind, seen)
    return found


def pick(
    connection: psycopg.Connection, measuring: Measuring, wanted: list[store.Key]
) -> list[tuple[int, str, int]]:
    """Return (oid, relkind, pages to read) of what is not locked; limits what comes after it."""
    connect.begin_read(connection, MEASURE_TIMEOUT_MS)
    keys = [key[0] for key in wanted]
    try:
        with connection.transaction():
            return connection.execute(measuring.pick_sql, {"keys": keys}).fetchall()
    except (errors.LockNotAvailable, errors.QueryCanceled):
        return []


def measure_one(
    connection: psycopg.Connection,
    measuring: Measuring,
    installed: Installed,
    relid: int,
    relkind: str,
) -> dict[str, Any] | None:
    """Return the figures of one object in a savepoint of its own; raises psycopg.Error."""
    statement = extensions.in_schema(measuring.sql[relkind], installed)
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, {"key": relid}).fetchone()


def keep_live(probe: Probe, target: Target, texts: dict[str, str]) -> None:
    """Put running texts where only those who may see them look, for half a minute."""
    seconds = max(LIVE_TEXT_SECONDS, int(3 * interval_of(target, probe.name)))
    try:
        cache.set(f"{probe.name}:{target.pk}", texts, seconds)
    except (RedisError, OSError) as error:
        log.warning("Running texts of %s are not cached: %s", target.name, type(error).__name__)


def result_of(snapshot: Snapshot, database: Database | None) -> SnapshotResult:
    """Return an attempt as `manage.py snapshot` prints it."""
    return SnapshotResult(
        probe=snapshot.probe,
        database=database.datname if database is not None else "",
        state=snapshot.state,
        rows=snapshot.rows,
        stored=snapshot.stored,
        client_ms=round(snapshot.client_ms, 3),
        target_ms=round(snapshot.target_ms, 3),
        error=snapshot.reason,
    )


def note_databases(
    target: Target, probe: Probe, reading: store.Reading, taken_at: datetime
) -> None:
    """Keep the list of a target's databases in step with what its server shows.

    Of those that are dropped, or watched no more, every object leaves the present.
    """
    columns = probe.sample.columns()
    rows = (dict(zip(columns, row, strict=True)) for row in reading.rows)
    found = {
        row["datid"]: row["datname"]
        for row in rows
        if row["datallowconn"] and not row["datistemplate"]
    }
    left = []
    for database in Database.objects.filter(target=target):
        name = found.pop(database.datid, None)
        was = (database.datname, database.included, database.gone_at)
        if name is not None:
            database.datname, database.included = name, is_included(target, name)
            database.gone_at = None
        else:
            database.gone_at = database.gone_at or taken_at
        if was == (database.datname, database.included, database.gone_at):
            continue
        database.save()
        if not database.included or database.gone_at is not None:
            left.append(database)
    Database.objects.bulk_create(
        Database(target=target, datid=oid, datname=name, included=is_included(target, name))
        for oid, name in found.items()
    )
    for database in left:
        for history in HISTORY.values():
            if history.probe.per_database:
                place = store.Place(history, target.pk, database.pk)
                store.leave(place, taken_at, reading.target_at)


def is_included(target: Target, datname: str) -> bool:
    """Return whether a target's patterns take a database in (globs; none means all)."""
    if any(fnmatchcase(datname, pattern) for pattern in target.exclude):
        return False
    return not target.include or any(fnmatchcase(datname, p) for p in target.include)


def note_identity(target: Target, identity: Identity) -> None:
    """Keep what a server said of itself, and mark what happened to it since."""
    with transaction.atomic():
        known = Target.objects.select_for_update().get(pk=target.pk)
        for kind, words in events_between(known, identity):
            # On our clock; a crash leaves the postmaster's own start unchanged.
            began = {
                Mark.Kind.RESTART: identity.started_at,
                Mark.Kind.CRASH: identity.checkpointer_start,
            }.get(Mark.Kind(kind))
            ago = identity.target_at - began if began else timedelta(0)
            Mark.objects.create(target=known, at=timezone.now() - ago, kind=kind, text=words)
        answers = identity.system_identifier
        if answers and known.system_identifier not in {"", answers}:
            known.frozen_reason = (
                "Another server answers at this address: its system identifier is "
                f"{answers}, it was {known.system_identifier}. "
                "An administrator has to confirm the change by editing the target."
            )
        else:
            for name in KEPT_OF_IDENTITY:
                if getattr(identity, name) is not None:  # else what was known before stands
                    setattr(known, name, getattr(identity, name))
            past.note_facts(known, timezone.now())
        known.save()
    target.refresh_from_db()


KEPT_OF_IDENTITY: tuple[str, ...] = (
    "server_version",
    "version_text",
    "system_identifier",
    "timeline",
    "in_recovery",
    "started_at",
    "epoch",
    "max_connections",
    "reserved_connections",
    "settings",
)

Event = tuple[str, str]


def events_between(known: Target, identity: Identity) -> list[Event]:
    """Return (kind, sentence) of what happened to a server since it was last seen."""
    if known.started_at is None:
        return []
    events: list[Event] = []
    if is_new_epoch(known.epoch, identity.epoch):
        events.append((Mark.Kind.CRASH, "The server crashed and restarted: counters are 0."))
    elif identity.started_at and identity.started_at != known.started_at:
        events.append((Mark.Kind.RESTART, "The server was restarted."))
    if known.timeline is not None and (identity.timeline or 0) > known.timeline:
        events.append((Mark.Kind.PROMOTION, f"Promoted: timeline {identity.timeline}."))
    if known.version_text and known.version_text != identity.version_text:
        events.append((Mark.Kind.UPGRADE, f"Now PostgreSQL {identity.version_text}."))
    return events
