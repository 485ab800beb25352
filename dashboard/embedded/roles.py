"""What web and workers do after they were forked; compose starts each by its own command line."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from celery import bootsteps, concurrency
from celery.beat import Service
from celery.utils.nodenames import host_format
from django.conf import settings
from granian import Granian
from granian.constants import Interfaces

from dashboard.celery import app
from dashboard.embedded.processes import ROOT
from dashboard.settings import secret

log = logging.getLogger(__name__)


def run_web(bind: str, port: int) -> None:
    """Serve pages until SIGTERM."""
    # It keeps a process for the pages, which shall share what is imported too.
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn", force=True)
    Granian(
        "dashboard.wsgi:application",
        address=bind,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=4,
        websockets=False,
        log_dictconfig=json.loads((ROOT / "dashboard/granian.json").read_text(encoding="utf-8")),
        # Answered beside Python's threads, so that it waits behind no page.
        static_path_route=["/healthz/live"],
        static_path_mount=[ROOT / "dashboard/health"],
        static_path_dir_to_file="live.json",
        static_path_expires=0,
    ).serve()


def run_worker(role: str, queues: str, threads: int, beat_schedule: str | None = None) -> None:
    """Work on queues until SIGTERM; with a file for its schedule, also send what is due (beat)."""
    # The process that we are forked from has none.
    settings.PRIVATE_KEY = secret("HOWDAH_PRIVATE_KEY")
    if beat_schedule is not None:
        app.steps["worker"].add(beat_step(beat_schedule))
    # As `celery -q -A dashboard worker -P threads …` does it, without loading that program.
    worker = app.Worker(
        hostname=host_format(f"{role}@%h"),
        pool_cls=concurrency.get_implementation("threads"),
        concurrency=threads,
        queues=queues,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


def beat_step(schedule: str) -> type:
    """Return a part of a worker that is a beat: a process of its own would weigh as much again."""

    class Beat(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:
            self.service = Service(worker.app, max_interval=1, schedule_filename=schedule)
            threading.Thread(target=self.run, name="beat", daemon=True).start()

        def run(self) -> None:
            """Send what is due; a worker whose beat ended by itself ends too, to be started again."""
            try:
                self.service.start()
            except Exception:
                log.exception("Beat ended.")
                os.kill(os.getpid(), signal.SIGTERM)

        def stop(self, worker: Any) -> None:
            del worker
            self.service.stop()

    return Beat


ROLES: dict[str, Callable[..., None]] = {"web": run_web, "worker": run_worker}
