"""Give roles to people and groups, and take them away."""

from __future__ import annotations

import argparse
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import CommandParser

from monitors.management import command
from monitors.management.command import SOURCE, add_json, bad_use, failure
from monitors.models import Environment, Grant
from monitors.people import accounts
from monitors.people.access import role_sets


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
        role = role_named(options["role"])
        holder, scope = holder_named(options, make=True), scope_named(options)
        grant, made = accounts.give(command.person(), SOURCE, holder, role, scope)
        again = "" if made else " already"
        self.say(f"{options['name']} is{again} {grant.role} on {accounts.scope_of(grant)}.")

    def remove(self, options: dict[str, Any]) -> None:
        """Take a role away; it counts from the next request on."""
        role = role_named(options["role"])
        holder, scope = holder_named(options, make=False), scope_named(options)
        fields = accounts.fields_of(holder, role, scope)
        grant = Grant.objects.filter(**fields).first()
        if grant is None:
            message = f"{options['name']} has no such role there: see manage.py grant list."
            raise failure(message)
        words = accounts.scope_of(grant)
        try:
            accounts.take(command.person(), SOURCE, grant)
        except accounts.LastAdmin as error:
            raise failure(str(error)) from None
        self.say(f"{options['name']} is no longer {grant.role} on {words}.")

    def list(self, options: dict[str, Any]) -> None:
        """Print all grants by name."""
        grants = Grant.objects.select_related("user", "group", "target", "environment")
        rows = sorted(
            (accounts.described(grant) for grant in grants), key=lambda row: str(row["name"])
        )
        if options["json"]:
            self.print_json(rows)
            return
        for grant in sorted(grants, key=accounts.holder_of):
            group = " (group)" if grant.group else ""
            self.say(
                f"{accounts.holder_of(grant)}{group}  {grant.role}  {accounts.scope_of(grant)}"
            )


def add_grant(parser: argparse.ArgumentParser) -> None:
    """Declare who, what and where."""
    parser.add_argument("name", help="a person, or with --group a group")
    parser.add_argument("role", help="viewer, operator, dba, admin, or one of role list")
    parser.add_argument("--group", action="store_true", help="NAME is a group")
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--target")
    scope.add_argument("--environment")


def role_named(name: str) -> str:
    """Return the name of a role that exists; raises CommandError that names those there are."""
    known = role_sets()
    if name not in known:
        message = f"There is no role {name}. Known: {', '.join(known)}."
        raise bad_use(message)
    return name


def holder_named(options: dict[str, Any], *, make: bool) -> User | Group:
    """Return whom a role is given to; raises CommandError for a name that does not exist."""
    name = options["name"]
    if options["group"]:
        group = Group.objects.filter(name=name).first()
        if group is None and make:
            group = Group.objects.create(name=name)
        if group is None:
            message = f"There is no group {name}: see manage.py grant list."
            raise failure(message)
        return group
    user = User.objects.filter(username=name).first()
    if user is None:
        message = f"There is no account {name}: make it with person add, or give --group."
        raise failure(message)
    return user


def scope_named(options: dict[str, Any]) -> accounts.Scope:
    """Return where a role holds; raises CommandError for a name that does not exist."""
    name = options["environment"]
    if options["target"]:
        return accounts.Scope(target=command.target_named(options["target"]))
    if not name:
        return accounts.Scope()
    environment = Environment.objects.filter(name=name).first()
    if environment is None:
        known = ", ".join(Environment.objects.values_list("name", flat=True))
        message = f"There is no environment {name}. Known: {known}."
        raise failure(message)
    return accounts.Scope(environment=environment)
