"""Tell who may what on which target, and why, as the page of the same does."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from monitors.acting.ask import reason_not_to_act
from monitors.management import command
from monitors.management.command import add_json, failure
from monitors.management.commands.person import person_named
from monitors.models import Target
from monitors.people.access import PERMISSIONS
from monitors.people.permissions import ORDERED
from monitors.rows import matrix


class Command(command.Command):
    """`manage.py access [--person NAME] [--target NAME] [--permission NAME]`."""

    help = "Tell who may what on which target, and why."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare what narrows it down."""
        parser.add_argument("--person", help="of this account alone")
        parser.add_argument("--target", help="on this target alone; else on everything and on each")
        parser.add_argument("--permission", help="this one alone, an action's name is one")
        add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print a line a person, target and permission, with --json all of them in one."""
        found = matrix.cells(
            people_of(options["person"]),
            targets_of(options["target"]),
            permissions_of(options["permission"]),
            reason_not_to_act,
        )
        if options["json"]:
            self.print_json(command.pick(found, matrix.COLUMNS))
            return
        for cell in found:
            where = cell["target"] or "everything"
            said = f"{cell['username']}  {where}  {cell['permission']}"
            self.say(f"{said}  {'yes' if cell['may'] else 'no'}  {matrix.sentence_of(cell)}")


def people_of(name: str | None) -> list[User]:
    """Return one account, or all by name; raises CommandError."""
    return [person_named(name)] if name else list(User.objects.order_by("username"))


def targets_of(name: str | None) -> list[Target | None]:
    """Return one target, or everything (None) and each by name; raises CommandError."""
    if name:
        return [command.target_named(name)]
    return [None, *Target.objects.filter(deleting_at=None).select_related("environment")]


def permissions_of(name: str | None) -> tuple[str, ...]:
    """Return one permission, or all; raises CommandError."""
    if name and name not in PERMISSIONS:
        message = f"There is no permission {name}. Known: {', '.join(ORDERED)}."
        raise failure(message)
    return (name,) if name else ORDERED
