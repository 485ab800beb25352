"""List, set and reset the thresholds by which findings are judged."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser

from monitors.findings import thresholds
from monitors.management import command
from monitors.management.command import SOURCE, add_json, failure
from monitors.models import Environment


class Command(command.Command):
    """`manage.py threshold list|set|reset`."""

    help = "List, set and reset the thresholds by which findings are judged."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        listing = verbs.add_parser("list", help="list what is in force, and where it comes from")
        add_scope(listing)
        add_json(listing)
        setting = verbs.add_parser("set", help="set one; without a scope for the whole fleet")
        add_scope(setting)
        add_name(setting)
        setting.add_argument("value", help="a number from 0 on")
        reset = verbs.add_parser("reset", help="say nothing of one: what is wider holds")
        add_scope(reset)
        add_name(reset)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        {"list": self.list, "set": self.set, "reset": self.reset}[options["verb"]](options)

    def list(self, options: dict[str, Any]) -> None:
        """Print every threshold."""
        rows = list(thresholds.in_force(scope_named(options)))
        if options["json"]:
            self.print_json([vars(row) for row in rows])
            return
        for row in rows:
            self.say(f"{row.advisor}  {row.name}  {row.value:.15g}  {row.source}")

    def set(self, options: dict[str, Any]) -> None:
        """Set a threshold."""
        name = thresholds.known_name(options["advisor"], options["name"])
        value = thresholds.number_of(options["value"])
        self.change(options, name, value)

    def reset(self, options: dict[str, Any]) -> None:
        """Say nothing of a threshold any more."""
        self.change(options, thresholds.known_name(options["advisor"], options["name"]), None)

    def change(self, options: dict[str, Any], name: thresholds.Name, value: float | None) -> None:
        """Write a change and say what holds now."""
        scope = scope_named(options)
        changed = thresholds.change(command.person(), SOURCE, scope, {name: value})
        row = next(row for row in thresholds.in_force(scope) if (row.advisor, row.name) == name)
        again = "" if changed else " as before"
        self.say(f"{row.advisor}.{row.name} is {row.value:.15g}{again}, from {row.source}.")


def add_scope(parser: argparse.ArgumentParser) -> None:
    """Declare where."""
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--target")
    scope.add_argument("--environment")


def add_name(parser: argparse.ArgumentParser) -> None:
    """Declare which threshold."""
    parser.add_argument("advisor")
    parser.add_argument("name")


def scope_named(options: dict[str, Any]) -> thresholds.Scope:
    """Return a target, an environment or the fleet; raises CommandError."""
    if options["target"]:
        return command.target_named(options["target"])
    if not options["environment"]:
        return thresholds.the_fleet()
    environment = Environment.objects.filter(name=options["environment"]).first()
    if environment is None:
        known = ", ".join(Environment.objects.values_list("name", flat=True))
        message = f"There is no environment {options['environment']}. Known: {known}."
        raise failure(message)
    return environment
