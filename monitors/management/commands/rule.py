"""Make, enable, stop and list standing rules."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.management.base import CommandParser
from django.utils import timezone

from monitors.acting import standing_rules as standing
from monitors.management import command
from monitors.management.command import SOURCE, add_json, failure, person_named, server_named
from monitors.models import Environment, StandingRule, validate_name
from monitors.rows import standing_rules as rows
from monitors.rows.standing_rules import COLUMNS, FIRING_COLUMNS


class Command(command.Command):
    """`manage.py rule add|list|enable|shadow|disable|remove|firings|stop-all|go-on`."""

    help = "Cancel or release by itself what is stuck; a rule begins in shadow."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        add_fields(verbs.add_parser("add", help="make a rule, which watches in shadow"))
        for verb, text in (
            ("enable", "let it act, with the rights of who enables it"),
            ("shadow", "let it only watch"),
            ("disable", "let it rest"),
            ("remove", "delete it; what it did stays in the log"),
        ):
            one = verbs.add_parser(verb, help=text)
            one.add_argument("name")
            add_person(one)
        add_person(verbs.add_parser("stop-all", help="stop every rule at once"))
        add_person(verbs.add_parser("go-on", help="let the rules go on"))
        add_json(verbs.add_parser("list", help="list the rules with what they did"))
        firings = verbs.add_parser("firings", help="list what rules did or would have done")
        firings.add_argument("name", nargs="?", default="")
        firings.add_argument("--last", type=int, default=50, help="how many; default 50")
        add_json(firings)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        try:
            getattr(self, f"do_{options['verb'].replace('-', '_')}")(options)
        except PermissionDenied as error:
            raise failure(str(error)) from None

    def do_add(self, options: dict[str, Any]) -> None:
        """Make a rule."""
        validate_name(options["name"])
        if StandingRule.objects.filter(name=options["name"]).exists():
            message = f"There is a rule {options['name']} already."
            raise failure(message)
        made = standing.save(person_named(options["user"]), built(options), source=SOURCE)
        self.say(f"{made.name} watches in shadow.")

    def do_enable(self, options: dict[str, Any]) -> None:
        """Let a rule act."""
        rule = rule_named(options["name"])
        [row] = [one for one in rows.rules_of(None, timezone.now()) if one["name"] == rule.name]
        standing.enable(person_named(options["user"]), rule, source=SOURCE)
        self.say(
            f"{rule.name} acts from now on; in the last 24 h it would have fired"
            f" {row['would_24h']} times."
        )

    def do_shadow(self, options: dict[str, Any]) -> None:
        """Let a rule only watch."""
        rule = rule_named(options["name"])
        standing.rest(person_named(options["user"]), rule, shadow=True, source=SOURCE)
        self.say(f"{rule.name} watches in shadow.")

    def do_disable(self, options: dict[str, Any]) -> None:
        """Let a rule rest."""
        rule = rule_named(options["name"])
        standing.rest(person_named(options["user"]), rule, shadow=False, source=SOURCE)
        self.say(f"{rule.name} rests.")

    def do_remove(self, options: dict[str, Any]) -> None:
        """Delete a rule."""
        rule = rule_named(options["name"])
        standing.remove(person_named(options["user"]), rule, source=SOURCE)
        self.say(f"{options['name']} is removed.")

    def do_stop_all(self, options: dict[str, Any]) -> None:
        """Stop every rule."""
        standing.stop_all(person_named(options["user"]), stopped=True, source=SOURCE)
        self.say("No rule fires any more.")

    def do_go_on(self, options: dict[str, Any]) -> None:
        """Let the rules go on."""
        standing.stop_all(person_named(options["user"]), stopped=False, source=SOURCE)
        self.say("The rules go on.")

    def do_list(self, options: dict[str, Any]) -> None:
        """Print the rules."""
        found = rows.rules_of(None, timezone.now())
        if options["json"]:
            self.print_json(command.pick(found, COLUMNS))
            return
        for row in found:
            condition = f" while {row['condition']}" if row["condition"] else ""
            self.say(
                f"{row['name']}  {row['mode']}  {row['scope']}  {row['action']}:"
                f" {row['who'] or 'every client'}, {row['what']}{condition}"
                f"  would {row['would_24h']}, asked {row['asked_24h']}, refused {row['refused_24h']}"
                f"  {row['note']}".rstrip()
            )

    def do_firings(self, options: dict[str, Any]) -> None:
        """Print firings, newest first."""
        found = rows.firings_of(None, rule=options["name"], last=max(1, options["last"]))
        if options["json"]:
            self.print_json(command.pick(found, FIRING_COLUMNS))
            return
        for row in found:
            became = row["outcome"] or row["action_state"]
            self.say(
                f"{row['at']:%Y-%m-%d %H:%M:%S} UTC  {row['rule']}  {row['target']}  {row['result']}"
                f"  {row['pid']}  {row['why']}  {became}".rstrip()
            )


def add_person(parser: argparse.ArgumentParser) -> None:
    """Declare whose rights to use."""
    parser.add_argument("--as", required=True, dest="user", help="whose rights to use")


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Declare the fields of a rule."""
    parser.add_argument("name")
    add_person(parser)
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--target", help="one target alone; without it and --environment all")
    scope.add_argument("--environment")
    parser.add_argument("--application", dest="application_name", default="", metavar="GLOB")
    parser.add_argument("--user", dest="usename", default="", metavar="GLOB")
    parser.add_argument("--database", dest="datname", default="", metavar="GLOB")
    parser.add_argument("--state", choices=StandingRule.State.values, default="running")
    parser.add_argument("--seconds", type=float, required=True, help="for over so long")
    parser.add_argument("--load-per-core", type=float, help="while more sessions a core are active")
    parser.add_argument("--connections-pct", type=float, help="while more of them are in use")
    parser.add_argument("--action", choices=StandingRule.Does.values, default="cancel_backend")
    parser.add_argument("--at-most", type=int, default=6, help="firings an hour; default 6")


def built(options: dict[str, Any]) -> StandingRule:
    """Return the rule that the options describe; raises CommandError for another scope."""
    names = (*standing.NAMES, "state", "seconds", "load_per_core", "connections_pct", "action")
    rule = StandingRule(
        name=options["name"], at_most=options["at_most"], **{name: options[name] for name in names}
    )
    if options["target"]:
        rule.target = server_named(options["target"])
    if options["environment"]:
        rule.environment = Environment.objects.filter(name=options["environment"]).first()
        if rule.environment is None:
            message = f"There is no environment {options['environment']}."
            raise failure(message)
    return rule


def rule_named(name: str) -> StandingRule:
    """Return a rule; raises CommandError where none is called so."""
    found = StandingRule.objects.select_related("target__environment", "environment")
    rule = found.filter(name=name).first()
    if rule is None:
        message = f"There is no rule {name}: see manage.py rule list."
        raise failure(message)
    return rule
