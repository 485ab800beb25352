"""Carries recurring jobs out: batches that run in their hours when the server is calm enough.

A job is looked at when it is due. Its run waits for the gates, makes a batch of
the tables with the rights of the job's owner, and is over with the batch. Before
each table the worker asks hours and gates again (`monitors/acting/gates.py`): a run
that is held meanwhile goes on from here once the gates are open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import transaction

from monitors import queue
from monitors.acting import batch as batches, gates, limits
from monitors.action import InvalidArguments, Refused
from monitors.jobs import hours, plan
from monitors.models import Action, Batch, Job, JobRun, Target
from monitors.rows import due

LOOK_EVERY = timedelta(seconds=30)
"""How often an open run is looked at."""
PREPARED_WITHIN = timedelta(minutes=5)

State = JobRun.State


def send_due(now: datetime) -> None:
    """Queue a look at each job that is due; called every few seconds by one worker."""
    for pk in Job.objects.filter(next_at__lte=now).values_list("pk", flat=True)[:200]:
        queue.send("job", pk, queue="requests", expires=plan.MESSAGE_SECONDS)


def look(job_id: int, now: datetime) -> None:
    """Take a due job one step further; a job that another worker looks at is left alone."""
    with transaction.atomic():
        rows = Job.objects.select_for_update(skip_locked=True, of=("self",))
        job = (
            rows.select_related("target__environment", "owner")
            .filter(pk=job_id, next_at__lte=now)
            .first()
        )
        if job is None:
            return
        # Another message of the same look finds it not due any more.
        Job.objects.filter(pk=job.pk).update(next_at=now + LOOK_EVERY)
        opened = job.runs.filter(state__in=JobRun.OPEN).first() or begin(job, now)
    if opened is not None:
        step_of(opened)(job, opened, now)
    if opened is None or not opened.is_open:
        Job.objects.filter(pk=job.pk).update(next_at=plan.planned(job, now))


def begin(job: Job, now: datetime) -> JobRun | None:
    """Return a new run where the job's hours are open and it is its turn."""
    opening = hours.opening_at(plan.hours_of(job), now)
    turn = plan.planned(job, now)
    if not job.enabled or opening is None or turn is None or turn > now:
        return None
    return JobRun.objects.create(job=job, started_at=now, closes_at=opening.end)


def hold(job: Job, opened: JobRun, now: datetime) -> None:
    """Wait for the gates; once they are open, have a worker look at the tables."""
    if now >= opened.closes_at:
        end(opened, State.MISSED, f"Its hours ended. {opened.text}".strip(), now)
        return
    closed = gates.closed_gates(job)
    if closed:
        note(opened, text=f"Held: {closed}")
        return
    if job.owner is None:
        end(opened, State.REFUSED, f"{job.owner_name} has no account any more.", now)
        return
    try:
        made = batches.preview(
            job.owner,
            job.target,
            job.action,
            job.tables or due_now(job.target),
            job.options,
            due=not job.tables,
            source=f"{limits.OF_A_JOB}{job.name}",
        )
    except (Refused, InvalidArguments, PermissionDenied) as error:
        # A standby does not know what is due: there that none is says nothing.
        idle = not (job.tables or job.target.in_recovery or due_now(job.target))
        end(opened, State.IDLE if idle else State.REFUSED, str(error), now)
        return
    Batch.objects.filter(pk=made.pk).update(at_once=job.at_once)
    opened.batch = made
    note(opened, state=State.PREPARING, batch=made, text="A worker looks at the tables.")


def due_now(target: Target) -> list[Mapping[str, str]]:
    """Return the tables that are due, as a batch is given them."""
    found = due.due_tables(target)[: batches.AT_MOST]
    return [{"database": one.database, "relid": str(one.relid)} for one in found]


def prepare(job: Job, opened: JobRun, now: datetime) -> None:
    """Ask for the batch once every table was looked at."""
    made = opened.batch
    if made is None or job.owner is None:
        end(opened, State.REFUSED, "Its batch is gone.", now)
        return
    if not batches.is_ready(made):
        if now - made.created_at > PREPARED_WITHIN:
            end(opened, State.REFUSED, "No worker looked at the tables in time.", now)
        return
    note(opened, state=State.RUNNING, text="Running.")
    try:
        batches.request(
            job.owner,
            made,
            reason=f"Job {job.name}",
            until=opened.closes_at,
            source=f"job:{job.name}",
        )
    except (Refused, InvalidArguments, PermissionDenied) as error:
        end(opened, State.REFUSED, str(error), now)


def follow(job: Job, opened: JobRun, now: datetime) -> None:
    """See whether the batch is over, the hours are, or the gates of a held run are open again."""
    made = opened.batch
    if made is None:
        end(opened, State.REFUSED, "Its batch is gone.", now)
        return
    if made.finished_at is None and now >= opened.closes_at and not made.stop_asked_by:
        gates.end_hours(opened, made)
        made.refresh_from_db()
    if made.finished_at is not None:
        outcome = outcome_of(list(made.actions.all()))
        late = made.stop_asked_by == gates.closed_by(job)
        end(opened, State.DONE, f"{outcome} Its hours ended first." if late else outcome, now)
    elif opened.state == State.HELD:
        go_on(job, opened, made)


def go_on(job: Job, opened: JobRun, made: Batch) -> None:
    """Begin further tables of a held run where its gates are open."""
    closed = gates.closed_gates(job, made)
    if closed:
        gates.hold(opened, made, closed)
        return
    note(opened, state=State.RUNNING, text="Running.")
    batches.advance(job.target.pk)


STEPS = {State.HELD: hold, State.PREPARING: prepare, State.RUNNING: follow}


def step_of(opened: JobRun) -> Callable[[Job, JobRun, datetime], None]:
    """Return what is to be done with an open run; one that is held has a batch between its tables."""
    if opened.state == State.HELD and opened.batch is not None:
        return follow
    return STEPS[State(opened.state)]


def outcome_of(rows: Sequence[Action]) -> str:
    """Return how a batch ended: `12 tables: 11 succeeded, 1 skipped.`."""
    counts = batches.counts(rows)
    words = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    return f"{len(rows):,} table{'s' if len(rows) != 1 else ''}: {words}."


def note(opened: JobRun, **values: Any) -> None:
    """Write down where a run stands."""
    for name, value in values.items():
        setattr(opened, name, value)
    JobRun.objects.filter(pk=opened.pk).update(**values)


def end(opened: JobRun, state: State, text: str, now: datetime) -> None:
    """Write down how a run ended."""
    note(opened, state=state, text=text[:500], finished_at=now)
