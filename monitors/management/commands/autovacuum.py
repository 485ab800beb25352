"""`manage.py autovacuum NAME`: workers, running vacuums and the queue of a target."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from monitors import words
from monitors.findings import unknowns
from monitors.management.command import Command as OneLine, add_json, pick, server_named
from monitors.rows import vacuuming
from monitors.rows.queue import QUEUE_COLUMNS, QueueRow
from monitors.rows.running import RUNNING_COLUMNS, RunningRow
from monitors.rows.vacuum_parts import Workers


class Command(OneLine):
    """Prints what was last read; it asks no server."""

    help = "Show a target's autovacuum workers, running vacuums and the tables that come next."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare NAME and --json."""
        parser.add_argument("name", help="the target")
        add_json(parser)

    def handle(self, *, name: str, **options: Any) -> None:
        """Print it, or {workers, running, queue, left} as one line of JSON.

        Of a standby busy, most and left are null: its primary alone knows them.
        """
        state = vacuuming.state_of(server_named(name))
        if not options["json"]:
            for line in lines_of(state):
                self.say(line)
            return
        self.print_json(
            {
                "workers": asdict(state.workers),
                "running": pick(state.running, RUNNING_COLUMNS),
                "queue": pick(state.queue, QUEUE_COLUMNS),
                "left": state.left,
            }
        )


def lines_of(state: vacuuming.State) -> Iterator[str]:
    """Yield the lines for people."""
    if state.known:
        yield from lines_of_workers(state.workers)
        yield f"Running: {len(state.running)}"
    else:
        yield f"{unknowns.STANDBY} What runs there is not known here either: ask for the primary."
    yield from lines_of_running(state.running)
    if state.left:
        yield f"Past a threshold with autovacuum off, so nothing comes: {words.count(state.left, 'table')}."
    if state.known:
        order = "score" if state.workers.by_score else "place in pg_class"
        yield f"Due: {len(state.queue)}, by {order}"
    elif state.queue:
        yield f"Due for their age, which is replicated: {len(state.queue)}"
    yield from lines_of_queue(state.queue)


def lines_of_workers(workers: Workers) -> Iterator[str]:
    """Yield who is busy, and by which rules workers come."""
    if not workers.enabled:
        yield "Autovacuum is off: it comes only to prevent wraparound."
    most = workers.most if workers.most is not None else "an unknown number"
    yield f"Workers: {workers.busy} of {most} busy, each database once in {workers.naptime_seconds:g} s."
    if workers.wraparound:
        yield f"Wraparound is near in {', '.join(workers.wraparound)}: workers go nowhere else."


def lines_of_running(running: Iterable[RunningRow]) -> Iterator[str]:
    """Yield what runs, with how far it is and why it is slow."""
    for row in running:
        who = "autovacuum: " if row["autovacuum"] else ""
        done = f" {row['pct']:.0f} %" if row["pct"] is not None else ""
        left = (
            f", {words.duration(row['eta_seconds'])} to go"
            if row["eta_seconds"] is not None
            else ""
        )
        of = " in this phase" if left and row["eta_of"] == "phase" else ""
        error = f" (± {row['eta_error_pct']:.0f} %)" if row["eta_error_pct"] is not None else ""
        name = f"{row['datname']}: {row['table'] or row['relid']}"
        yield f"  {name}  {who}{row['command']}, {row['phase']}{done}{left}{of}{error}"
        if row["why_slow"]:
            yield f"    {row['why_slow']}"


def lines_of_queue(queue: Iterable[QueueRow]) -> Iterator[str]:
    """Yield the tables that come next."""
    for row in queue:
        name = row["table"] if row["toast_of"] is None else f"TOAST of {row['toast_of']}"
        takes = row["expected_seconds"]
        length = f", takes about {words.duration(takes)}" if takes is not None else ""
        score = f", score {row['score']:.2f}" if row["score"] is not None else ""
        yield (
            f"  {row['position']}. {row['database']}: {name}  {row['does']}"
            f" ({row['reason']}){score}, {row['state']}{length}"
        )
