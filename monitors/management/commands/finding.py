"""List findings, and put them aside."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from monitors.findings import aside, unknowns
from monitors.findings.records import hurt_of
from monitors.management import command
from monitors.management.command import SOURCE, add_json, bad_use, failure
from monitors.models import FindingRecord, Target
from monitors.rows import findings
from monitors.rules import hurt


class Command(command.Command):
    """`manage.py finding list|acknowledge|snooze|reopen`."""

    help = "List findings, acknowledge or snooze them, or have them count again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        listing = verbs.add_parser("list", help="list open findings, the worst first")
        listing.add_argument("--target", help="of this target alone")
        listing.add_argument(
            "--all", action="store_true", help="also acknowledged, snoozed and resolved ones"
        )
        add_json(listing)
        acknowledge = verbs.add_parser(
            "acknowledge", help="let it count in no verdict until it gets worse"
        )
        add_finding(acknowledge)
        acknowledge.add_argument("--reason", required=True, help="why, for the others")
        snooze = verbs.add_parser("snooze", help="the same, until a moment")
        add_finding(snooze)
        snooze.add_argument("--until", required=True, help="30m, 2h, 3d, 1w or a time in ISO 8601")
        snooze.add_argument("--reason", required=True, help="why, for the others")
        add_finding(verbs.add_parser("reopen", help="let it count again"))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        verbs = {
            "list": self.list,
            "acknowledge": self.acknowledge,
            "snooze": self.snooze,
            "reopen": self.reopen,
        }
        verbs[options["verb"]](options)

    def list(self, options: dict[str, Any]) -> None:
        """Print findings by severity."""
        now, rows = timezone.now(), findings.find_opened()
        if options["target"]:
            rows = rows.filter(target=command.target_named(options["target"]))
        if not options["all"]:
            rows = rows.filter(findings.in_state("open", now))
        found = list(rows)
        lines = [findings.describe(row, now) for row in found]
        if options["json"]:
            self.print_json(lines)
            return
        for row, line in zip(found, lines, strict=True):
            state = "" if line["state"] == "open" else f" ({line['state']})"
            self.say(f"{line['id']}  {line['severity']}  {line['target']}  {line['title']}{state}")
            if line["state"] != "resolved":
                self.say(f"    {hurt.tell(hurt_of(row), now)}")
        if not lines:
            self.say(none_words(options["target"]))

    def acknowledge(self, options: dict[str, Any]) -> None:
        """Put a finding aside."""
        row = finding_named(options["id"])
        aside.acknowledge(command.person(), SOURCE, row, options["reason"])
        self.say(f"Finding {row.pk} is acknowledged: {row.title}")

    def snooze(self, options: dict[str, Any]) -> None:
        """Put a finding off."""
        row = finding_named(options["id"])
        until = aside.until_of(options["until"], timezone.now())
        aside.snooze(command.person(), SOURCE, row, until, options["reason"])
        self.say(f"Finding {row.pk} is snoozed until {until:%Y-%m-%d %H:%M %Z}: {row.title}")

    def reopen(self, options: dict[str, Any]) -> None:
        """Have a finding count again."""
        row = finding_named(options["id"])
        aside.reopen(command.person(), SOURCE, row)
        self.say(f"Finding {row.pk} is open: {row.title}")


def none_words(name: str | None) -> str:
    """Return that there is no finding, with what is not known of the target, or of all of them."""
    targets = [command.target_named(name)] if name else list(Target.objects.filter(enabled=True))
    reasons = [
        f"{target.name}: {reason}"
        for target in targets
        for reason in dict.fromkeys(unknowns.unknowns_of(target).values())
    ]
    return " ".join(["No open finding.", *reasons]) if reasons else "Nothing to report. Good."


def add_finding(parser: argparse.ArgumentParser) -> None:
    """Declare which finding."""
    parser.add_argument("id", help="its number, as finding list prints it")


def finding_named(text: str) -> FindingRecord:
    """Return a finding by its number; raises CommandError."""
    if not (text.isascii() and text.isdigit() and len(text) < len("9223372036854775807")):
        message = f"{text[:40]!r} is not the number of a finding: see manage.py finding list."
        raise bad_use(message)
    row = findings.find_opened().filter(pk=int(text)).first()
    if row is None:
        message = f"There is no finding {text}: see manage.py finding list --all."
        raise failure(message)
    return row
