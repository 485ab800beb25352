"""`manage.py snapshot NAME`: take a target's snapshots now, in this process."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict

from monitors import words
from monitors.collect.passes import SnapshotResult
from monitors.collect.rounds import good, take_now
from monitors.findings import keep
from monitors.management.command import Command as OneLine, CommandFailed
from monitors.models import Snapshot, Target
from monitors.probes import PROBES


class Command(OneLine):
    """Reads every probe, or those that are named, due or not."""

    help = "Take snapshots of a target now and say how each went."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare NAME, --probe and --json."""
        parser.add_argument("name", help="the target")
        parser.add_argument(
            "--probe", action="append", choices=[p.name for p in PROBES], help="only this probe"
        )
        parser.add_argument("--json", action="store_true", help="print one line of JSON")

    def handle(self, *, name: str, probe: list[str] | None, **options: object) -> None:
        """Take them and print one line each; exit 1 unless all are good.

        Good is also one that another snapshot overtook: that one is as new.
        """
        target = Target.objects.filter(name=name, deleting_at__isnull=True).first()
        if target is None:
            message = f"No target is called {name}. See: manage.py target list"
            raise CommandFailed(message)
        results = take_now(target, probe)
        keep.keep(target.pk, good(results))
        if options["json"]:
            self.print_json([asdict(result) for result in results])
        else:
            for result in results:
                self.say(line_of(result))
        fine = {Snapshot.State.OK, Snapshot.State.SUPERSEDED}
        if any(result.state not in fine for result in results):
            raise SystemExit(1)


def line_of(result: SnapshotResult) -> str:
    """Return a result for people."""
    place = result.probe + (f" in {result.database}" if result.database else "")
    if result.error:
        return f"{place}: {result.state}: {result.error}"
    return f"{place}: {words.count(result.rows, 'row')}, {result.stored:,} stored, {result.target_ms:.1f} ms"
