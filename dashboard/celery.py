"""The Celery application that web, workers and beat share."""

from __future__ import annotations

import os

from celery import Celery, bootsteps

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
app = Celery("howdah")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["monitors"])
# The current application is a thread's own: the web's threads would fall back
# to one without a broker.
app.set_default()


class SignOfLife(bootsteps.StartStopStep):  # type: ignore[misc]
    """Lets a worker write that it is alive, as long as it is."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: object) -> None:
        """Begin to beat in the worker's role (HOWDAH_ROLE)."""
        from django.conf import settings  # noqa: PLC0415 - after the fixup has set Django up

        from monitors.heartbeat import Heartbeat  # noqa: PLC0415
        from monitors.snapshot import close_unwatched  # noqa: PLC0415

        role = os.environ.get("HOWDAH_ROLE", "requests")
        slot = settings.WORKER_SLOT if role == "snapshots" else None
        self.thread = Heartbeat(role, slot, tidy=close_unwatched)
        self.thread.start()

    def stop(self, worker: object) -> None:
        """Stop beating."""
        self.thread.stopped.set()


app.steps["worker"].add(SignOfLife)
