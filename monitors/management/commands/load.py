"""Print how busy a target was: average active sessions by what they waited for, ran or came from."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from monitors.history.active_sessions import DIMENSIONS, Slice
from monitors.management import command
from monitors.management.command import add_json, add_window, server_named, window_of
from monitors.rows import load


class Command(command.Command):
    """`manage.py load NAME`: the Load page for scripts."""

    help = "Print average active sessions by wait, query, user, application, host or database."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare NAME, of when, and by what."""
        parser.add_argument("name", help="the target")
        parser.add_argument("--by", choices=list(DIMENSIONS), default=load.DEFAULT)
        add_window(parser)
        parser.add_argument("--background", action="store_true", help="background processes too")
        add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one line each, most first, or one line of JSON."""
        target, which = server_named(options["name"]), Slice(background=options["background"])
        found = load.load_of(target, window_of(options), options["by"], which)
        rows = found.rows(options["by"])
        if options["json"]:
            self.print_json([dict(row) for row in rows])
        elif found.mean is None:
            self.say("Activity was not read in this window.")
        else:
            cores = f" on {target.cores} cores" if target.cores else ""
            self.say(
                f"{found.mean:.2f} active sessions on average{cores}, {found.snapshots} snapshots."
            )
            for row in rows:
                value = " ".join(row["value"].split()) or "(none)"
                self.say(
                    f"{row['average_active_sessions']:8.2f} {row['share_pct']:5.1f} %  {value}"
                )
