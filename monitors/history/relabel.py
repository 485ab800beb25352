"""Keeps what objects were called before they got other names or options."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from monitors.history import partitions
from monitors.history.latest import is_relabelled
from monitors.history.reading import Comparison, Place
from monitors.history.write import full_columns
from monitors.models import Relabelled
from monitors.probe import Row


def note(
    place: Place, comparison: Comparison, taken_at: datetime, _before_at: datetime | None
) -> None:
    """Keep the labels that a snapshot shows as changed, as they were before."""
    sample = place.history.sample
    if not is_relabelled(sample):
        return
    columns = full_columns(sample)
    refined = frozenset(sample.refined)
    # What is measured changes with each measurement, and is no name.
    left_out = refined if place.history.probe.measuring else frozenset()
    places = [(name, columns.index(name)) for name in sample.labels if name not in left_out]
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
        if before is not None and (labels := changed(before, row, places, refined))
    )


def changed(
    before: Row, row: Row, places: list[tuple[str, int]], refined: Collection[str] = ()
) -> dict[str, object]:
    """Return the labels that differ, as they were before.

    A refined one that was None had not been read: the object was called so then already.
    """
    return {
        name: before[i]
        for name, i in places
        if before[i] != row[i] and not (name in refined and before[i] is None)
    }


def prune(now: datetime) -> None:
    """Forget what is older than the samples."""
    Relabelled.objects.filter(at__lt=now - partitions.KEEP_SAMPLES).delete()
