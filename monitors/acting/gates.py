"""The gates and hours of a recurring job: asked before its run begins, and again before each table.

Connects to the target, so it is asked by workers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from django.db.models import QuerySet
from django.utils import timezone

from monitors import words
from monitors.acting import ask, batch as batches
from monitors.actions import ACTIONS
from monitors.models import Action, Batch, Job, JobRun, Target
from monitors.pg import connect, load
from monitors.pg.errors import Unreachable, reason_of
from monitors.pg.load import Load
from monitors.targets import logins
from monitors.targets.secrets import SecretUnreadable

LOOK_TIMEOUT_MS = 2000

State = JobRun.State


def may_begin(row: Action) -> bool:
    """Return whether a batch's table may be begun now, as far as its job is asked.

    Outside of the job's hours it and all that wait with it are left out; while a gate
    is closed the run is held, and `job_runs` asks again.
    """
    opened = (
        JobRun.objects.select_related("job__target__environment", "batch")
        .filter(batch=row.batch_id, state__in=JobRun.OPEN)
        .first()
        if row.batch_id
        else None
    )
    if opened is None or opened.batch is None:
        return True
    if timezone.now() >= opened.closes_at:
        end_hours(opened, opened.batch)
        return False
    if opened.state == State.HELD:
        return False
    closed = closed_gates(opened.job, opened.batch)
    if closed:
        hold(opened, opened.batch, closed)
    return not closed


def hold(opened: JobRun, made: Batch, closed: str) -> None:
    """Write down why a run begins no further table now."""
    rows = made.actions.all()
    begun = rows.filter(started_at__isnull=False).count()
    waiting = rows.filter(state=Action.State.QUEUED).count()
    plural = "s" if begun != 1 else ""
    text = f"Held after {begun:,} table{plural}, {waiting:,} to go: {closed}"
    opened.state, opened.text = State.HELD, text[:500]
    rewrite(opened, state=opened.state, text=opened.text)


def end_hours(opened: JobRun, made: Batch) -> None:
    """Leave out what waits and stop what runs, because a run's hours are over."""
    job = opened.job
    ended = opened.closes_at.astimezone(ZoneInfo(job.time_zone))
    outcome = f"Not begun: outside the hours of job {job.name}, which ended at"
    outcome = f"{outcome} {ended:%H:%M} ({job.time_zone})."
    if opened.state == State.HELD:
        outcome = f"{outcome} {opened.text}"
    batches.close(made, closed_by(job), outcome, source=f"job:{job.name}")
    rewrite(opened, state=State.RUNNING, text="Its hours ended: no further table is begun.")


def closed_by(job: Job) -> str:
    """Return who stops a batch when the hours of its job end, where a person is named else."""
    return f"the end of the hours of job {job.name}"


def rewrite(opened: JobRun, **values: Any) -> None:
    """Change an open run; one that another worker ended meanwhile stays as it is."""
    JobRun.objects.filter(pk=opened.pk, state__in=JobRun.OPEN).update(**values)


def governed_batches() -> QuerySet[JobRun, Any]:
    """Return the batches whose hours an open run watches over, for a condition."""
    return JobRun.objects.filter(state__in=JobRun.OPEN, batch__isnull=False).values("batch")


def closed_gates(job: Job, made: Batch | None = None) -> str:
    """Return why a job may begin nothing now, '' where it may; `made` is its batch that runs."""
    reason = ask.reason_not_to_act(job.target, ACTIONS[job.action])
    if reason:
        return reason
    limits = (job.max_active_backends, job.max_running_vacuums, job.max_replay_lag_bytes)
    if all(limit is None for limit in limits):
        return ""
    try:
        now = load_of(job.target, own_pids(made))
    except (Unreachable, SecretUnreadable, psycopg.Error) as error:
        return f"{job.target.name} could not be asked: {reason_of(error)}"
    return " ".join(sentences(job, now))


def sentences(job: Job, now: Load) -> list[str]:
    """Return a sentence for each gate that is closed."""
    said = []
    backends, most = now.active_backends, job.max_active_backends
    if most is not None and backends > most:
        are = "is" if backends == 1 else "are"
        said.append(f"{words.count(backends, 'backend')} {are} active; the limit is {most:,}.")
    vacuums, most = now.running_vacuums, job.max_running_vacuums
    if most is not None and vacuums > most:
        run = "runs" if vacuums == 1 else "run"
        said.append(f"{words.count(vacuums, 'vacuum')} {run}; the limit is {most:,}.")
    lag, most = now.replay_lag_bytes or 0, job.max_replay_lag_bytes
    if most is not None and lag > most:
        said.append(f"A standby is {words.size(lag)} behind; the limit is {words.size(most)}.")
    return said


def own_pids(made: Batch | None) -> list[int]:
    """Return the backends that work on other tables of the same batch: `at_once` allows them."""
    if made is None:
        return []
    running = made.actions.filter(state=Action.State.RUNNING, backend_pid__isnull=False)
    return [pid for pid in running.values_list("backend_pid", flat=True) if pid is not None]


def load_of(target: Target, without: Collection[int] = ()) -> Load:
    """Ask a target how busy it is, with the collector login; raises as `connect` does."""
    connection = connect.open_target(
        logins.collector_address(target),
        purpose="job",
        statement_timeout_ms=LOOK_TIMEOUT_MS,
        lock_timeout_ms=LOOK_TIMEOUT_MS,
        read_only=True,
    )
    try:
        with connect.deadline(connection, 5):
            return load.read_load(connection, target.logins, without)
    finally:
        connection.close()
