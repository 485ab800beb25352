"""Takes the due snapshots of a target over its kept connections.

One task reads everything that is due of one lease. Connections are kept
between tasks: one for the fast lease, two for the slow one. Each probe and
database is one transaction of its own, so one that fails costs no other.

Long, since what a round remembers is asked by each of its steps.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from django.core.cache import cache
from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError
from django.utils import timezone
from redis.exceptions import RedisError

from monitors.collect import leases, observers, processes
from monitors.collect.live import publish
from monitors.collect.measure import measurer
from monitors.collect.observers import Stored
from monitors.collect.passes import Pass, SnapshotResult
from monitors.collect.pooler import ConsoleSession, PoolerPass
from monitors.collect.read import (
    Denied,
    Hidden,
    Replaced,
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
    Snapshot,
    Target,
)
from monitors.pg import connect, doors, extensions, knock
from monitors.pg.doors import Door
from monitors.pg.errors import DatabaseClosed, Unreachable, reason_of
from monitors.pg.extensions import Installed
from monitors.pg.identity import read_identity
from monitors.probe import Probe
from monitors.probes import probes_of
from monitors.targets import secrets

log = logging.getLogger(__name__)

LIVE_TEXT_SECONDS = 30
LIVE_SECONDS = 3.0


def take_due(target_id: int, kind: str, claim: str) -> set[str]:
    """Take what is due of a lease, if the claim still holds, and give it back.

    Returns the names of the probes that were read well.
    """
    lease = leases.hold(target_id, kind, claim)
    if lease is None or not lease.target.enabled:
        return set()
    try:
        make = session_kind(lease.target)
        with SESSIONS.use(target_id, kind, make) as session, unless_removed(lease.target):
            return take_held(lease, session)
    except Busy:
        log.warning("%s: the former %s read still runs", lease.target.name, kind)
    return set()


def session_kind(target: Target) -> Callable[[str], Session]:
    """Return what makes the session of a lease, by the kind of target."""
    return ConsoleSession if target.kind == Target.Kind.PGBOUNCER else Session


def pass_of(
    target: Target,
    session: Session,
    seconds: float,
    holds: Callable[[], bool] = lambda: True,
    database: str = "",
) -> Pass:
    """Return a pass over a target: a server's or a pooler's."""
    if isinstance(session, ConsoleSession):
        return PoolerPass(target, session, seconds, holds)
    return Run(target, session, seconds, holds, database)


def take_held(lease: Lease, session: Session) -> set[str]:
    """Take what is due of a lease that is held, and give it back; returns as `take_due` does."""
    target, kind = lease.target, lease.kind
    probes = leases.probes_of(target, kind)
    holds = partial(leases.still_holds, target.pk, kind, str(lease.claim))
    run = pass_of(target, session, leases.budget_of(kind), holds)
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
        session = session_kind(target)(lease.kind)
        run = pass_of(target, session, leases.budget_of(lease.kind), holds)
        run.broken = closed[target.host, target.port]
        with unless_removed(target):
            run.take(leases.probes_of(target, lease.kind), only_due=True)
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
    session = session_kind(target)(Lease.Kind.SLOW)
    try:
        run = pass_of(target, session, seconds, database=database)
        probes = probes_of(target.kind)
        run.take([p for p in probes if not probe_names or p.name in probe_names], only_due=False)
    finally:
        session.close()
    return run.results


class Run(Pass):
    """One pass over the probes of a server and its databases."""

    def __init__(
        self,
        target: Target,
        session: Session,
        seconds: float,
        holds: Callable[[], bool] = lambda: True,
        database: str = "",
    ) -> None:
        super().__init__(target, session, seconds, holds)
        self.database = database  # '': all
        self.plain: frozenset[str] = frozenset()  # databases without an encoding, once looked for
        self.closed: dict[str, str] = {}
        """Databases that were tried in this pass and can't be entered, with the reason."""
        self.doors: dict[int, Door] | None = None  # by oid; read when the first one is entered

    @property
    def connection(self) -> psycopg.Connection | None:
        """The connection to the database that is read, None where there is none."""
        return self.session.kept.connection if self.session.kept else None

    def greet(self) -> None:
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
            super().take_in(database, probes)
        except Replaced:
            self.doors = None
            self.attempt(HISTORY["databases"].probe, None)

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
