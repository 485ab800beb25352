"""Reads PgBouncer: what its console shows, over one kept connection a lease."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import transaction
from django.utils import timezone

from monitors.collect import observers
from monitors.collect.passes import Pass
from monitors.collect.sessions import CONNECTION_SECONDS, Session
from monitors.findings import past
from monitors.history import store
from monitors.history.reading import Place, Reading
from monitors.models import Database, Mark, Snapshot, Target
from monitors.pg import connect, console, console_door
from monitors.probe import Probe


@dataclass
class ConsoleSession(Session):
    """The connection of one lease to a pooler's console; used by one task at a time."""

    console: psycopg.Connection | None = None
    opened_at: float = 0.0  # monotonic

    def connect(self, seconds: float) -> psycopg.Connection:
        """Return the connection to the console, a new one where none is kept; raises Unreachable."""
        if self.console is None or self.console.closed:
            assert self.address is not None  # noqa: S101 - set by `prepare`
            purpose = f"collector:{self.kind}"
            self.console = console_door.open_console(self.address, purpose=purpose, seconds=seconds)
            self.opened_at = time.monotonic()
        return self.console

    def close(self) -> None:
        """Close the connection."""
        if self.console is not None:
            self.console.close()
            self.console = None

    def drop_dead(self, seconds: float) -> None:
        """Close a kept connection that the pooler has closed, or that is old."""
        if self.console is None:
            return
        is_old = time.monotonic() - self.opened_at > CONNECTION_SECONDS
        if is_old or not console_door.is_alive(self.console, seconds):
            self.close()

    def let_go(self) -> None:
        """Keep the connection: it is in nobody's way."""


class PoolerPass(Pass):
    """One pass over what a pooler's console shows."""

    session: ConsoleSession

    @property
    def connection(self) -> psycopg.Connection | None:
        """The connection to the console, None where there is none."""
        return self.session.console

    def greet(self) -> None:
        """Connect, and keep which version answers; raises Unreachable."""
        connection = self.session.connect(min(self.left, 5))
        note_version(self.target, *console.version_of(connection))

    def read_any(
        self, probe: Probe, database: Database | None, place: Place, after: int, **rhythm: Any
    ) -> Snapshot:
        """Read what the console shows and keep it; raises Unreachable, psycopg.Error.

        It tells no time: moments are by our clock.
        """
        reading = read(self.session.connect(min(self.left, 5)), probe, max(self.left, 0.1), after)
        return store.store(
            place,
            reading,
            epoch="",
            holds=self.holds,
            note=observers.noting(probe),
            **rhythm,
        )


def read(connection: psycopg.Connection, probe: Probe, seconds: float, after: int) -> Reading:
    """Return what the console shows, in the order of the sample's columns.

    None for a column that the version lacks.
    """
    target_at, began, cpu = timezone.now(), time.perf_counter(), time.thread_time()
    with connect.deadline(connection, seconds):
        shown = console.show(connection, probe.show)
    waited = time.perf_counter() - began
    columns = probe.sample.columns()
    return Reading(
        [tuple(row.get(name) for name in columns) for row in probe.shape(shown)],
        target_at,
        client_ms=(time.thread_time() - cpu) * 1000,
        target_ms=waited * 1000,
        after=after,
    )


def note_version(target: Target, version: int, text: str) -> None:
    """Keep which version of the pooler answers, and mark that it is another one."""
    if (target.server_version, target.version_text) == (version, text):
        return
    with transaction.atomic():
        known = Target.objects.select_for_update(of=("self",)).get(pk=target.pk)
        if known.version_text and known.version_text != text:
            said = f"Now PgBouncer {text}."
            Mark.objects.create(target=known, at=timezone.now(), kind=Mark.Kind.UPGRADE, text=said)
        known.server_version, known.version_text = version, text
        past.note_facts(known, timezone.now())
        known.save(update_fields=["server_version", "version_text"])
    target.refresh_from_db()
