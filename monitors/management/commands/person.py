"""Make accounts, change their passwords, and end them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import CommandParser

from monitors.management import command
from monitors.management.command import SOURCE, add_json, bad_use, failure, read_secret
from monitors.people import accounts


class Command(command.Command):
    """`manage.py person add|password|deactivate|activate|list`."""

    help = "Make accounts, change their passwords, and end them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        for verb, text in (("add", "make an account"), ("password", "change a password")):
            sub = verbs.add_parser(verb, help=text)
            sub.add_argument("name")
            sub.add_argument("--password-file", required=True, help="its first line; - reads input")
        for verb, text in (
            ("deactivate", "no login and no right any more; its deeds stay in the audit"),
            ("activate", "let it log in again"),
        ):
            verbs.add_parser(verb, help=text).add_argument("name")
        add_json(verbs.add_parser("list", help="list the accounts"))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        {
            "add": self.add,
            "password": self.password,
            "deactivate": self.deactivate,
            "activate": self.activate,
            "list": self.list,
        }[options["verb"]](options)

    def add(self, options: dict[str, Any]) -> None:
        """Make an account without any right."""
        name = options["name"]
        if User.objects.filter(username=name).exists():
            message = f"There is an account {name} already: change it with person password."
            raise failure(message)
        password = read_secret(options["password_file"])
        try:
            accounts.add(command.person(), SOURCE, name=name, password=password)
        except ValidationError as error:
            raise bad_use(" ".join(error.messages)) from None
        self.say(f"{name} may log in, and sees nothing yet: manage.py grant add {name} viewer.")

    def password(self, options: dict[str, Any]) -> None:
        """Change a password; the account's sessions end with it."""
        user = person_named(options["name"])
        password = read_secret(options["password_file"])
        try:
            accounts.set_password(command.person(), SOURCE, user, password)
        except ValidationError as error:
            raise bad_use(" ".join(error.messages)) from None
        self.say(f"{user.username} has a new password.")

    def deactivate(self, options: dict[str, Any]) -> None:
        """End an account and its sessions at once."""
        user = person_named(options["name"])
        try:
            accounts.deactivate(command.person(), SOURCE, user)
        except accounts.LastAdmin as error:
            raise failure(str(error)) from None
        self.say(f"{user.username} is deactivated.")

    def activate(self, options: dict[str, Any]) -> None:
        """Let an account log in again."""
        user = person_named(options["name"])
        accounts.activate(command.person(), SOURCE, user)
        self.say(f"{user.username} is activated.")

    def list(self, options: dict[str, Any]) -> None:
        """Print the accounts by name."""
        rows = [
            {"name": user.username, "active": user.is_active, "last_login": user.last_login}
            for user in User.objects.order_by("username")
        ]
        if options["json"]:
            self.print_json(rows)
            return
        for row in rows:
            self.say(f"{row['name']}{'' if row['active'] else '  inactive'}")


def person_named(name: str) -> User:
    """Return an account; raises CommandError where there is none."""
    user = User.objects.filter(username=name).first()
    if user is None:
        message = f"There is no account {name}: make it with person add."
        raise failure(message)
    return user
