"""A race of cancels against statements that end while the cancel is on its way.

Sessions run one statement after another, most of them for microseconds to milliseconds, some
until they are cancelled. An attacker reads what one runs and at once sends the statement of
`cancel_backend` for just that. A victim knows which statements of its own ran to their end, so
a cancel that was signalled for one of these hit the next one, or nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.errors import QueryCanceled

from monitors.actions.cancel_backend import ACTION
from tests.servers import Server

SEEN_SQL = """
SELECT pid::text, backend_start::text, query_start::text
  FROM pg_stat_activity
 WHERE pid = %s AND state = 'active' AND query_start IS NOT NULL
"""
UNTIL_CANCELLED_SECONDS = 600
ARRIVES_SECONDS = 5


@dataclass
class Victim:
    """A session and what became of its statements."""

    session: psycopg.Connection[Any]
    endless_share: float
    longest_ms: float
    shortest_ms: float
    ended: set[datetime] = field(default_factory=set)  # starts of what ran to its end
    cancelled: int = 0

    def run(self, over: threading.Event) -> None:
        """Run one statement after another until the race is over."""
        dice = random.Random(self.session.info.backend_pid)
        while not over.is_set():
            seconds = dice.uniform(self.shortest_ms, self.longest_ms) / 1000
            if dice.random() < self.endless_share:
                seconds = UNTIL_CANCELLED_SECONDS
            try:
                # its own start is what pg_stat_activity calls query_start
                row = self.session.execute(
                    "SELECT statement_timestamp(), pg_sleep(%s)", [seconds], prepare=False
                ).fetchone()
            except QueryCanceled:
                self.cancelled += 1
            except psycopg.OperationalError:
                return  # the race is over
            else:
                assert row is not None
                self.ended.add(row[0])


@dataclass
class Raced:
    """What a race counted."""

    tries: int = 0
    signalled: int = 0
    """Statements that a cancel was sent to."""
    wrong: int = 0
    """Signalled for a statement that had ended when the signal arrived."""
    cancelled: int = 0
    """Statements that were cancelled, whoever they were."""


Guards = list[dict[str, str]]
Shoot = Callable[[psycopg.Connection[Any], Guards], list[bool]]
"""Sends a cancel for each of some statements, and says for which a signal went out."""


def send_each(hand: psycopg.Connection[Any], guards: Guards) -> list[bool]:
    """Send the statement of `cancel_backend` for each."""
    sent = []
    for arguments in guards:
        statement = ACTION.statement(arguments, arguments, hand.info.server_version)
        _, signalled = hand.execute(statement).fetchone() or (0, None)
        sent.append(bool(signalled))
    return sent


def race(
    server: Server,
    tries: int,
    *,
    victims: int = 4,
    at_once: int = 1,
    shoot: Shoot = send_each,
    least_signalled: int = 0,
    endless_share: float = 0.05,
    shortest_ms: float = 0,
    longest_ms: float = 5,
) -> Raced:
    """Send so many cancels, some at once, just after their victims were seen, and count whom they hit."""
    runners = [
        Victim(
            server.connect(user="owner", dbname="shop", application_name="victim"),
            endless_share,
            longest_ms,
            shortest_ms,
        )
        for _ in range(victims)
    ]
    over = threading.Event()
    threads = [threading.Thread(target=runner.run, args=[over]) for runner in runners]
    for thread in threads:
        thread.start()
    counted = Raced()
    asked: set[tuple[int, datetime]] = set()
    with server.connect(user="operator") as hand:
        while counted.tries < tries or len(asked) < least_signalled:
            picked = random.sample(range(victims), at_once)
            looked = {
                place: seen(hand, runners[place].session.info.backend_pid) for place in picked
            }
            found = {place: guard for place, guard in looked.items() if guard is not None}
            signals = shoot(hand, list(found.values())) if found else []
            counted.tries += len(found)
            for (place, guard), signalled in zip(found.items(), signals, strict=True):
                if signalled:
                    asked.add((place, datetime.fromisoformat(guard["query_start"])))
    deadline = time.monotonic() + ARRIVES_SECONDS
    while sum(runner.cancelled for runner in runners) < len(asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    over.set()
    stop(server, runners, threads)
    counted.signalled = len(asked)
    counted.wrong = sum(start in runners[place].ended for place, start in asked)
    counted.cancelled = sum(runner.cancelled for runner in runners)
    return counted


def seen(hand: psycopg.Connection[Any], pid: int) -> dict[str, str] | None:
    """Return the arguments that name what a backend runs now, None where it runs nothing."""
    row = hand.execute(SEEN_SQL, [pid]).fetchone()
    names = ("pid", "backend_start", "query_start")
    return ACTION.clean(dict(zip(names, row, strict=True))) if row else None


def age_ms(hand: psycopg.Connection[Any], arguments: dict[str, str]) -> float:
    """Return how long ago a statement began, by the server's clock."""
    row = hand.execute(
        "SELECT extract(epoch FROM clock_timestamp() - %s::timestamptz)::float8 * 1000",
        [arguments["query_start"]],
    ).fetchone()
    assert row is not None
    return float(row[0])


def stop(server: Server, runners: list[Victim], threads: list[threading.Thread]) -> None:
    """End the victims' sessions and wait for their threads."""
    with server.connect() as superuser:
        for runner in runners:
            superuser.execute("SELECT pg_terminate_backend(%s)", [runner.session.info.backend_pid])
    for thread in threads:
        thread.join(10)
    for runner in runners:
        runner.session.close()
