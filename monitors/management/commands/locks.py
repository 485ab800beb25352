"""`manage.py locks NAME`: who holds everybody up, and what releases them."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.utils import timezone

from monitors import words
from monitors.history.window import Window
from monitors.management.command import Command as OneLine, add_json, moment, pick, server_named
from monitors.rows import lock_edges, locks
from monitors.rows.locks import Locks, RootRow, Tree
from monitors.rules.lock_words import WAYS_OUT


class Command(OneLine):
    """Prints what was last read; it asks no server."""

    help = "Show a target's root blockers, who waits behind them, and what releases those."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare NAME, --at, --edges and --json."""
        parser.add_argument("name", help="the target")
        parser.add_argument("--at", help="as they stood then, a time in ISO 8601")
        parser.add_argument("--edges", action="store_true", help="one row an edge, not one a root")
        add_json(parser)

    def handle(self, *, name: str, **options: Any) -> None:
        """Print one line a root or edge, or a list of them as one line of JSON."""
        at = moment(options["at"])
        end = at or timezone.now()
        window = Window(end - timedelta(hours=1), end, is_live=at is None)
        found = locks.read_locks(server_named(name), window)
        if options["json"]:
            rows, columns = (
                (found.edges, lock_edges.COLUMNS)
                if options["edges"]
                else (found.roots, locks.COLUMNS)
            )
            self.print_json(pick(rows, columns))
            return
        for line in lines_of_edges(found) if options["edges"] else lines_of(found):
            self.say(line)


def lines_of(found: Locks) -> Iterator[str]:
    """Yield a head, and of each root who it is, whom it blocks and the queues behind it."""
    if found.read_at is None:
        yield "The locks were not read."
        return
    if not found.trees:
        yield "Nobody waits for a lock."
    for tree in found.trees:
        yield from lines_of_tree(tree)


def lines_of_tree(tree: Tree) -> Iterator[str]:
    """Yield a root and its queues."""
    row = tree.row
    yield f"{name_root(row)}  blocks {row['blocked']}, {waited(row['waited_seconds'])} in total"
    yield f"  {WAYS_OUT[row['way_out']].format(row['root_pid'])} It releases {row['released']}."
    if row["query"]:
        yield f"  {row['state'] or 'state not known'}: {' '.join(row['query'].split())}"
    for queue in tree.queues:
        longest = waited(locks.longest(one.edge["waited_seconds"] for one in queue.waiters))
        yield f"  {queue.lock}: {words.count(len(queue.waiters), 'waiter')}, the longest {longest}"


def lines_of_edges(found: Locks) -> Iterator[str]:
    """Yield each waiter with one that it waits for."""
    for edge in found.edges:
        how = {True: "holds it", False: "waits ahead", None: "how is not known"}[edge["hard"]]
        blocker = edge["gid"] or edge["blocker_pid"]
        yield f"{edge['pid']} waits {waited(edge['waited_seconds'])} for {edge['lock']}: {blocker} {how}"


def name_root(row: RootRow) -> str:
    """Return who a root is."""
    if row["gid"] is not None:
        return f"prepared transaction {row['gid']}"
    names = (row["application_name"] or row["backend_type"], row["usename"], row["datname"])
    return " ".join([str(row["root_pid"]), *(name for name in names if name)])


def waited(seconds: float | None) -> str:
    """Return how long somebody waited, in words."""
    return "for a time that is not known" if seconds is None else words.duration(seconds)
