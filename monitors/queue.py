"""Sends a task to the workers by name, within a bounded time."""

from __future__ import annotations

import logging

from celery import current_app
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)


def send(task: str, *args: object, queue: str, expires: float) -> bool:
    """Queue a task of monitors.tasks; it is dropped unless it starts within `expires` seconds.

    Returns False when the broker did not take it (the socket gives up after
    2 s): whoever calls has a row that the sweeper finds and sends again.
    """
    try:
        current_app.send_task(
            f"monitors.tasks.{task}", args=args, queue=queue, expires=expires, retry=False
        )
    except (OperationalError, RedisError, OSError) as error:
        log.warning("The broker did not take %s: %s", task, type(error).__name__)
        return False
    return True
