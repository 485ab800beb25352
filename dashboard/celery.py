"""The Celery application that web, workers and beat share."""

from __future__ import annotations

import logging
import os

from celery import Celery, bootsteps, signals
from celery.app.utils import Settings

from dashboard import messages

messages.use()
logging.captureWarnings(capture=True)
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

        from monitors.collect.sessions import close_unwatched  # noqa: PLC0415
        from monitors.heartbeat import Heartbeat  # noqa: PLC0415

        role = os.environ.get("HOWDAH_ROLE", "requests")
        slot = settings.WORKER_SLOT if role == "snapshots" else None
        self.thread = Heartbeat(role, slot, tidy=close_unwatched)
        self.thread.start()

    def stop(self, worker: object) -> None:
        """Stop beating."""
        self.thread.stopped.set()


app.steps["worker"].add(SignOfLife)


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def wait_for_messages(conf: Settings, **_: object) -> None:
    """Let a worker's own reads wait longer: a second without a message is by design."""
    conf.broker_transport_options = {**conf.broker_transport_options, "socket_timeout": 5}


@signals.task_failure.connect  # type: ignore[untyped-decorator]
def note_full_disk(exception: BaseException | None = None, **_: object) -> None:
    """Say to whoever asks for health that our own database has no room left."""
    from monitors import room  # noqa: PLC0415 - after the fixup has set Django up

    room.note(exception)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def keep_our_logging(**_: object) -> None:
    """Let what Django has set up stand: by this being here Celery sets up nothing of its own."""
