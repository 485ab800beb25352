"""What all commands share: errors on one line, exit statuses, JSON on one line.

0 success, 1 a failure, 2 bad use; `act` has more. With --json exactly one
line goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from monitors.history.window import DEFAULT_WINDOW, WINDOWS, Window
from monitors.kinds import POSTGRES
from monitors.models import Target
from monitors.plain import one_line

FAILURE = 1
BAD_USE = 2
SOURCE = "command"
SURROGATE = re.compile("[\ud800-\udfff]")


class CommandFailed(CommandError):
    """A well-formed command can't be carried out; its text says what to do."""

    def __init__(self, message: str, returncode: int = FAILURE) -> None:
        super().__init__(message, returncode=returncode)


class Parser(CommandParser):
    """A parser whose errors are one line that says what to do."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and leave with status 2."""
        self.exit(BAD_USE, f"{one_line(' '.join(message.split()))} See {self.prog} --help.\n")


class Command(BaseCommand):
    """A command whose failures are one line on standard error and an exit status."""

    requires_system_checks = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return Django's parser with short errors, for subcommands too."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.__class__ = Parser
        return parser

    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command; turn what it raises into one line and an exit status."""
        if not is_text(options):
            self.leave("An argument is not valid UTF-8: write it in that encoding.", BAD_USE)
        try:
            return super().execute(*args, **options)
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILURE)
        except CommandError as error:
            self.leave(str(error), error.returncode)
        except ValidationError as error:
            self.leave(problems_of(error), BAD_USE)
        except OperationalError as error:
            reason = " ".join(str(error).split())
            self.leave(
                f"Howdah's own database does not answer ({reason[:200]}): start it with bin/up,"
                " or set DATABASE_URL.",
                FAILURE,
            )

    def leave(self, message: str, status: int) -> NoReturn:
        """Print one line to standard error and exit."""
        self.stderr.write(one_line(" ".join(message.split())), self.style.ERROR)
        sys.exit(status)

    def say(self, text: str) -> None:
        """Print a line for people, to standard output: names of targets end it nowhere."""
        self.stdout.write(one_line(text))

    def warn(self, text: str) -> None:
        """Print a line for people, to standard error."""
        self.stderr.write(one_line(text))

    def print_json(self, value: Any) -> None:
        """Print one line of JSON."""
        self.stdout.write(json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False))


def pick(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows with some keys alone, in their order."""
    return [{name: row.get(name) for name in columns} for row in rows]


def is_text(options: dict[str, Any]) -> bool:
    """Whether every option is one: a byte that is no UTF-8 comes as half of a surrogate pair."""
    given = [value if isinstance(value, list) else [value] for value in options.values()]
    return not any(
        SURROGATE.search(text) for texts in given for text in texts if isinstance(text, str)
    )


def failure(message: str) -> CommandFailed:
    """Return what to raise where a well-formed command can't be carried out."""
    return CommandFailed(message)


def bad_use(message: str) -> CommandFailed:
    """Return what to raise for a command that makes no sense as given."""
    return CommandFailed(message, BAD_USE)


def problems_of(error: ValidationError) -> str:
    """Return `host: Give one name. port: …` on one line."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(
        f"{name.replace('_', '-')}: {message}" if name != "__all__" else message
        for name, messages in error.message_dict.items()
        for message in messages
    )


def person() -> str:
    """Return the operating system's account that runs the command, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def target_named(name: str) -> Target:
    """Return a target; raises CommandError that names those there are."""
    target = (
        Target.objects.select_related("environment").filter(name=name, deleting_at=None).first()
    )
    if target is None:
        names = list(Target.objects.filter(deleting_at=None).values_list("name", flat=True)[:10])
        known = f"Known: {', '.join(names)}." if names else "Register one with: target add."
        message = f"There is no target {name}. {known}"
        raise failure(message)
    return target


def person_named(name: str) -> User:
    """Return whose rights to use; raises CommandError for a name that may not log in."""
    user = User.objects.filter(username=name, is_active=True).first()
    if user is None:
        message = f"There is no account {name}."
        raise failure(message)
    return user


def server_named(name: str) -> Target:
    """Return a target that is a PostgreSQL server; raises CommandError for a pooler."""
    target = target_named(name)
    if target.kind != POSTGRES:
        message = f"{name} is a {target.get_kind_display()}: name a PostgreSQL server."
        raise failure(message)
    return target


def read_secret(path: str) -> str:
    """Return the first line of a file, `-` for standard input; raises CommandError."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        message = f"The password file {path} can't be read: {reason}."
        raise bad_use(message) from None
    secret = text.split("\n", 1)[0].rstrip("\r")
    if not secret:
        message = f"The password file {path} is empty: put the password on its first line."
        raise bad_use(message)
    return secret


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a parser the option --json."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def moment(text: str | None) -> datetime | None:
    """Read a time, UTC where it names no zone, None for none; raises CommandError."""
    if not text:
        return None
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        message = f"{text} is not a time: give it as 2026-01-31T09:30:00Z."
        raise bad_use(message)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def add_window(parser: CommandParser) -> None:
    """Declare which window: its length, and where it ends."""
    parser.add_argument("--window", choices=list(WINDOWS), default=DEFAULT_WINDOW)
    parser.add_argument("--at", help="where the window ends, a time in ISO 8601; now without it")


def window_of(options: Mapping[str, Any]) -> Window:
    """Return the window that `add_window` declared; raises CommandError."""
    at = moment(options["at"])
    end = at or timezone.now()
    return Window(
        end - WINDOWS[options["window"]], end, is_live=at is None, label=options["window"]
    )
