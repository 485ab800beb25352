"""Print a target's settings, what changed, what is off, or what differs from other settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from monitors.history.window import WINDOWS, Window
from monitors.management import command
from monitors.management.command import (
    add_json,
    bad_use,
    failure,
    moment,
    pick,
    server_named,
)
from monitors.models import Target
from monitors.rows import configuration
from monitors.rows.settings import COLUMNS
from monitors.rules import setting, settings_advice

KEYS = tuple(name for name in COLUMNS if name != "read_at")
"""Of one setting with --json."""


class Command(command.Command):
    """`manage.py settings NAME`: the Settings page for scripts."""

    help = "Print a target's settings, what changed, what is off, or what differs."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare NAME, which settings, of when, and against what."""
        parser.add_argument("name", help="the target")
        parser.add_argument(
            "--changed", action="store_true", help="only what differs from the default"
        )
        parser.add_argument("--at", help="as they stood then, a time in ISO 8601")
        parser.add_argument("--with", dest="other", help="only what differs from this target's")
        parser.add_argument("--with-at", help="only what differs from then, a time in ISO 8601")
        parser.add_argument(
            "--history", choices=list(WINDOWS), help="what changed in a window that ends at --at"
        )
        parser.add_argument("--advice", action="store_true", help="what is off, and what to run")
        add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one line each, or one line of JSON."""
        target = server_named(options["name"])
        at = moment(options["at"])
        if options["history"]:
            self.print_history(target, at, options)
            return
        rows = known_settings(target, at)
        if options["advice"]:
            self.print_advice(target, rows, options)
        elif options["other"] or options["with_at"]:
            self.print_difference(target, rows, at, options)
        else:
            self.print_settings(rows, options)

    def print_settings(self, rows: configuration.Settings, options: Mapping[str, Any]) -> None:
        """Print the settings, all or those that were changed."""
        shown = [{**row, "is_changed": setting.is_changed(row)} for row in rows]
        shown = [row for row in shown if row["is_changed"] or not options["changed"]]
        if options["json"]:
            self.print_json(pick(shown, KEYS))
            return
        for row in shown:
            value = setting.words_of(row["setting"], row["unit"])
            waits = "  awaits a restart" if setting.awaits_restart(row) else ""
            self.say(f"{row['name']} = {value}  ({row['source'] or 'not visible'}){waits}")

    def print_difference(
        self,
        target: Target,
        rows: configuration.Settings,
        at: datetime | None,
        options: Mapping[str, Any],
    ) -> None:
        """Print what differs, both values."""
        other = server_named(options["other"]) if options["other"] else target
        theirs = known_settings(other, moment(options["with_at"]) or at)
        found = configuration.difference_of(rows, theirs)
        if options["json"]:
            self.print_json(pick(found, configuration.DIFFERENCE))
            return
        for row in found:
            here, there = row["value"], row["with_value"]
            self.say(f"{row['name']}: {here or 'no such setting'} | {there or 'no such setting'}")
        if not found:
            self.say("No difference.")

    def print_history(
        self, target: Target, at: datetime | None, options: Mapping[str, Any]
    ) -> None:
        """Print what changed, newest first."""
        end = at or timezone.now()
        window = Window(end - WINDOWS[options["history"]], end, is_live=at is None)
        found = configuration.changes_of(target, window)
        if options["json"]:
            self.print_json(pick(found, configuration.CHANGE))
            return
        for row in found:
            self.say(f"{row['before_at']:%Y-%m-%d %H:%M} to {row['at']:%H:%M} UTC  {row['words']}")
        if not found:
            self.say("No setting changed in this window.")

    def print_advice(
        self, target: Target, rows: configuration.Settings, options: Mapping[str, Any]
    ) -> None:
        """Print what is off now, worst first, and the statement that helps."""
        if options["at"]:
            message = "Advice is given on the settings of now: leave out --at."
            raise bad_use(message)
        facts = configuration.facts_of(target, Window.last("24h", timezone.now()))
        found = settings_advice.advise(settings_advice.rows_by_name(rows), facts)
        if options["json"]:
            self.print_json([one.row() for one in found])
            return
        for one in found:
            self.say(f"{one.level}: {one.title} {' '.join(one.statement.split())}".rstrip())


def known_settings(target: Target, at: datetime | None) -> configuration.Settings:
    """Return a target's settings; raises CommandError where none were read."""
    rows = configuration.settings_of(target, at)
    if not rows:
        when = f" at {at:%Y-%m-%d %H:%M:%S} UTC" if at else " yet"
        message = (
            f"The settings of {target.name} were not read{when}: "
            f"manage.py snapshot {target.name} --probe settings."
        )
        raise failure(message)
    return rows
