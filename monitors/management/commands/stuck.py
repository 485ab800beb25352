"""Print what is stuck, and change when a backend is."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.management.base import CommandParser

from monitors.findings import stuck as definitions
from monitors.management import command
from monitors.management.command import SOURCE, add_json, failure, person_named, target_named
from monitors.models import Environment, StuckDefinition, Target
from monitors.rows import stuck as rows
from monitors.rows.stuck import COLUMNS
from monitors.rules.stuck import STATES


class Command(command.Command):
    """`manage.py stuck [list|definitions|define|forget]`: the Stuck page for scripts."""

    help = "Print the stuck backends of all targets, worst first; define when a backend is stuck."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the verb, `list` without one."""
        parser.add_argument("--target", help="one target alone")
        add_json(parser)
        verbs = parser.add_subparsers(dest="verb", parser_class=command.Parser)
        define = verbs.add_parser("define", help="other limits for an application, user, database")
        add_names(define)
        for state in STATES:
            name = f"--{state.replace('_', '-')}"
            define.add_argument(name, type=float, metavar="SECONDS", help="never without it")
        add_names(verbs.add_parser("forget", help="end such a definition"))
        add_json(verbs.add_parser("definitions", help="list them"))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb."""
        try:
            getattr(self, f"do_{options['verb'] or 'list'}")(options)
        except PermissionDenied as error:
            raise failure(str(error)) from None

    def do_list(self, options: dict[str, Any]) -> None:
        """Print a line for each stuck backend; what is not known goes to standard error."""
        every = Target.objects.filter(deleting_at=None).select_related("environment")
        targets = [target_named(options["target"])] if options["target"] else list(every)
        found = rows.stuck_of(targets)
        for gap in found.unread:
            since = (
                f"not read since {gap.read_at:%Y-%m-%d %H:%M:%S} UTC"
                if gap.read_at
                else "never read"
            )
            self.warn(f"{gap.target.name}: {since}. {gap.reason}")
        described = [line.row() for line in found.lines]
        if options["json"]:
            self.print_json(command.pick(described, COLUMNS))
            return
        for row in described:
            who = row["application_name"] or row["usename"] or ""
            self.say(
                f"{row['target']}  {row['pid']}  {who}  blocks {row['blocking']}  {row['why']}"
                f"  {' '.join(row['query'].split())}"
            )

    def do_definitions(self, options: dict[str, Any]) -> None:
        """Print the team's definitions."""
        found = StuckDefinition.objects.filter(ended_at=None).select_related("environment")
        described = [
            {
                **{name: getattr(one, name) for name in definitions.NAMES},
                "environment": one.environment.name if one.environment else "",
                **{state: getattr(one, state) for state in STATES},
                "made_by": one.made_by,
            }
            for one in found
        ]
        if options["json"]:
            self.print_json(described)
            return
        for one in described:
            limits = ", ".join(f"{state} {one[state] or 'never'}" for state in STATES)
            names = " ".join(str(one[name]) for name in definitions.NAMES if one[name])
            self.say(f"{names} {one['environment']}: {limits}")

    def do_define(self, options: dict[str, Any]) -> None:
        """Make a definition."""
        row = StuckDefinition(**names_of(options), **{state: options[state] for state in STATES})
        definitions.define(person_named(options["user"]), row, source=SOURCE)
        self.say(f"Saved for {definitions.definition_of(row).words}.")

    def do_forget(self, options: dict[str, Any]) -> None:
        """End a definition."""
        row = StuckDefinition.objects.filter(**names_of(options), ended_at=None).first()
        if row is None:
            message = "There is no such definition: see manage.py stuck definitions."
            raise failure(message)
        definitions.forget(person_named(options["user"]), row, source=SOURCE)
        self.say(f"Removed for {definitions.definition_of(row).words}.")


def add_names(parser: argparse.ArgumentParser) -> None:
    """Declare whom a definition names, and whose rights to use."""
    parser.add_argument("--application", dest="application_name", default="", metavar="GLOB")
    parser.add_argument("--user", dest="usename", default="", metavar="GLOB")
    parser.add_argument("--database", dest="datname", default="", metavar="GLOB")
    parser.add_argument("--environment", default="")
    parser.add_argument("--as", required=True, dest="user", help="whose rights to use")


def names_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return whom the options name, as columns; raises CommandError for another environment."""
    environment = Environment.objects.filter(name=options["environment"]).first()
    if options["environment"] and environment is None:
        message = f"There is no environment {options['environment']}."
        raise failure(message)
    return {**{name: options[name] for name in definitions.NAMES}, "environment": environment}
