"""What runs on a target this second, while somebody looks.

A viewer's page sets a flag that goes out by itself; while it stands, the
worker that holds the target's fast lease reads the activity each second over
its kept connection, and all viewers share the result. Nobody looking, nothing
is read beyond the stored rhythm. The result passes through the cache and is
never stored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.core.cache import cache
from django.db import models
from redis.exceptions import RedisError

from monitors.models import HISTORY
from monitors.probe import Row, Sample

log = logging.getLogger(__name__)

WATCH_SECONDS = 8
KEEP_SECONDS = 5


@dataclass(frozen=True)
class Live:
    """One shared reading.

    `rows` have the shape of `series.read_latest`, statements without literals;
    `texts` are the statements as they run, by `text_key`; `used` is what their processes use, by
    the same, where the target is on the worker's machine.
    """

    read_at: datetime  # the target's clock
    rows: list[dict[str, Any]]
    texts: dict[str, str]
    used: dict[str, dict[str, float | None]] = field(default_factory=dict)


def watch(target_id: int) -> None:
    """Say that somebody looks at a target's activity now."""
    try:
        cache.set(f"live:watch:{target_id}", 1, WATCH_SECONDS)
    except (RedisError, OSError) as error:
        log.warning("Nobody will read live: %s", type(error).__name__)


def watched(target_ids: Iterable[int]) -> list[int]:
    """Return those of the targets that somebody looks at."""
    names = {f"live:watch:{target_id}": target_id for target_id in target_ids}
    try:
        return [names[name] for name in cache.get_many(names)]
    except (RedisError, OSError):
        return []


def publish(
    target_id: int,
    sample: type[Sample],
    rows: Iterable[Row],
    texts: dict[str, str],
    at: datetime,
    used: Mapping[Row, Mapping[str, float | None]] | None = None,
) -> None:
    """Share a reading with whoever looks."""
    columns = sample.columns()
    value = {
        "read_at": at.astimezone(UTC),
        "rows": [dict(zip(columns, row, strict=True)) for row in rows],
        "texts": texts,
        "used": {text_key(key): dict(figures) for key, figures in (used or {}).items()},
    }
    try:
        cache.set(f"live:activity:{target_id}", value, KEEP_SECONDS)
    except (RedisError, OSError) as error:
        log.warning("A live reading is not shared: %s", type(error).__name__)


def activity(target_id: int) -> Live | None:
    """Return the shared reading of a target's activity, None where none is fresh."""
    try:
        value = cache.get(f"live:activity:{target_id}")
    except (RedisError, OSError):
        return None
    if not value:
        return None
    times = [
        field.name
        for field in HISTORY["activity"].sample._meta.get_fields()
        if isinstance(field, models.DateTimeField)
    ]
    for row in value["rows"]:
        row["target_id"] = target_id
        for name in times:
            row[name] = datetime.fromisoformat(row[name]) if row[name] else None
    return Live(
        datetime.fromisoformat(value["read_at"]),
        value["rows"],
        value["texts"],
        value.get("used", {}),
    )


def text_key(key: Row) -> str:
    """Return how a backend's running text is named: pid and start, joined by a colon, in UTC."""
    return ":".join(
        part.astimezone(UTC).isoformat() if isinstance(part, datetime) else str(part)
        for part in key
    )
