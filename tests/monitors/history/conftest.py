"""Readings at chosen times, kept as snapshots are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from monitors.models import Target

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
EPOCH = "2026-11-01T00:00:00+00:00|2026-11-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def no_memory() -> None:
    """Forget rows of other tests: their targets may have had the same numbers."""
    from monitors.history import store  # noqa: PLC0415 - after Django is set up

    store.MEMORY._kept.clear()


@pytest.fixture
def target(db: None) -> Target:
    """A target that no server answers for."""
    from monitors.models import Environment, Target  # noqa: PLC0415

    environment, _ = Environment.objects.get_or_create(name="development")
    return Target.objects.create(
        name="history",
        host="127.0.0.1",
        user="collector",
        environment=environment,
    )


Keep = Callable[..., None]


@pytest.fixture
def keep(target: Target) -> Keep:
    """keep(minutes, {name: {column: value}}, probe=…): what a probe read so many minutes after START."""
    from monitors.history import store  # noqa: PLC0415
    from monitors.history.reading import Place, Reading  # noqa: PLC0415
    from monitors.models import HISTORY  # noqa: PLC0415

    def put(
        minutes: float,
        objects: dict[Any, dict[str, Any]],
        *,
        probe: str = "databases",
        epoch: str = EPOCH,
        start: datetime = START,
    ) -> None:
        history = HISTORY[probe]
        columns = history.sample.columns()
        rows = []
        for key, values in objects.items():
            parts = key if isinstance(key, tuple) else (key,)
            known = dict(zip(history.sample.key, parts, strict=True)) | values
            rows.append(tuple(known.get(name) for name in columns))
        moment = start + timedelta(minutes=minutes)
        store.store(
            Place(history, target.pk, 0),
            Reading(rows, target_at=moment),
            taken_at=moment,
            interval_seconds=60,
            next_due=moment,
            epoch=epoch,
        )

    return put
