"""The batches of a target as pages, exports and commands list them: one row a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, QuerySet

from monitors.models import Action, Batch, JobRun, Target

COLUMNS = (
    "id",
    "action",
    "asked_by",
    "job",
    "reason",
    "due",
    "tables",
    "succeeded",
    "failed",
    "skipped",
    "cancelled",
    "open",
    "state",
    "held",
    "asked_at",
    "finished_at",
    "seconds",
)
"""Keys of a row, in order."""

State = Action.State
FAILED = (State.FAILED, State.LOST, State.EXPIRED)
SKIPPED = (State.SKIPPED, State.REFUSED)
OPEN = (State.DRAFT, State.WAITING, State.QUEUED, State.RUNNING)
CHUNK = 500


class BatchRow(TypedDict):
    """One batch, with how many of its tables came to what."""

    id: UUID
    action: str
    asked_by: str
    job: str  # '' where a person asked
    reason: str
    due: bool  # made of the tables that were due, not of chosen ones
    tables: int
    succeeded: int
    failed: int  # lost and expired ones too
    skipped: int  # refused ones too
    cancelled: int
    open: int
    state: str  # running, held, stopping, stopped or ended
    held: str  # by what, '' where by nothing
    asked_at: datetime | None  # None: a preview
    finished_at: datetime | None  # None, as its seconds: it runs
    seconds: float | None


def asked_of(target: Target) -> QuerySet[Batch]:
    """Return the batches that were asked of a target, newest first; previews are their maker's."""
    found = Batch.objects.filter(target=target, asked_at__isnull=False)
    return found.order_by("-asked_at", "-pk")


def with_failures(batches: QuerySet[Batch]) -> QuerySet[Batch]:
    """Return those of some batches of which a table failed, was lost or expired."""
    bad = Action.objects.filter(batch=OuterRef("pk"), state__in=FAILED)
    return batches.filter(Exists(bad))


def read_all(batches: QuerySet[Batch]) -> Iterator[BatchRow]:
    """Yield the row of each batch, some hundred at a time."""
    for start in range(0, batches.count(), CHUNK):
        yield from rows_of(batches[start : start + CHUNK])


def rows_of(batches: Iterable[Batch]) -> list[BatchRow]:
    """Return the rows of some batches in their order."""
    found = list(batches)
    counts: dict[UUID, dict[str, int]] = {batch.pk: {} for batch in found}
    for pk, state, count in (
        Action.objects.filter(batch__in=counts).order_by()
        .values_list("batch", "state").annotate(count=Count("pk"))
    ):  # fmt: skip
        counts[pk][state] = count
    runs = {
        run.batch_id: run for run in JobRun.objects.filter(batch__in=counts).select_related("job")
    }
    return [row_of(batch, counts[batch.pk], runs.get(batch.pk)) for batch in found]


def row_of(batch: Batch, counts: dict[str, int], run: JobRun | None) -> BatchRow:
    """Return one batch as a row."""
    ended, began = batch.finished_at, batch.asked_at
    is_held = ended is None and run is not None and run.state == JobRun.State.HELD
    return {
        "id": batch.pk,
        "action": batch.name,
        "asked_by": batch.asked_by_name,
        "job": run.job.name if run else batch.asked_from.partition("job:")[2],
        "reason": batch.reason,
        "due": batch.due,
        "tables": sum(counts.values()),
        "succeeded": counts.get(State.SUCCEEDED, 0),
        "failed": sum(counts.get(state, 0) for state in FAILED),
        "skipped": sum(counts.get(state, 0) for state in SKIPPED),
        "cancelled": counts.get(State.CANCELLED, 0),
        "open": sum(counts.get(state, 0) for state in OPEN),
        "state": state_of(batch, is_held=is_held),
        "held": run.text if run and is_held else "",
        "asked_at": began,
        "finished_at": ended,
        "seconds": (ended - began).total_seconds() if ended and began else None,
    }


def state_of(batch: Batch, *, is_held: bool) -> str:
    """Return running, held, stopping, stopped or ended."""
    if batch.finished_at:
        return "stopped" if batch.stop_asked_by else "ended"
    if batch.stop_asked_by:
        return "stopping"
    return "held" if is_held else "running"
