"""Takes the due snapshots of a target over its kept connections.

One task reads everything that is due of one lease. Connections are kept
between tasks: one for the fast lease, two for the slow one. Each probe and
database is one transaction of its own, so one that fails costs no other.

Long, since what a round remembers is asked by each of its steps.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from django.core.cache import cache
from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError
from django.db.models import Q
from django.utils import timezone
from psycopg import errors
from redis.exceptions import RedisError

from monitors import words
from monitors.collect import leases, observers, processes
from monitors.collect.live import publish
from monitors.collect.measure import measurer
from monitors.collect.observers import Stored
from monitors.collect.read import (
    FAILURES,
    Denied,
    Hidden,
    Replaced,
    UnknownColumns,
    Unsupported,
    read,
    redact,
    refiner,
    without_unreplicated,
)
from monitors.collect.run_facts import Seen
from monitors.collect.server import note_identity
from monitors.collect.sessions import IDENTITY_AGAIN_SECONDS, SESSIONS, Busy, Kept, Session
from monitors.history import store
from monitors.history.freshness import interval_of
from monitors.history.reading import Place, Reading
from monitors.models import (
    HISTORY,
    Database,
    Lease,
    ProbeState,
    Snapshot,
    Target,
)
from monitors.pg import connect, doors, extensions, knock, rights
from monitors.pg.doors import Door
from monitors.pg.errors import DatabaseClosed, Unreachable, reason_of
from monitors.pg.extensions import Installed
from monitors.pg.identity import read_identity
from monitors.probe import HIDDEN, Probe
from monitors.probes import PROBES
from monitors.targets import secrets

log = logging.getLogger(__name__)

LIVE_TEXT_SECONDS = 30
LIVE_SECONDS = 3.0
PUT_OFF = frozenset({Snapshot.State.DENIED, Snapshot.State.UNSUPPORTED})
EARLY = timedelta(milliseconds=200)  # what is due so soon is taken in the same round


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
    # Keys are pid and start; what they use is read here and now, where that can be.
    used = processes.WATCHED.read(target_id, target.host, [row[:2] for row in redacted.rows])
    publish(target_id, probe.sample, redacted.rows, texts, reading.target_at, used)


def read_now(target: Target, session: Session, probe: Probe) -> Reading | None:
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
        place = Place(
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
                reason = f"{HIDDEN[:-1]}: GRANT pg_monitor TO {words.quoted(self.target.user)};"
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
        self, probe: Probe, database: Database | None, place: Place, after: int, **rhythm: Any
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
            raise Unsupported(probe.tell_age(kept.identity.server_version, version))
        if probe.needs_all_statistics and not kept.identity.reads_all_stats:
            raise Hidden
        return kept, installed, statement

    def read_and_store(  # noqa: PLR0913 - what, where and the rhythm
        self,
        probe: Probe,
        database: Database | None,
        place: Place,
        after: int,
        *,
        taken_at: datetime,
        interval_seconds: float,
        next_due: datetime,
    ) -> Snapshot:
        """Read a probe in one transaction of the target and keep it in one of ours."""
        kept, installed, statement = self.open_for(probe, database)
        snapshot: Snapshot | None = None
        seen = Seen()
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
                    note=observers.noting(probe),
                    observe=seen.take,
                )
        except (psycopg.Error, Unreachable) as error:
            if snapshot is None:
                raise
            # What was read is kept; only the end of the target's transaction was cut off.
            log.warning("%s: after %s: %s", self.target.name, probe.name, reason_of(error))
            self.session.close()
        if snapshot.state == Snapshot.State.OK:
            observers.tell(Stored(self.target, place, reading, snapshot, seen, kept.dbname))
        return snapshot

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
