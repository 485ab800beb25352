"""`manage.py pools [TARGET]`: whether the connections that services may open fit into a server."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from monitors.history.window import Window
from monitors.management.command import Command as OneLine, add_json, bad_use, server_named
from monitors.rows import pools as rows
from monitors.rows.pools import AnswerRow, Measured
from monitors.rules import pool_words
from monitors.rules.pool_words import Words
from monitors.words import count


class Command(OneLine):
    """Calculates with what the history knows of a target; reads no target."""

    help = "Tell whether services' connections fit into a server, and which limit breaks first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare [TARGET], an option for each word of the page's address, and --json."""
        parser.add_argument("target", nargs="?", help="whose limits and demand count")
        for word in pool_words.SERVICE:
            parser.add_argument(
                f"--{word.replace('_', '-')}",
                action="append",
                default=[],
                metavar="VALUE",
                help="of a service; given again, of the next one",
            )
        for word in pool_words.ONCE:
            parser.add_argument(f"--{word.replace('_', '-')}", metavar="VALUE")
        add_json(parser)

    def handle(self, *, target: str | None, **options: Any) -> None:
        """Print the answer, and for a target what was measured."""
        window = Window.last("1h", timezone.now())
        found = server_named(target) if target else None
        limits = rows.limits_of(found, window) if found else None
        asked = pool_words.read(words_of(options), limits)
        if asked.wrong:
            raise bad_use(asked.error)
        answers = rows.answer_rows(asked)
        if not answers and found is None:
            message = "Nothing is asked: give a service, as --processes 4 --pool-size 25."
            raise bad_use(message)
        measured = rows.measure(found, window) if found else None
        if options["json"]:
            self.print_json({**(answers[0] if answers else {}), **told(measured)})
            return
        for line in (
            *map(answer_line, answers),
            *map(measured_line, [measured] if measured else []),
        ):
            self.say(line)


def words_of(options: Mapping[str, Any]) -> Words:
    """Return the options as an address has them."""
    once = {word: [options[word]] for word in pool_words.ONCE if options[word]}
    return {word: options[word] for word in pool_words.SERVICE} | once


def told(measured: Measured | None) -> dict[str, Any]:
    """Return what was measured as JSON; {} without a target."""
    if measured is None:
        return {}
    return {
        "readings": measured.readings,
        "usual_in_transaction": measured.usual_in_xact,
        "peak_in_transaction": measured.peak_in_xact,
        "peak_open": measured.peak_open,
        "recommended": measured.recommended,
    }


def answer_line(row: AnswerRow) -> str:
    """Return an answer for people."""
    sign = ">" if row["needed"] > row["usable"] else "of"
    return (
        f"{row['verdict']}: {row['sum']} = {row['needed']:,} {sign} {row['usable']:,};"
        f" first limit: {row['first_limit']}; then: {'; '.join(row['errors']) or 'no error'}"
    )


def measured_line(measured: Measured) -> str:
    """Return for people how many connections are needed at once."""
    if measured.recommended is None:
        return "measured: no demand yet"
    return (
        f"measured: {measured.usual_in_xact:,.0f} in transaction in 99 % of"
        f" {count(measured.readings, 'reading')}, {measured.peak_in_xact:,.0f} at most;"
        f" recommended: {count(measured.recommended, 'connection')} for all together"
    )
