"""Recurring maintenance of a target: what runs when, and how it went."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard.forms.job import WEEKDAYS, JobForm
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response
from dashboard.source import source_of
from monitors.action import InvalidArguments, Refused
from monitors.jobs import plan as recurring
from monitors.models import Job, JobRun, Target
from monitors.people import access

COLUMNS = (
    "name",
    "action",
    "tables",
    "hours",
    "gates",
    "owner",
    "enabled",
    "next_at",
    "last_at",
    "last_state",
    "last_text",
)
SHOWN_RUNS = 50


class JobRow(TypedDict):
    """One job, with how it ran last; None and '' where it never did."""

    job: Job
    last: JobRun | None
    name: str
    action: str
    tables: str
    hours: str
    gates: str  # '' without
    owner: str
    enabled: bool
    next_at: datetime | None  # None: never
    last_at: datetime | None
    last_state: str
    last_text: str


@require_safe
def jobs(request: PageRequest, name: str) -> HttpResponseBase:
    """Show a target's jobs and their last runs."""
    target = get_target(request, name)
    found = Job.objects.filter(target=target).prefetch_related("runs")
    rows = [row_of(job) for job in found]
    exported = table_response(request, "jobs", COLUMNS, rows)
    if exported:
        return exported
    runs = JobRun.objects.filter(job__target=target).select_related("job", "batch")
    context = {
        "rows": rows,
        "runs": runs[:SHOWN_RUNS],
        "may": access.permissions_of(request.user, target),
        "may_any": bool(allowed(request, target)),
    }
    return render_page(request, "jobs.html", context, page="jobs", target=target)


@require_http_methods(["GET", "HEAD", "POST"])
def new(request: PageRequest, name: str) -> HttpResponse:
    """Make a job."""
    target = get_target(request, name)
    return edited(request, target, None)


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: PageRequest, name: str, job: str) -> HttpResponse:
    """Change a job; who saves it becomes its owner."""
    target = get_target(request, name)
    return edited(request, target, get_object_or_404(Job, target=target, name=job))


@require_POST
def remove(request: PageRequest, name: str, job: str) -> HttpResponse:
    """Delete a job and the record of its runs; its actions stay in the log."""
    found = job_of(request, name, job)
    recurring.remove(request.user, found, source=source_of(request))
    messages.success(request, f"The job {found.name} is removed. What it did stays under Actions.")
    return redirect("jobs", name)


@require_POST
def switch(request: PageRequest, name: str, job: str) -> HttpResponse:
    """Let a job run, or rest."""
    found = job_of(request, name, job)
    enabled = request.POST.get("enabled") == "true"
    recurring.switch(request.user, found, enabled=enabled, source=source_of(request))
    return redirect("jobs", name)


@require_POST
def run(request: PageRequest, name: str, job: str) -> HttpResponse:
    """Begin a run outside of the job's hours."""
    found = job_of(request, name, job)
    try:
        recurring.run_now(request.user, found, source=source_of(request))
    except Refused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{found.name} begins as soon as its gates are open.")
    return redirect("jobs", name)


def job_of(request: PageRequest, name: str, job: str) -> Job:
    """Return a job of a target that the person may see; raises Http404."""
    return get_object_or_404(
        Job.objects.select_related("target__environment"),
        target=get_target(request, name),
        name=job,
    )


def allowed(request: PageRequest, target: Target) -> list[str]:
    """Return the actions that the person may have a job do."""
    may = access.permissions_of(request.user, target)
    return [name for name in recurring.actions() if name in may]


def edited(request: PageRequest, target: Target, job: Job | None) -> HttpResponse:
    """Show the form of a job, or save what was entered."""
    form = JobForm(request.POST or None, target=target, job=job)
    if request.method == "POST" and form.is_valid():
        try:
            made = recurring.save(request.user, form.applied(), source=source_of(request))
        except (InvalidArguments, ValidationError) as error:
            form.add_error(None, error if isinstance(error, ValidationError) else str(error))
        else:
            messages.success(request, f"The job {made.name} is saved.")
            return redirect("jobs", target.name)
    status = 400 if form.errors else 200
    context = {"form": form, "job": job, "allowed": allowed(request, target)}
    return render_page(request, "job_form.html", context, page="jobs", target=target, status=status)


def row_of(job: Job) -> JobRow:
    """Return a job as the list and its export show it."""
    last = next(iter(job.runs.all()), None)
    return {
        "job": job,
        "last": last,
        "name": job.name,
        "action": job.action,
        "tables": ", ".join(f"{one['database']}: {one['table']}" for one in job.tables)
        or "those that are due",
        "hours": hours_words(job),
        "gates": gates_words(job),
        "owner": job.owner_name,
        "enabled": job.enabled,
        "next_at": job.next_at,
        "last_at": last.started_at if last else None,
        "last_state": last.state if last else "",
        "last_text": last.text if last else "",
    }


def hours_words(job: Job) -> str:
    """Return when a job runs: `Mon, Tue 22:00 for 4 h (UTC), again every 30 min`."""
    days = "daily" if len(job.weekdays) == len(WEEKDAYS) else ", ".join(
        WEEKDAYS[day][:3] for day in job.weekdays
    )  # fmt: skip
    hours, minutes = divmod(job.open_minutes, 60)
    length = " ".join(
        [*([f"{hours} h"] if hours else []), *([f"{minutes} min"] if minutes else [])]
    )
    again = f", again every {job.every_minutes} min" if job.every_minutes else ""
    return f"{days} {job.opens_at:%H:%M} for {length} ({job.time_zone}){again}"


def gates_words(job: Job) -> str:
    """Return a job's gates: `at most 20 active backends, 1 running vacuum`."""
    parts = []
    if job.max_active_backends is not None:
        parts.append(f"{job.max_active_backends} active backends")
    if job.max_running_vacuums is not None:
        parts.append(f"{job.max_running_vacuums} running vacuums")
    if job.max_replay_lag_bytes is not None:
        parts.append(f"{job.max_replay_lag_bytes // 1024**2} MB of replay lag")
    return f"at most {', '.join(parts)}" if parts else ""
