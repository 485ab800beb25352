"""Make accounts, change their passwords, and end them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandParser
from django.db import transaction

from monitors import audit
from monitors.management import command
from monitors.management.command import SOURCE, add_json, bad_use, failure, read_secret


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
        user = User(username=name)
        user.set_password(good_password(options["password_file"], user))
        user.clean_fields()
        with transaction.atomic():
            user.save()
            audit.event("person.add", command.person(), SOURCE, object_name=name)
        self.say(f"{name} may log in, and sees nothing yet: manage.py grant add {name} viewer.")

    def password(self, options: dict[str, Any]) -> None:
        """Change a password; other sessions of the account end with it."""
        user = person_named(options["name"])
        user.set_password(good_password(options["password_file"], user))
        with transaction.atomic():
            user.save()
            audit.event("person.password", command.person(), SOURCE, object_name=user.username)
        self.say(f"{user.username} has a new password.")

    def deactivate(self, options: dict[str, Any]) -> None:
        """End an account; its sessions end at their next request."""
        self.set_active(options["name"], active=False)

    def activate(self, options: dict[str, Any]) -> None:
        """Let an account log in again."""
        self.set_active(options["name"], active=True)

    def set_active(self, name: str, *, active: bool) -> None:
        """Set whether an account counts."""
        user = person_named(name)
        user.is_active = active
        verb = "activate" if active else "deactivate"
        with transaction.atomic():
            user.save()
            audit.event(f"person.{verb}", command.person(), SOURCE, object_name=name)
        self.say(f"{name} is {verb}d.")

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


def good_password(path: str, user: User) -> str:
    """Return a password from a file; raises CommandError for a weak one."""
    password = read_secret(path)
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise bad_use(" ".join(error.messages)) from None
    return password
