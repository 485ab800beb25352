"""Prove that the audit is whole, and export it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from monitors.audit import entries as audit
from monitors.management import command
from monitors.management.command import SOURCE, add_json, failure, moment, person
from monitors.models import AuditEntry
from monitors.plain import harmless
from monitors.rows.audit import COLUMNS

KEYS = (*COLUMNS, "previous_hash", "hash")


class Command(command.Command):
    """`manage.py audit verify|export`."""

    help = "Prove that the audit is whole, and export it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands."""
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=command.Parser)
        add_json(verbs.add_parser("verify", help="recompute the chain of hashes"))
        export = verbs.add_parser("export", help="print the entries, oldest first")
        export.add_argument("--format", choices=["json", "csv"], default="json")
        export.add_argument("--target")
        export.add_argument("--since", help="a time in ISO 8601")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one subcommand."""
        {"verify": self.verify, "export": self.export}[options["verb"]](options)

    def verify(self, options: dict[str, Any]) -> None:
        """Say whether every entry fits the one before; status 1 where one does not."""
        broken = audit.verify()
        last = AuditEntry.objects.order_by("-id").first()
        if options["json"]:
            self.print_json(
                {
                    "whole": broken is None,
                    "first_broken": broken,
                    "entries": AuditEntry.objects.count(),
                    "last_hash": last.hash if last else None,
                }
            )
        if broken is not None:
            message = f"The audit was tampered with: entry {broken} does not fit the one before."
            raise failure(message)
        if not options["json"]:
            hash_text = f", the last hash is {last.hash}" if last else ""
            count = AuditEntry.objects.count()
            self.say(
                f"The audit is whole: {count:,} {'entry' if count == 1 else 'entries'}{hash_text}."
            )

    def export(self, options: dict[str, Any]) -> None:
        """Print the entries as a list on one line of JSON, or as CSV with a header; it is one too."""
        narrowed = {name: options[name] or "" for name in ("target", "since")}
        audit.add("export", person(), SOURCE, object_name="audit", **narrowed)
        entries = AuditEntry.objects.order_by("id")
        if options["target"]:
            entries = entries.filter(target_name=options["target"])
        if options["since"]:
            entries = entries.filter(at__gte=moment(options["since"]))
        rows = (row_of(entry) for entry in entries.iterator(chunk_size=2000))
        if options["format"] == "csv":
            self.print_csv(rows)
        else:
            self.stream_json(rows)

    def stream_json(self, rows: Iterator[dict[str, Any]]) -> None:
        """Print a list without holding all of it."""
        encoder = DjangoJSONEncoder(ensure_ascii=False)
        self.stdout.write("[", ending="")
        for number, row in enumerate(rows):
            self.stdout.write((", " if number else "") + encoder.encode(row), ending="")
        self.stdout.write("]")

    def print_csv(self, rows: Iterator[dict[str, Any]]) -> None:
        """Print rows that a spreadsheet won't take for formulas."""
        writer = csv.writer(Lines(self))
        writer.writerow(KEYS)
        for row in rows:
            writer.writerow([cell(row[name]) for name in KEYS])


class Lines:
    """A file for the csv module that prints through the command."""

    def __init__(self, printing: command.Command) -> None:
        self.printing = printing

    def write(self, text: str) -> None:
        """Print a line that has its end."""
        self.printing.stdout.write(text, ending="")


def row_of(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry by column; its time with all six digits."""
    row = {name: getattr(entry, name) for name in KEYS}
    return row | {"at": entry.at.isoformat(timespec="microseconds"), "id": str(entry.pk)}


def cell(value: Any) -> Any:
    """Return a cell that does not begin like a formula."""
    text = DjangoJSONEncoder().encode(value) if isinstance(value, dict) else value
    return harmless(text) if isinstance(text, str) else text
