"""`manage.py simulate NAME`: what autovacuum would do to a table under other parameters."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from monitors.advisor import table_name
from monitors.history.latest import read_latest
from monitors.history.window import WINDOWS, Window
from monitors.management.command import Command as OneLine, add_json, bad_use, failure, server_named
from monitors.models import Database, Target
from monitors.rows import replay
from monitors.rows.replay import NotEnough
from monitors.rules import simulator
from monitors.rules.simulator import Outcome


class Command(OneLine):
    """Replays a table's history; reads no target."""

    help = "Replay a table's recorded history under other autovacuum parameters."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare NAME, --database, --table, --set, --window, --best and --json."""
        parser.add_argument("name", help="the target")
        parser.add_argument("--database", required=True, help="the database that has the table")
        parser.add_argument("--table", required=True, help="the table with its schema")
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="PARAMETER=VALUE",
            help=f"a storage parameter to try: {', '.join(replay.CHANGEABLE)}",
        )
        parser.add_argument("--window", choices=WINDOWS, default="24h", help="how far back")
        parser.add_argument("--best", action="store_true", help="search the best trade-off too")
        add_json(parser)

    def handle(self, *, name: str, database: str, table: str, **options: Any) -> None:
        """Print what is in force, what is tried, and the trade-off."""
        target = server_named(name)
        row = table_of(target, database, table)
        try:
            changes = changes_of(options["set"])
        except ValueError as error:
            raise bad_use(str(error)) from None
        window = Window.last(options["window"], timezone.now())
        try:
            done = replay.replay(target, row, window, changes)
        except NotEnough as error:
            raise failure(str(error)) from None
        line = replay.trade_off(target, done) if options["best"] else []
        knee = simulator.balanced(line)
        said: dict[str, Any] = {
            "target": target.name,
            "database": database,
            "table": table_name(row),
            "seconds": done.recording.seconds,
            "real_autovacuums": done.proof.real,
            "timed_autovacuums": done.proof.timed,
            "autovacuums_in_gaps": done.proof.in_gaps,
            "predicted": done.proof.predicted,
            "met": done.proof.met,
            "recall_pct": done.proof.recall_pct,
            "within_seconds": done.proof.within_seconds,
            "agrees": done.proof.agrees if done.proof.real else None,
            "reads_a_day": round(done.recording.reads_a_day, 1),
            "as_is": told(done.as_is, done.options),
            "tried": told(done.tried, {**done.on, **changes}) if done.tried else None,
            "trade_off": [
                {**told(one.outcome, one.options), "is_balanced": one is knee} for one in line
            ],
        }
        if options["json"]:
            self.print_json(said)
            return
        self.say(replay.verdict_of(done.proof)[1])
        self.say(f"as it is: {words(said['as_is'])}")
        if said["tried"]:
            self.say(f"tried:    {words(said['tried'])}")
        for one in said["trade_off"]:
            chosen = ", ".join(replay.spell(one["parameters"]))
            self.say(f"{'* ' if one['is_balanced'] else '  '}{chosen}: {words(one)}")
        if options["best"] and not line:
            trusted = replay.is_trusted(done.proof)
            self.say(replay.NOTHING_BETTER if trusted else replay.NOT_TRUSTED)


def table_of(target: Target, datname: str, name: str) -> Mapping[str, Any]:
    """Return a table's row as last read; raises CommandError where none is called so."""
    database = Database.objects.filter(target=target, datname=datname, gone_at=None).first()
    if database is None:
        message = f"{target.name} has no database {datname} that was read."
        raise failure(message)
    for row in read_latest("tables", target.pk, database_id=database.pk):
        if table_name(row) == name:
            return row
    message = f"{datname} has no table {name} that was read: give it with its schema."
    raise failure(message)


def changes_of(given: list[str]) -> dict[str, str]:
    """Return the parameters of --set; raises ValueError for what is none."""
    pairs = dict(text.partition("=")[::2] for text in given)
    unknown = [name for name in pairs if name not in replay.CHANGEABLE]
    if unknown:
        message = f"{unknown[0]} can't be tried. Known: {', '.join(replay.CHANGEABLE)}."
        raise ValueError(message)
    return replay.parse(pairs)


def told(outcome: Outcome, parameters: dict[str, str] | Any) -> dict[str, Any]:
    """Return an outcome as JSON."""
    return {
        "parameters": dict(parameters),
        "vacuums": len(outcome.vacuums),
        "vacuums_a_day": round(outcome.vacuums_a_day, 2),
        "analyzes": len(outcome.analyzes),
        "usual_dead_tup": round(outcome.usual_dead),
        "peak_dead_tup": round(outcome.peak_dead),
        "extra_pages": round(outcome.extra_pages),
        "io_bytes_a_day": round(outcome.io_bytes_a_day),
        "work_bytes_a_day": round(outcome.work_bytes_a_day),
        "dead_bytes_a_day": round(outcome.dead_bytes_a_day),
        "total_bytes_a_day": round(outcome.total_bytes_a_day),
        "busy_pct": round(100 * outcome.busy_share, 2),
        "late_visits": outcome.late,
        "is_pressed": outcome.is_pressed,
    }


def words(one: dict[str, Any]) -> str:
    """Return an outcome for people."""
    return (
        f"{one['vacuums_a_day']:,.1f} vacuums a day, {one['usual_dead_tup']:,} dead rows usual,"
        f" {one['peak_dead_tup']:,} at the peak, {one['io_bytes_a_day'] / 1e6:,.1f} MB of I/O a day,"
        f" costs {one['total_bytes_a_day'] / 1e6:,.1f} MB a day in all"
        f"{', at every visit of a worker' if one['is_pressed'] else ''}"
    )
