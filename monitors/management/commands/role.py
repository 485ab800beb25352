"""Make roles of one's own, change what they include, and remove them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from monitors.management import command
from monitors.management.command import SOURCE, add_json, failure
from monitors.models import Role
from monitors.people import accounts, roles
from monitors.people.access import ROLES
from monitors.rows import roles as rows


class Command(command.Command):
    """`manage.py role add|change|remove|list`."""

    help = "Make roles of one's own, change what they include, and remove them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        for verb, text in (
            ("add", "make a role; view comes with every permission on a target"),
            ("change", "let it include these and no others, at once for all who have it"),
        ):
            sub = verbs.add_parser(verb, help=text)
            sub.add_argument("name")
            sub.add_argument("--permissions", required=True, help="view,cancel_backend,…")
            add_json(sub)
        removal = verbs.add_parser("remove", help="remove one that nobody has")
        removal.add_argument("name")
        add_json(removal)
        add_json(verbs.add_parser("list", help="list the four and those of one's own"))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        {"add": self.add, "change": self.change, "remove": self.remove, "list": self.list}[
            options["verb"]
        ](options)

    def add(self, options: dict[str, Any]) -> None:
        """Make a role."""
        wanted = permissions_of(options["permissions"])
        role = roles.add(command.person(), SOURCE, name=options["name"], permissions=wanted)
        self.tell(options, role.name, f"{role.name} includes {', '.join(role.permissions)}.")

    def change(self, options: dict[str, Any]) -> None:
        """Let a role include something else."""
        name = own_role(options["name"])
        wanted = permissions_of(options["permissions"])
        try:
            changed = roles.change(command.person(), SOURCE, name, wanted)
        except accounts.LastAdmin as error:
            raise failure(str(error)) from None
        again = "" if changed else " as before"
        included = ", ".join(Role.objects.get(name=name).permissions)
        self.tell(options, name, f"{name} includes{again} {included}.")

    def remove(self, options: dict[str, Any]) -> None:
        """Remove a role that nobody has."""
        name = own_role(options["name"])
        try:
            roles.remove(command.person(), SOURCE, name)
        except roles.StillGranted as error:
            raise failure(str(error)) from None
        if options["json"]:
            self.print_json({"name": name, "removed": True})
            return
        self.say(f"{name} is removed.")

    def list(self, options: dict[str, Any]) -> None:
        """Print every role with what it includes."""
        found = command.pick(rows.read_roles(), rows.COLUMNS)
        if options["json"]:
            self.print_json(found)
            return
        for row in found:
            gone = f"  (no longer exist: {', '.join(row['removed'])})" if row["removed"] else ""
            self.say(f"{row['name']}  {', '.join(row['permissions'])}{gone}")

    def tell(self, options: dict[str, Any], name: str, text: str) -> None:
        """Print a role as JSON, or what became of it for people."""
        if options["json"]:
            row = next(row for row in rows.read_roles() if row["name"] == name)
            self.print_json(command.pick([row], rows.COLUMNS)[0])
            return
        self.say(text)


def permissions_of(text: str) -> list[str]:
    """Return the permissions that stand between commas."""
    return [name for name in (word.strip() for word in text.split(",")) if name]


def own_role(name: str) -> str:
    """Return the name of a role of one's own; raises CommandError where it is none."""
    if name in ROLES:
        message = f"{name} is one of the four that stand as they are: make another with role add."
        raise failure(message)
    if not Role.objects.filter(name=name).exists():
        message = f"There is no role {name}: make it with role add."
        raise failure(message)
    return name
