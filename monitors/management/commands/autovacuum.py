"""`manage.py autovacuum NAME`: workers, running vacuums and the queue of a target."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from monitors import vacuuming
from monitors.advisor import counted, duration
from monitors.management.command import Command as OneLine, add_json, target_named


class Command(OneLine):
    """Prints what was last read; it asks no server."""

    help = "Show a target's autovacuum workers, running vacuums and the tables that come next."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare NAME and --json."""
        parser.add_argument("name", help="the target")
        add_json(parser)

    def handle(self, *, name: str, **options: Any) -> None:
        """Print it, or {workers, running, queue, left} as one line of JSON."""
        state = vacuuming.state_of(target_named(name))
        if not options["json"]:
            for line in lines_of(state):
                self.say(line)
            return
        running, queue = vacuuming.RUNNING_COLUMNS, vacuuming.QUEUE_COLUMNS
        self.print_json(
            {
                "workers": asdict(state.workers),
                "running": [{key: row[key] for key in running} for row in state.running],
                "queue": [{key: row[key] for key in queue} for row in state.queue],
                "left": state.left,
            }
        )


def lines_of(state: vacuuming.State) -> Iterator[str]:
    """Yield the lines for people."""
    workers = state.workers
    if not workers.enabled:
        yield "Autovacuum is off: it comes only to prevent wraparound."
    most = workers.most if workers.most is not None else "an unknown number"
    yield f"Workers: {workers.busy} of {most} busy, each database once in {workers.naptime_seconds:g} s."
    if workers.wraparound:
        yield f"Wraparound is near in {', '.join(workers.wraparound)}: workers go nowhere else."
    yield f"Running: {len(state.running)}"
    for row in state.running:
        who = "autovacuum: " if row["autovacuum"] else ""
        done = f" {row['pct']:.0f} %" if row["pct"] is not None else ""
        left = f", {duration(row['eta_seconds'])} to go" if row["eta_seconds"] is not None else ""
        of = " in this phase" if left and row["eta_of"] == "phase" else ""
        error = f" (± {row['eta_error_pct']:.0f} %)" if row["eta_error_pct"] is not None else ""
        name = f"{row['datname']}: {row['table'] or row['relid']}"
        yield f"  {name}  {who}{row['command']}, {row['phase']}{done}{left}{of}{error}"
        if row["why_slow"]:
            yield f"    {row['why_slow']}"
    if state.left:
        yield f"Past a threshold with autovacuum off, so nothing comes: {counted(state.left, 'table')}."
    yield f"Due: {len(state.queue)}, by {'score' if workers.by_score else 'place in pg_class'}"
    for row in state.queue:
        name = row["table"] if row["toast_of"] is None else f"TOAST of {row['toast_of']}"
        takes = row["expected_seconds"]
        length = f", takes about {duration(takes)}" if takes is not None else ""
        yield (
            f"  {row['position']}. {row['database']}: {name}  {row['does']}"
            f" ({row['reason']}), score {row['score']:.2f}, {row['state']}{length}"
        )
