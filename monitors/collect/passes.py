"""One pass over the probes of a target: what is due is read and kept, or why it could not be.

How a server is read stands in `rounds.py`, how a pooler in `pooler.py`.
"""

from __future__ import annotations

import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from django.db.models import Q
from django.utils import timezone
from psycopg import errors

from monitors import words
from monitors.collect import leases
from monitors.collect.read import FAILURES, Denied, Hidden, UnknownColumns, Unsupported
from monitors.collect.sessions import Session
from monitors.history import store
from monitors.history.freshness import interval_of
from monitors.history.reading import Place
from monitors.models import HISTORY, Database, Lease, ProbeState, Snapshot, Target
from monitors.pg import rights
from monitors.pg.errors import DatabaseClosed, Unreachable, reason_of
from monitors.probe import HIDDEN, Probe
from monitors.targets import secrets

log = logging.getLogger(__name__)

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


class Pass(ABC):
    """One pass over the probes of a target, within a budget of seconds."""

    def __init__(
        self,
        target: Target,
        session: Session,
        seconds: float,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        self.target = target
        self.holds = holds
        """Asked before anything is stored: whether nobody else has the lease by now."""
        self.session = session
        self.ends = time.monotonic() + seconds
        self.reached = False
        self.broken = ""  # why the target can't be reached; ends the pass
        self.lost = False  # another worker has the lease; ends the pass too
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
    @abstractmethod
    def connection(self) -> psycopg.Connection | None:
        """The connection to the target, None where it has none."""

    @abstractmethod
    def greet(self) -> None:
        """Connect, and keep what the target says of itself; raises Unreachable, psycopg.Error."""

    @abstractmethod
    def read_any(
        self, probe: Probe, database: Database | None, place: Place, after: int, **rhythm: Any
    ) -> Snapshot:
        """Read a probe and keep it; raises what `attempt` catches."""

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
            self.greet()
            self.reached = True
        except secrets.SecretUnreadable as error:
            self.broken = str(error)
        except (Unreachable, psycopg.Error) as error:
            self.broken = reason_of(error)

    def is_due(self, probe: Probe, database: Database | None) -> bool:
        """Return whether a probe's turn on the server or a database has come."""
        due_at = self.due.get((probe.name, database.pk if database is not None else None))
        return due_at is None or due_at <= timezone.now() + EARLY

    def databases(self, probes: list[Probe]) -> Iterator[Database]:
        """Yield the databases that are read each for itself: none, unless a server has some."""
        return iter(())

    def take_in(self, database: Database | None, probes: list[Probe]) -> None:
        """Take probes in one database."""
        for probe in probes:
            if not self.lost:
                self.attempt(probe, database)

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
        connection = self.connection
        if isinstance(error, psycopg.Error) and (connection is None or connection.closed):
            self.broken = reason
            return Snapshot.State.UNREACHABLE, reason
        if isinstance(error, errors.InsufficientPrivilege) and connection is not None:
            reason = rights.reason_with_remedy(connection, error)
        for kinds, state in FAILURES:
            if isinstance(error, kinds):
                return state, reason
        return Snapshot.State.FAILED, reason


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
