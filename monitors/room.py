"""Whether our own database had room on its disk: who was told that it has none says so here.

Kept in the broker, since the database can't: whatever writes there fails, and reads go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from django.core.cache import cache
from django.db import DatabaseError

DISK_FULL = "53100"  # the SQLSTATE
KEY = "history-has-no-room"
REMEMBERED_SECONDS = 90
"""More than between two snapshots: while it lasts it is told again."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full(error: BaseException | None) -> bool:
    """Whether our own database refused for want of room; a target's own error is psycopg's alone."""
    return any(
        isinstance(one, DatabaseError) and getattr(one.__cause__, "sqlstate", "") == DISK_FULL
        for one in causes(error)
    )


def note(error: BaseException | None) -> None:
    """Keep that there was no room, where an error says so."""
    if is_full(error):
        cache.set(KEY, int(time.time()), timeout=REMEMBERED_SECONDS)


def seconds_since_full() -> int | None:
    """Return how long ago a write found no room, None where none did lately."""
    at = cache.get(KEY)
    return None if at is None else max(0, int(time.time()) - int(at))
