"""Keeps what objects were called before they got other names or options."""

from __future__ import annotations

from datetime import datetime

from monitors.history import partitions
from monitors.history.latest import is_relabelled
from monitors.history.reading import Comparison, Place
from monitors.models import Relabelled
from monitors.probe import Row


def note(
    place: Place, comparison: Comparison, taken_at: datetime, _before_at: datetime | None
) -> None:
    """Keep the labels that a snapshot shows as changed, as they were before."""
    sample = place.history.sample
    columns = sample.columns()
    places = [(name, columns.index(name)) for name in sample.labels if name in columns]
    if not is_relabelled(sample):
        return
    Relabelled.objects.bulk_create(
        Relabelled(
            target_id=place.target_id,
            database_id=place.database_id,
            probe=place.history.probe.name,
            key=row[0],
            at=taken_at,
            labels=labels,
        )
        for _change, before, row in comparison.changed
        if before is not None and (labels := changed(before, row, places))
    )


def changed(before: Row, row: Row, places: list[tuple[str, int]]) -> dict[str, object]:
    """Return the labels that differ, as they were before."""
    return {name: before[i] for name, i in places if before[i] != row[i]}


def prune(now: datetime) -> None:
    """Forget what is older than the samples."""
    Relabelled.objects.filter(at__lt=now - partitions.KEEP_SAMPLES).delete()
