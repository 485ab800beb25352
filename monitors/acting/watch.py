"""The watch over a long statement: its blockers, its progress, and whether somebody stops it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from django.db import DatabaseError, connection as history
from django.utils import timezone
from psycopg import sql
from psycopg.rows import dict_row

from monitors.acting.connections import LOOK_LOCK_TIMEOUT_MS, LOOK_TIMEOUT_MS, application_name
from monitors.models import Action
from monitors.pg import backends, connect
from monitors.pg.errors import Unreachable
from monitors.probes import progress

log = logging.getLogger(__name__)


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
