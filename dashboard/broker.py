"""The broker seen from the web: cached values, and whether it answers at all."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery import current_app
from django.core.cache import cache

from monitors import room

# The transport knows its driver's exceptions; the web imports no driver.
BROKER_ERRORS: tuple[type[Exception], ...] = (
    *current_app.connection_for_read().recoverable_connection_errors,
    *current_app.connection_for_read().recoverable_channel_errors,
)


def cached(key: str) -> Any:
    """Return a cached value, None where there is none or the broker is away (2 s at most)."""
    try:
        return cache.get(key)
    except BROKER_ERRORS:
        return None


def broker_answers() -> bool:
    """Return whether the broker took and gave back a value within its time limit of 2 s."""
    try:
        cache.set("health", "ok", timeout=30)
        return bool(cache.get("health") == "ok")
    except BROKER_ERRORS:
        return False


def told_full(error: BaseException | None) -> None:
    """Keep that the history found no room on its disk, where the broker answers."""
    with suppress(*BROKER_ERRORS):
        room.note(error)


def seconds_since_full() -> int | None:
    """Return how long ago the history found no room, None where it did not or nobody can say."""
    try:
        return room.seconds_since_full()
    except BROKER_ERRORS:
        return None
