"""Have maintenance recur: add, change, run and remove jobs."""

from __future__ import annotations

import argparse
from datetime import time
from typing import Any
from zoneinfo import available_timezones

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.management.base import CommandParser

from monitors import words
from monitors.action import InvalidArguments, Refused
from monitors.jobs import plan
from monitors.management import command
from monitors.management.command import (
    SOURCE,
    add_json,
    bad_use,
    failure,
    server_named,
    target_named,
)
from monitors.models import Action, Job, JobRun, validate_name
from monitors.rows import batches

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES = ("open_minutes", "every_minutes", "at_once")
GATES = ("max_active_backends", "max_running_vacuums", "max_replay_lag_bytes")


class Command(command.Command):
    """`manage.py job add|edit|list|runs|batches|run|pause|resume|remove`."""

    help = "Have maintenance recur, in certain hours and unless a gate is closed."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        add = verbs.add_parser("add", help="make a job")
        add_fields(add, required=True)
        edit = verbs.add_parser("edit", help="change a job; what is not named stays")
        add_fields(edit, required=False)
        for verb, text in (
            ("run", "begin a run now; its gates count"),
            ("pause", "let it rest"),
            ("resume", "let it run again"),
            ("remove", "delete it; what it did stays in the log"),
        ):
            add_names(verbs.add_parser(verb, help=text))
        listing = verbs.add_parser("list", help="list the jobs with their last runs")
        listing.add_argument("--target")
        add_json(listing)
        runs = verbs.add_parser("runs", help="list a job's last runs with each of their tables")
        runs.add_argument("name", metavar="NAME")
        runs.add_argument("--target", required=True)
        runs.add_argument("--last", type=int, default=5, help="how many; default 5")
        add_json(runs)
        listed = verbs.add_parser("batches", help="list a target's batches, of jobs and of people")
        listed.add_argument("--target", required=True)
        listed.add_argument("--last", type=int, default=50, help="how many; default 50")
        add_json(listed)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        try:
            getattr(self, f"do_{options['verb']}")(options)
        except InvalidArguments as error:
            raise bad_use(str(error)) from None
        except (Refused, PermissionDenied) as error:
            raise failure(str(error)) from None

    def do_add(self, options: dict[str, Any]) -> None:
        """Make a job."""
        target = server_named(options["target"])
        validate_name(options["name"])
        if Job.objects.filter(target=target, name=options["name"]).exists():
            message = f"{target.name} has a job {options['name']} already: edit it."
            raise failure(message)
        job = Job(target=target, name=options["name"], weekdays=list(range(len(DAYS))))
        made = plan.save(person_named(options), applied(job, options), source=SOURCE)
        self.say(f"{made.name} runs next at {made.next_at:%Y-%m-%d %H:%M} UTC.")

    def do_edit(self, options: dict[str, Any]) -> None:
        """Change a job; who changes it becomes its owner."""
        job = plan.save(person_named(options), applied(job_named(options), options), source=SOURCE)
        self.say(f"{job.name} is saved.")

    def do_run(self, options: dict[str, Any]) -> None:
        """Begin a run; a worker goes on with it."""
        plan.run_now(person_named(options), job_named(options), source=SOURCE)
        self.say(f"{options['name']} begins as soon as its gates are open.")

    def do_pause(self, options: dict[str, Any]) -> None:
        """Let a job rest."""
        plan.switch(person_named(options), job_named(options), enabled=False, source=SOURCE)
        self.say(f"{options['name']} rests.")

    def do_resume(self, options: dict[str, Any]) -> None:
        """Let a job run again."""
        plan.switch(person_named(options), job_named(options), enabled=True, source=SOURCE)
        self.say(f"{options['name']} runs again.")

    def do_remove(self, options: dict[str, Any]) -> None:
        """Delete a job."""
        plan.remove(person_named(options), job_named(options), source=SOURCE)
        self.say(f"{options['name']} is removed.")

    def do_list(self, options: dict[str, Any]) -> None:
        """Print the jobs and how each ran last."""
        found = Job.objects.select_related("target").prefetch_related("runs")
        if options["target"]:
            found = found.filter(target=target_named(options["target"]))
        rows = [described(job) for job in found]
        if options["json"]:
            self.print_json(rows)
            return
        for row in rows:
            state = row["last_state"] or "never ran"
            self.say(
                f"{row['target']}  {row['name']}  {row['action']}  {state}  {row['last_text']}"
            )

    def do_runs(self, options: dict[str, Any]) -> None:
        """Print a job's last runs, newest first, with how each of their tables went."""
        runs = job_named(options).runs.select_related("job", "batch")
        rows = [run_described(run) for run in runs[: max(1, options["last"])]]
        if options["json"]:
            self.print_json(rows)
            return
        for row in rows:
            self.say(f"{row['started_at']:%Y-%m-%d %H:%M} UTC  {row['state']}  {row['text']}")
            for table in row["tables"]:
                self.say(f"  {table['object']}: {table['state']}. {table['outcome']}".rstrip())

    def do_batches(self, options: dict[str, Any]) -> None:
        """Print a target's batches, newest first."""
        found = batches.asked_of(target_named(options["target"]))
        rows = batches.rows_of(found[: max(1, options["last"])])
        if options["json"]:
            self.print_json([{**row, "id": str(row["id"])} for row in rows])
            return
        for row in rows:
            who = f"job {row['job']} of {row['asked_by']}" if row["job"] else row["asked_by"]
            counts = (
                f"{words.count(row['tables'], 'table')}, {row['succeeded']:,} done, {row['failed']:,} failed,"
                f" {row['skipped'] + row['cancelled']:,} skipped"
            )
            self.say(
                f"{row['asked_at']:%Y-%m-%d %H:%M} UTC  {row['id']}  {row['action']}  {who}"
                f"  {counts}  {row['state']}"
            )


def add_names(parser: argparse.ArgumentParser) -> None:
    """Declare which job, and whose rights to use."""
    parser.add_argument("name")
    parser.add_argument("--target", required=True)
    parser.add_argument("--as", required=True, dest="user", help="whose rights to use")


def add_fields(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declare the fields of a job."""
    add_names(parser)
    parser.add_argument("--action", required=required, choices=list(plan.actions()))
    parser.add_argument("--arg", action="append", type=pair, metavar="KEY=VALUE", dest="options")
    parser.add_argument(
        "--table", action="append", metavar="DATABASE:TABLE", dest="tables",
        help="may be repeated; without it those that are due",
    )  # fmt: skip
    parser.add_argument("--days", type=days, help="daily, or mon,tue,…; default daily")
    parser.add_argument("--opens-at", required=required, type=clock, metavar="HH:MM")
    parser.add_argument("--open-minutes", required=required, type=int)
    parser.add_argument("--time-zone", type=zone, help="as Europe/Paris; default UTC")
    parser.add_argument("--every-minutes", type=int, help="again while the hours last")
    parser.add_argument("--at-once", type=int, help="tables at the same time; default 1")
    for name in GATES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)


def pair(text: str) -> tuple[str, str]:
    """Read KEY=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        message = f"{text} is not KEY=VALUE"
        raise argparse.ArgumentTypeError(message)
    return name, value


def days(text: str) -> list[int]:
    """Read `daily`, or weekdays with commas."""
    if text == "daily":
        return list(range(len(DAYS)))
    names = [name.strip().lower()[:3] for name in text.split(",")]
    wrong = [name for name in names if name not in DAYS]
    if wrong:
        message = f"{wrong[0]} is not a weekday: give daily, or some of {','.join(DAYS)}"
        raise argparse.ArgumentTypeError(message)
    return sorted({DAYS.index(name) for name in names})


def clock(text: str) -> time:
    """Read HH:MM."""
    try:
        return time.fromisoformat(text)
    except ValueError:
        message = f"{text} is not a time of day: give it as 22:30"
        raise argparse.ArgumentTypeError(message) from None


def zone(text: str) -> str:
    """Read a time zone's name."""
    if text not in available_timezones():
        message = f"{text} is not a time zone: give one as Europe/Paris, or UTC"
        raise argparse.ArgumentTypeError(message)
    return text


def applied(job: Job, options: dict[str, Any]) -> Job:
    """Return a job with the fields that were named."""
    plain = ("action", "opens_at", "time_zone", *MINUTES, *GATES)
    for name in plain:
        if options[name] is not None:
            setattr(job, name, options[name])
    if options["options"] is not None:
        job.options = dict(options["options"])
    if options["tables"] is not None:
        job.tables = plan.tables_of(options["tables"])
    if options["days"] is not None:
        job.weekdays = options["days"]
    return job


def person_named(options: dict[str, Any]) -> User:
    """Return whose rights to use; raises CommandError for a name that may not log in."""
    user = User.objects.filter(username=options["user"], is_active=True).first()
    if user is None:
        message = f"There is no account {options['user']}."
        raise failure(message)
    return user


def job_named(options: dict[str, Any]) -> Job:
    """Return a job of a target; raises CommandError where none is called so."""
    target = server_named(options["target"])
    job = Job.objects.select_related("target__environment").filter(
        target=target, name=options["name"]
    ).first()  # fmt: skip
    if job is None:
        message = f"{target.name} has no job {options['name']}: see manage.py job list."
        raise failure(message)
    return job


def described(job: Job) -> dict[str, Any]:
    """Return a job as JSON."""
    last = next(iter(job.runs.all()), None)
    return {
        "target": job.target.name,
        "name": job.name,
        "action": job.action,
        "options": job.options,
        "tables": job.tables,
        "weekdays": [DAYS[day] for day in job.weekdays],
        "opens_at": f"{job.opens_at:%H:%M}",
        "open_minutes": job.open_minutes,
        "time_zone": job.time_zone,
        "every_minutes": job.every_minutes,
        "at_once": job.at_once,
        **{name: getattr(job, name) for name in GATES},
        "owner": job.owner_name,
        "enabled": job.enabled,
        "next_at": job.next_at,
        "last_at": last.started_at if last else None,
        "last_state": last.state if last else "",
        "last_text": last.text if last else "",
    }


def run_described(run: JobRun) -> dict[str, Any]:
    """Return a run as JSON; a table that waits says in `outcome` what holds it."""
    rows = run.batch.actions.order_by("batch_position") if run.batch else Action.objects.none()
    held = run.text if run.state == JobRun.State.HELD else ""
    return {
        "job": run.job.name,
        "started_at": run.started_at,
        "closes_at": run.closes_at,
        "finished_at": run.finished_at,
        "state": run.state,
        "text": run.text,
        "batch": str(run.batch_id) if run.batch_id else None,
        "tables": [
            {
                "id": str(row.pk),
                "object": row.object_name,
                "state": row.state,
                "outcome": row.outcome or (held if row.state == Action.State.QUEUED else ""),
                "effect": row.effect,
                "started_at": row.started_at,
                "finished_at": row.finished_at,
            }
            for row in rows
        ],
    }
