"""Give roles to people and groups, and take them away."""

from __future__ import annotations

import argparse
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import CommandParser
from django.db import transaction

from monitors import audit
from monitors.access import ROLES
from monitors.management import command
from monitors.management.command import SOURCE, add_json, failure
from monitors.models import Environment, Grant


class Command(command.Command):
    """`manage.py grant add|remove|list`."""

    help = "Give roles to people and groups, and take them away."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        add_grant(verbs.add_parser("add", help="give a role; without a scope on everything"))
        add_grant(verbs.add_parser("remove", help="take a role away, as it was given"))
        add_json(verbs.add_parser("list", help="list who has which role where"))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        {"add": self.add, "remove": self.remove, "list": self.list}[options["verb"]](options)

    def add(self, options: dict[str, Any]) -> None:
        """Give a role; giving it twice is giving it once."""
        fields = fields_of(options)
        with transaction.atomic():
            grant, made = Grant.objects.get_or_create(**fields)
            if made:
                self.write_down("grant.add", grant)
        again = "" if made else " already"
        self.say(f"{options['name']} is{again} {grant.role} on {scope_of(grant)}.")

    def remove(self, options: dict[str, Any]) -> None:
        """Take a role away; it counts from the next request on."""
        grant = Grant.objects.filter(**fields_of(options)).first()
        if grant is None:
            message = f"{options['name']} has no such role there: see manage.py grant list."
            raise failure(message)
        with transaction.atomic():
            self.write_down("grant.remove", grant)
            grant.delete()
        self.say(f"{options['name']} is no longer {grant.role} on {scope_of(grant)}.")

    def write_down(self, what: str, grant: Grant) -> None:
        """Put a change of rights into the audit."""
        audit.event(
            what,
            command.person(),
            SOURCE,
            target_name=grant.target.name if grant.target else "",
            object_name=name_of(grant),
            **described(grant),
        )

    def list(self, options: dict[str, Any]) -> None:
        """Print all grants by name."""
        grants = Grant.objects.select_related("user", "group", "target", "environment")
        rows = sorted((described(grant) for grant in grants), key=lambda row: str(row["name"]))
        if options["json"]:
            self.print_json(rows)
            return
        for grant in sorted(grants, key=name_of):
            group = " (group)" if grant.group else ""
            self.say(f"{name_of(grant)}{group}  {grant.role}  {scope_of(grant)}")


def add_grant(parser: argparse.ArgumentParser) -> None:
    """Declare who, what and where."""
    parser.add_argument("name", help="a person, or with --group a group")
    parser.add_argument("role", choices=list(ROLES))
    parser.add_argument("--group", action="store_true", help="NAME is a group")
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--target")
    scope.add_argument("--environment")


def fields_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return a grant's fields; raises CommandError for a name that does not exist."""
    name, environment = options["name"], options["environment"]
    fields: dict[str, Any] = {
        "role": options["role"],
        "user": None,
        "group": None,
        "target": command.target_named(options["target"]) if options["target"] else None,
        "environment": None,
    }
    if options["group"]:
        fields["group"], _ = Group.objects.get_or_create(name=name)
    else:
        fields["user"] = User.objects.filter(username=name).first()
        if fields["user"] is None:
            message = f"There is no account {name}: make it with person add, or give --group."
            raise failure(message)
    if environment:
        fields["environment"] = Environment.objects.filter(name=environment).first()
        if fields["environment"] is None:
            known = ", ".join(Environment.objects.values_list("name", flat=True))
            message = f"There is no environment {environment}. Known: {known}."
            raise failure(message)
    return fields


def name_of(grant: Grant) -> str:
    """Return whose a grant is."""
    return grant.user.username if grant.user else str(grant.group)


def scope_of(grant: Grant) -> str:
    """Return where a grant holds, for people."""
    if grant.target:
        return f"target {grant.target.name}"
    return f"environment {grant.environment.name}" if grant.environment else "everything"


def described(grant: Grant) -> dict[str, Any]:
    """Return a grant as `list --json` prints it."""
    return {
        "name": name_of(grant),
        "group": grant.group is not None,
        "role": grant.role,
        "target": grant.target.name if grant.target else None,
        "environment": grant.environment.name if grant.environment else None,
    }
