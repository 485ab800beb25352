"""Print who holds a target's connections, and how many are left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandParser

from monitors import words
from monitors.history.window import Window
from monitors.management import command
from monitors.management.command import (
    add_json,
    add_window,
    failure,
    pick,
    server_named,
    window_of,
)
from monitors.models import Target
from monitors.rows import churn, connections
from monitors.rows.churn import ChurnRow
from monitors.rows.connections import GroupRow, Use
from monitors.rules import hurt


class Command(command.Command):
    """`manage.py connections NAME`: the Connections page for scripts."""

    help = "Print who holds a target's connections, and how many are left."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare NAME, and by what connections are summed up."""
        parser.add_argument("name", help="the target")
        parser.add_argument(
            "--by",
            choices=list(connections.GROUPS),
            default="application_name",
            help="what they are summed up by (application_name)",
        )
        parser.add_argument(
            "--churn", action="store_true", help="how the clients of each database connect, instead"
        )
        add_window(parser)
        add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one line each, or one line of JSON."""
        target, window = server_named(options["name"]), window_of(options)
        if options["churn"]:
            self.print_churn(target, window, as_json=options["json"])
            return
        use = connections.use_of(target, window)
        groups = connections.groups_of(target, window, options["by"], use.usable)
        if use.used is None:
            message = f"The connections of {target.name} were not read yet: manage.py snapshot {target.name}."
            raise failure(message)
        if options["json"]:
            self.print_json(pick(groups, connections.COLUMNS))
            return
        self.say(told(use, window))
        for row in groups:
            self.say(line_of(row))

    def print_churn(self, target: Target, window: Window, *, as_json: bool) -> None:
        """Print what each database counted in the last hour."""
        rows = churn.churn_of(target, window, churn.counted(target, window))
        if as_json:
            self.print_json(pick(rows, churn.COLUMNS))
            return
        for line in lines_of(rows):
            self.say(line)


def told(use: Use, window: Window) -> str:
    """Return how many are taken and left, and when none is."""
    if use.usable is None or use.hurt is None:
        return f"{words.count(use.used or 0, 'connection')}; the limit is not known."
    left = max(use.usable - (use.used or 0), 0)
    return (
        f"{use.used:,} of {use.usable:,} usable connections are taken, {left:,} are left; "
        f"{hurt.tell(use.hurt, window.end)}."
    )


def line_of(row: GroupRow) -> str:
    """Return a group as a line."""
    return (
        f"{row['label']}: {row['backends']:,} ({row['active']:,} active, {row['idle']:,} idle, "
        f"{row['idle_in_transaction']:,} idle in transaction, {row['long_idle']:,} idle for over 10 min)"
    )


def lines_of(rows: Sequence[ChurnRow]) -> list[str]:
    """Return a line a database, or why there is none."""
    if not rows:
        return ["Not known: that takes two readings of the databases within an hour."]
    return [
        f"{row['datname']}: {row['sessions_per_second']:.2f} new sessions a second"
        + (
            f", {words.trim(row['xacts_per_session'])} transactions each"
            if row["xacts_per_session"] is not None
            else ""
        )
        + (f"; {row['connects_most']}" if row["connects_most"] else "")
        for row in rows
    ]
