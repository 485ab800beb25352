"""A machine that drives a real server through all that counters suffer, and knows the truth.

One server of its own a major: load, every reset, clean, immediate and crash stops, evictions, an
extension that is updated, dropped and made again, snapshots that are late, double or missing,
two workers, upkeep that is away. After each step the history is compared with what was run:
never too much, exact where it says that it is complete, and never less than could be seen.

HOWDAH_MACHINE_SECONDS says how long it goes on on each major; an hour before a release.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import wraps
from typing import Any, ClassVar

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster
from monitors.collect.rounds import Run, take_now
from monitors.collect.sessions import Session
from monitors.history import rollup, store
from monitors.history.counters import read_sums, read_totals
from monitors.history.window import Window
from monitors.models import HISTORY, Lease, Snapshot, Target
from monitors.probes import PROBES
from tests import servers
from tests.servers import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.fleet, pytest.mark.slow]

SECONDS = float(os.environ.get("HOWDAH_MACHINE_SECONDS", "8"))
STEPS = 50
EXAMPLES = 9  # hypothesis begins with short ones where there are ten or more
TAKEN = ["databases", "statements", "tables", "indexes"]
TABLES = range(3)
FLOOD = 130  # distinct statements; the server remembers 100
OLD = {17: "1.10", 18: "1.10"}
"""A version before `stats_since` where there is one with it."""
SINCE = "1.11"  # the first version with stats_since


@dataclass
class Counter:
    """One counter of the server, what history should have of it, and what nobody could see."""

    now: int = 0  # where it stands
    seen: int = 0  # where it stood at the last reading that was kept; 0 when it began anew
    truth: int = 0  # all that was ever run since the first reading
    kept: int = 0  # so much could be seen: history never has more
    least: int = 0  # and so much could be seen without a doubt: never has less
    ran: int = 0  # `truth` at the last reading that was kept
    doubt: bool = False  # a reset of it or of something else can't be told from none
    silent: bool = False  # … and leaves no sign at all
    forgotten: bool = False  # a statement that left since the last reading

    def count(self, times: int) -> None:
        self.now += times
        self.truth += times

    def begin_anew(self) -> None:
        self.now = self.seen = 0

    def read(self) -> None:
        self.kept += self.now - self.seen
        self.least += 0 if self.doubt else self.now - self.seen
        self.seen, self.ran, self.doubt = self.now, self.truth, False

    def baseline(self) -> None:
        """Whatever was before the first reading is none of the history's."""
        self.seen, self.truth, self.kept, self.least, self.ran = self.now, 0, 0, 0, 0


@dataclass
class Truth:
    """What was run, by probe and object."""

    statements: list[Counter] = field(default_factory=lambda: [Counter() for _ in TABLES])
    tables: list[Counter] = field(default_factory=lambda: [Counter() for _ in TABLES])
    indexes: list[Counter] = field(default_factory=lambda: [Counter() for _ in TABLES])
    databases: list[Counter] = field(default_factory=lambda: [Counter()])

    @property
    def cumulative(self) -> list[Counter]:
        """The counters of PostgreSQL's own statistics."""
        return [*self.tables, *self.indexes, *self.databases]


LOADS = st.none() | st.tuples(st.sampled_from(TABLES), st.integers(1, 40))
"""A table and how often its statement runs."""


def step(**strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """Make a rule of what may happen, between load or none and before a reading or none."""

    def decorate(happen: Callable[..., None]) -> Any:
        @wraps(happen)
        def act(machine: Machine, before: Any, after: Any, read: bool, **drawn: Any) -> None:
            if machine.over:
                return
            machine.begin()
            if before:
                machine.load(*before)
            happen(machine, **drawn)
            if after:
                machine.load(*after)
            if read:
                machine.take()
            machine.unchecked = True

        return rule(before=LOADS, after=LOADS, read=st.booleans(), **strategies)(act)

    return decorate


class Machine(RuleBasedStateMachine):
    """Every way to make a counter lie."""

    own: ClassVar[tuple[Cluster, Server]]
    watch: ClassVar[Callable[..., Target]]
    ends: ClassVar[float]
    number: ClassVar[int] = 0
    target: Target
    has_begun = False
    unchecked = False
    installed = "not yet"

    def __init__(self) -> None:
        super().__init__()
        self.cluster, self.server = self.own

    @property
    def over(self) -> bool:
        """Whether no further step is taken."""
        return time.monotonic() > self.ends

    def begin(self) -> None:
        """Before the first step: fresh tables, fresh statistics, a target and its baseline."""
        if self.has_begun:
            return
        Machine.number += 1
        self.truth, self.began = Truth(), timezone.now() - timedelta(seconds=1)
        self.since = self.shared = self.restarted = False
        self.installed = ""
        with self.admin() as session:
            for each in TABLES:
                session.execute(f"DROP TABLE IF EXISTS load_{each}")
                session.execute(f"CREATE TABLE load_{each} (id bigint PRIMARY KEY, n bigint)")
                session.execute(f"INSERT INTO load_{each} VALUES (1, 0)")
            self.relids = self.numbers(session, "SELECT 'load_{}'::regclass::oid::bigint")
            self.indexids = self.numbers(session, "SELECT 'load_{}_pkey'::regclass::oid::bigint")
            session.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
        self.install("")
        with self.admin() as session:
            session.execute("SELECT pg_stat_reset()")
            session.execute("SELECT pg_stat_statements_reset()")
        for each in TABLES:
            self.load(each, 1)
        with self.admin() as session:
            text = "SELECT queryid FROM pg_stat_statements WHERE query LIKE 'UPDATE load_{} %'"
            self.queryids = self.numbers(session, text)
        self.target = self.watch(self.server, name=f"machine-{self.number}", dbname="shop")
        self.has_begun = True
        take_now(self.target, TAKEN)  # finds the databases
        self.take()
        for counter in [*self.truth.statements, *self.truth.cumulative]:
            counter.baseline()

    def teardown(self) -> None:
        if self.has_begun:
            self.target.delete()

    def admin(self) -> psycopg.Connection[Any]:
        return self.server.connect(dbname="shop", options="-c enable_seqscan=off")

    def numbers(self, session: psycopg.Connection[Any], text: str) -> list[int]:
        """Return a number of each table."""
        rows = [session.execute(text.format(each)).fetchone() for each in TABLES]
        return [int(row[0]) for row in rows if row is not None]

    def execute(self, text: str, *parameters: object) -> None:
        with self.admin() as session:
            session.execute(text, parameters or None)

    def settle(self) -> None:
        """Wait until the server's own statistics are where they must be; 14 tells them late."""
        wanted = [[each.now for each in part] for part in (self.truth.tables, self.truth.indexes)]

        def is_told() -> bool:
            with self.admin() as session:
                tables = self.numbers(
                    session, "SELECT pg_stat_get_tuples_updated('load_{}'::regclass)"
                )
                indexes = self.numbers(
                    session, "SELECT pg_stat_get_numscans('load_{}_pkey'::regclass)"
                )
            return [tables, indexes] == wanted

        assert processes.wait_until(is_told, seconds=20), wanted

    # What runs

    def load(self, each: int, times: int) -> None:
        with self.admin() as session:
            for _ in range(times):
                session.execute(f"UPDATE load_{each} SET n = n + 1 WHERE id = 1")
            session.execute("BEGIN")
            session.execute("ROLLBACK")
        for part in (self.truth.statements, self.truth.tables, self.truth.indexes):
            part[each].count(times)
        self.truth.databases[0].count(1)
        self.settle()

    @step()
    def go_on(self) -> None:
        """Nothing but load and readings."""

    @step()
    def evict(self) -> None:
        with self.admin() as session:
            for number in range(FLOOD):
                session.execute(
                    "SELECT 1" + "".join("+-"[number >> bit & 1] + "1" for bit in range(8))
                )
        if not self.installed:
            self.install("")
        with self.admin() as session:
            for each, queryid in enumerate(self.queryids):
                row = session.execute(
                    "SELECT sum(calls) FROM pg_stat_statements WHERE queryid = %s", [queryid]
                ).fetchone()
                assert row is not None
                counter = self.truth.statements[each]
                if int(row[0] or 0) != counter.now:
                    assert row[0] is None, "an evicted statement came back by itself"
                    self.forget_statement(counter)

    def forget_statement(self, counter: Counter) -> None:
        """One statement leaves; without `stats_since` it may come back unnoticed."""
        counter.forgotten = counter.forgotten or bool(counter.seen)
        counter.begin_anew()

    def always_since(self) -> bool:
        """Whether the reading before and the next one both have `stats_since`."""
        return self.since and self.has_since()

    def has_since(self) -> bool:
        return version_of(self.installed) >= version_of(SINCE)

    # Resets

    @precondition(lambda self: self.installed)
    @step()
    def reset_statements(self) -> None:
        self.execute("SELECT pg_stat_statements_reset()")
        for counter in self.truth.statements:
            counter.begin_anew()

    @precondition(lambda self: self.installed)
    @step(each=st.sampled_from(TABLES))
    def reset_one_statement(self, each: int) -> None:
        self.execute("SELECT pg_stat_statements_reset(0, 0, %s)", self.queryids[each])
        self.forget_statement(self.truth.statements[each])

    @step()
    def reset_database(self) -> None:
        self.execute("SELECT pg_stat_reset()")
        for counter in self.truth.cumulative:
            counter.begin_anew()
            counter.doubt = True
        self.settle()

    @step(each=st.sampled_from(TABLES), index=st.booleans())
    def reset_one_table(self, each: int, index: bool) -> None:
        oid = (self.indexids if index else self.relids)[each]
        self.execute("SELECT pg_stat_reset_single_table_counters(%s::bigint::oid)", oid)
        (self.truth.indexes if index else self.truth.tables)[each].begin_anew()
        for counter in self.truth.cumulative:
            counter.doubt = True
        self.settle()

    @step(what=st.sampled_from(["bgwriter", "archiver", "wal", "everything"]))
    def reset_shared(self, what: str) -> None:
        if what == "everything":
            for each in ("bgwriter", "archiver", "wal"):
                self.execute("SELECT pg_stat_reset_shared(%s)", each)
        else:
            self.execute("SELECT pg_stat_reset_shared(%s)", what)
        self.shared = True
        self.doubt_restart()

    def doubt_restart(self) -> None:
        """A restart and resets of the shared statistics together may look like a crash."""
        if self.shared and self.restarted:
            for counter in self.truth.cumulative:
                counter.doubt = True

    # Stops

    @step(missed=st.booleans())
    def restart(self, missed: bool) -> None:
        port = self.server.port
        self.cluster.stop()
        if missed:
            assert {one.state for one in take_now(self.target, TAKEN)} == {"unreachable"}
        self.cluster.start(port)
        self.cluster.wait()
        self.restarted = True
        self.doubt_restart()

    @step()
    def stop_at_once(self) -> None:
        servers.restart(self.cluster, immediate=True)
        self.lose_statistics()

    @step()
    def crash(self) -> None:
        servers.crash(self.server)
        self.lose_statistics()
        for counter in self.truth.statements:
            counter.begin_anew()

    def lose_statistics(self) -> None:
        self.restarted = True
        self.doubt_restart()
        for counter in self.truth.cumulative:
            counter.begin_anew()

    # The extension

    def install(self, version: str) -> None:
        with self.admin() as session:
            text = "CREATE EXTENSION pg_stat_statements"
            session.execute(f"{text} VERSION '{version}'" if version else text)
        self.note_version()

    def note_version(self) -> None:
        with self.admin() as session:
            row = session.execute(
                "SELECT extversion FROM pg_extension WHERE extname = 'pg_stat_statements'"
            ).fetchone()
        self.installed = row[0] if row else ""

    @step(old=st.booleans(), now=st.booleans())
    def make_extension_again(self, old: bool, now: bool) -> None:
        self.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
        self.installed = ""
        if now:
            self.install(OLD.get(self.server.major, "1.9") if old else "")

    @precondition(lambda self: self.installed)
    @step()
    def update_extension(self) -> None:
        self.execute("ALTER EXTENSION pg_stat_statements UPDATE")
        self.note_version()

    # Readings

    def take(self) -> None:
        self.check_states(take_now(self.target, TAKEN))
        self.note_read()

    def check_states(self, results: list[Any]) -> None:
        states = {one.probe: one.state for one in results}
        wanted = dict.fromkeys(TAKEN, "ok")
        if not self.installed:
            wanted["statements"] = "unsupported"
        assert states == wanted, results

    def note_read(self) -> None:
        for counter in self.truth.cumulative:
            counter.read()
        self.shared = self.restarted = False
        if self.installed:
            for counter in self.truth.statements:
                if counter.forgotten and not self.always_since():
                    counter.doubt = counter.silent = True
                counter.forgotten = False
                counter.read()
            self.since = self.has_since()

    @step(each=st.sampled_from(TABLES), times=st.integers(1, 40), twice=st.booleans())
    def take_late(self, each: int, times: int, twice: bool) -> None:
        """Something else reads and stores between each reading and its storing."""
        real = store.store

        def late(*arguments: Any, **options: Any) -> Snapshot:
            store.store = real
            if twice:
                first = real(*arguments, **options)
                assert first.state == "ok"
            else:
                self.load(each, times)
                take_now(self.target, [arguments[0].history.probe.name])
            again = dict(options) | {"taken_at": timezone.now()}
            second = real(*arguments, **again)
            assert second.state == "superseded"
            store.store = late
            return second

        store.store = late
        try:
            take_now(self.target, TAKEN)
        finally:
            store.store = real
        self.take()

    @step()
    def take_without_the_lease(self) -> None:
        session = Session(Lease.Kind.SLOW)
        try:
            going = Run(self.target, session, 30, lambda: False)
            going.take([one for one in PROBES if one.name in TAKEN], only_due=False)
        finally:
            session.close()
        assert {one.state for one in going.results} == {"superseded"}

    @step(each=st.sampled_from(TABLES), times=st.integers(1, 200))
    def take_at_once(self, each: int, times: int) -> None:
        """Two workers read while the load runs."""

        def work() -> None:
            try:
                for _ in range(2):
                    take_now(self.target, TAKEN)
            finally:
                connection.close()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        self.load(each, times)
        for thread in threads:
            thread.join()
        self.take()

    @step()
    def forget(self) -> None:
        """Another process takes over, which remembers nothing."""
        store.MEMORY._kept.clear()

    @step()
    def sum_up(self) -> None:
        rollup.roll_up(timezone.now())

    @rule()
    def a_moment_passes(self) -> None:
        """Hypothesis begins with nothing but the first rule: this one costs no time."""

    @invariant()
    def history_tells_the_truth(self) -> None:
        if not self.unchecked:
            return
        self.unchecked = False
        evicted = bool(Snapshot.objects.filter(target_id=self.target.pk, evicted__gt=0).exists())
        for probe, name, keys, counters in (
            ("statements", "calls", self.queryids, self.truth.statements),
            ("tables", "n_tup_upd", self.relids, self.truth.tables),
            ("indexes", "idx_scan", self.indexids, self.truth.indexes),
            ("databases", "xact_rollback", [self.shop()], self.truth.databases),
        ):
            shown = self.shown(probe, name, timedelta())
            for days in (1, 3, 30, 100):
                assert self.shown(probe, name, timedelta(days=days)) == shown, (probe, days)
            for key, counter in zip(keys, counters, strict=True):
                total, complete = shown.get(key, (0, True))
                told = not complete or (probe == "statements" and evicted) or counter.silent
                fits = counter.least <= total <= counter.kept and (told or total == counter.ran)
                if not fits:
                    Machine.ends += 600  # the steps are taken again to see that they fail again
                assert fits, f"{probe} {key}: {total}, complete {complete}, {counter}"

    def shop(self) -> int:
        """Return the database's oid."""
        latest = HISTORY["databases"].latest._default_manager
        found = latest.filter(target_id=self.target.pk, datname="shop")
        return int(found.values_list("datid", flat=True).get())

    def shown(self, probe: str, name: str, back: timedelta) -> dict[int, tuple[int, bool]]:
        """Return what history has of each object in a window: by its first key."""
        window = Window(self.began - back, timezone.now() + timedelta(seconds=1), is_live=True)
        rows = (
            read_sums(probe, self.target.pk, window, [name])
            if back
            else read_totals(probe, self.target.pk, window)
        )
        key = HISTORY[probe].sample.key[0]
        return {row[key]: (int(row[name]), row["complete"]) for row in rows}


def version_of(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (text or "0").split("."))


def test_history_agrees_with_the_truth_whatever_happens(
    own_server: tuple[Cluster, Server], watch: Callable[..., Target]
) -> None:
    Machine.own, Machine.watch = own_server, staticmethod(watch)
    Machine.ends = time.monotonic() + SECONDS

    while time.monotonic() < Machine.ends:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
