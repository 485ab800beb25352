"""Signs of life of the processes that make up the chain from beat to database."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from django.db import DatabaseError, connection
from django.utils import timezone
from redis import RedisError

from monitors import room
from monitors.models import WorkerBeat

log = logging.getLogger(__name__)

EVERY_SECONDS = 3
FORGET_AFTER = timedelta(hours=1)


def beat(role: str, slot: int | None = None) -> None:
    """Write that a process of a role is alive now."""
    name = f"{role}@{socket.gethostname()}:{os.getpid()}"
    now = timezone.now()
    WorkerBeat.objects.update_or_create(
        name=name, defaults={"role": role, "slot": slot, "beat_at": now}
    )
    WorkerBeat.objects.filter(beat_at__lt=now - FORGET_AFTER).delete()


def note_full(error: DatabaseError) -> None:
    """Say that there is no room; a broker that is away as well is told by its own link."""
    with suppress(RedisError):
        room.note(error)


class Heartbeat(threading.Thread):
    """Beats every few seconds until it is stopped, and tidies the process up by the way."""

    def __init__(self, role: str, slot: int | None, tidy: Callable[[], None]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.role = role
        self.slot = slot
        self.tidy = tidy
        self.stopped = threading.Event()

    def run(self) -> None:
        """Beat; a database that is away is no reason to end."""
        while not self.stopped.is_set():
            try:
                beat(self.role, self.slot)
                self.tidy()
            except DatabaseError as error:
                log.warning("No sign of life written: %s", type(error).__name__)
                note_full(error)
                connection.close()
            self.stopped.wait(EVERY_SECONDS)
        connection.close()
