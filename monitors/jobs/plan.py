"""Recurring maintenance, as people ask for it: who may have a job, and when it is due.

`monitors/jobs/run.py` carries jobs out, in a worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from monitors import queue
from monitors.action import Action as Spec, InvalidArguments, Refused
from monitors.actions import ACTIONS
from monitors.audit import entries
from monitors.jobs import hours
from monitors.jobs.hours import Hours, Opening
from monitors.models import Job, JobRun
from monitors.people import access

MESSAGE_SECONDS = 20


def actions() -> dict[str, Spec]:
    """Return the actions that a job may have: those on several tables."""
    return {name: spec for name, spec in ACTIONS.items() if spec.several and not spec.is_signal}


def hours_of(job: Job) -> Hours:
    """Return when a job may run."""
    return Hours(frozenset(job.weekdays), job.opens_at, job.open_minutes, job.time_zone)


def tables_of(lines: Iterable[str]) -> list[dict[str, str]]:
    """Read tables, one a line, as `shop: public.orders`; raises ValidationError for another line."""
    found = []
    for line in lines:
        database, colon, table = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not colon or not database or not table:
            message = f"Give the database and the table, as shop: public.orders, not {line[:60]!r}."
            raise ValidationError(message)
        found.append({"database": database, "table": table})
    return found


def save(user: User, job: Job, *, source: str) -> Job:
    """Keep a new or changed job as its owner's, and plan it.

    Raises PermissionDenied without the action's permission, InvalidArguments for an
    action or options that a job can't have, ValidationError for a field.
    """
    access.require(user, job.action, job.target, source=source)
    spec = actions().get(job.action)
    if spec is None:
        message = f"A job is one of {', '.join(actions())}."
        raise InvalidArguments(message)
    for table in job.tables or [{"database": "any", "table": "any"}]:
        spec.clean({**job.options, **table})
    job.owner, job.owner_name = user, user.get_username()
    job.full_clean(exclude=["owner"])
    return keep(job, user.get_username(), source)


def keep(job: Job, who: str, source: str, *, now: datetime | None = None) -> Job:
    """Save a job, plan its next look and write it into the audit."""
    is_new = not Job.objects.filter(pk=job.pk).exists()
    with transaction.atomic():
        moment = now or timezone.now()
        # A run that is under way is followed to its end, also while the job rests.
        opened = JobRun.objects.filter(job_id=job.pk, state__in=JobRun.OPEN).exists()
        job.next_at = moment if opened else planned(job, moment)
        job.save()
        entries.add(
            "job.add" if is_new else "job.edit",
            who,
            source,
            target_name=job.target.name,
            object_name=job.name,
            action=job.action,
            enabled=job.enabled,
        )
    return job


def switch(user: User, job: Job, *, enabled: bool, source: str) -> None:
    """Let a job run or rest; raises PermissionDenied."""
    access.require(user, job.action, job.target, source=source)
    job.enabled = enabled
    keep(job, user.get_username(), source)


def remove(user: User, job: Job, *, source: str) -> None:
    """Delete a job with its runs; a batch that runs goes on. Raises PermissionDenied."""
    access.require(user, job.action, job.target, source=source)
    with transaction.atomic():
        entries.add(
            "job.remove",
            user.get_username(),
            source,
            target_name=job.target.name,
            object_name=job.name,
        )
        job.delete()


def run_now(user: User, job: Job, *, source: str) -> JobRun:
    """Begin a run outside of the job's hours, which ends as late as one inside them would.

    Its gates count. Raises PermissionDenied, and Refused while one is open.
    """
    access.require(user, job.action, job.target, source=source)
    now = timezone.now()
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=job.pk)
        if job.runs.filter(state__in=JobRun.OPEN).exists():
            message = f"{job.name} is running already."
            raise Refused(message)
        found = JobRun.objects.create(
            job=job, started_at=now, closes_at=now + timedelta(minutes=job.open_minutes)
        )
        Job.objects.filter(pk=job.pk).update(next_at=now)
        entries.add(
            "job.run",
            user.get_username(),
            source,
            target_name=job.target.name,
            object_name=job.name,
        )
    queue.send("job", job.pk, queue="requests", expires=MESSAGE_SECONDS)
    return found


def planned(job: Job, now: datetime) -> datetime | None:
    """Return when a job without an open run is to be looked at: now in its hours, else when they open."""
    if not job.enabled:
        return None
    if opening := hours.opening_at(hours_of(job), now):
        return max(now, again_at(job, opening) or now)
    following = hours.next_opening(hours_of(job), now)
    return following.start if following else None


def again_at(job: Job, opening: Opening) -> datetime | None:
    """Return when a job that ran in these hours runs again, None where it has not run yet."""
    runs = JobRun.objects.filter(job_id=job.pk)  # a job that is not saved yet has none
    last = runs.filter(started_at__gte=opening.start).order_by("-started_at").first()
    if last is None:
        return None
    if job.every_minutes is None:
        following = hours.next_opening(hours_of(job), opening.start)
        return following.start if following else None
    return last.started_at + timedelta(minutes=job.every_minutes)
