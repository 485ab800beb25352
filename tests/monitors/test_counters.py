"""Counts to the call: late readings, lost leases, stops that keep some counters and not others."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from dashboard.embedded.postgres import Cluster
from monitors.collect import read, rounds, sessions
from monitors.collect.rounds import Run, take_now
from monitors.collect.sessions import Session
from monitors.history import store
from monitors.history.counters import read_totals
from monitors.history.reading import Place, Reading
from monitors.history.window import Window
from monitors.models import HISTORY, Lease, ProbeState, Snapshot, Target
from monitors.pg.identity import Identity, read_identity
from monitors.targets import register, remove
from tests import servers
from tests.servers import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.fleet]

Watch = Callable[..., Target]
Own = tuple[Cluster, Server]
TEXT = "UPDATE counted SET n = n + 1 WHERE id = 1"
NORMAL = "UPDATE counted SET n = n + $1 WHERE id = $2"
PROBES = ["databases", "statements", "tables", "indexes"]


@contextmanager
def counted(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """A session in `shop` beside a fresh table `counted` with one row."""
    with server.connect(dbname="shop") as session:
        make_table(session)
        yield session
        session.execute("DROP TABLE counted")


def make_table(session: psycopg.Connection[Any]) -> None:
    session.execute("DROP TABLE IF EXISTS counted")
    session.execute("CREATE TABLE counted (id bigint PRIMARY KEY, n bigint)")
    session.execute("INSERT INTO counted VALUES (1, 0)")
    session.execute("SELECT pg_stat_statements_reset()")
    session.execute("SET enable_seqscan = off")  # each update is one scan of the index


def run(session: psycopg.Connection[Any], times: int) -> None:
    for _ in range(times):
        session.execute(TEXT)


def snap(target: Target, *probes: str) -> None:
    results = take_now(target, list(probes or ["statements"]))
    assert {result.state for result in results} == {"ok"}, results


def calls_of(target: Target) -> tuple[int, bool]:
    """Return the calls of the statement over the last hour, and whether nothing is missing."""
    now = timezone.now()
    window = Window(now - timedelta(hours=1), now + timedelta(seconds=1), is_live=True)
    latest = HISTORY["statements"].latest._default_manager.filter(target_id=target.pk, query=NORMAL)
    ids = set(latest.values_list("queryid", flat=True))
    rows = [row for row in read_totals("statements", target.pk, window) if row["queryid"] in ids]
    return sum(row["calls"] for row in rows), all(row["complete"] for row in rows)


def grown(target: Target, probe: str, counter: str, name: str) -> tuple[int, bool]:
    """Return what a counter of one named object grew by in the last hour, and whether all of it."""
    now = timezone.now()
    window = Window(now - timedelta(hours=1), now + timedelta(seconds=1), is_live=True)
    labels = [
        label for label in ("indexrelname", "relname", "datname") if label in label_names(probe)
    ]
    history = HISTORY[probe]
    ids = set(
        history.latest._default_manager.filter(
            target_id=target.pk, **{labels[0]: name}
        ).values_list(history.sample.key[0], flat=True)
    )
    rows = [
        row for row in read_totals(probe, target.pk, window) if row[history.sample.key[0]] in ids
    ]
    return sum(row[counter] for row in rows), all(row["complete"] for row in rows)


def label_names(probe: str) -> tuple[str, ...]:
    return HISTORY[probe].sample.labels


def reading_of(target: Target, server: Server) -> Reading:
    """Read the statements now, without keeping them."""
    session = Session(Lease.Kind.SLOW)
    try:
        session.prepare(target)
        probe = HISTORY["statements"].probe
        going = Run(target, session, 30)
        _, installed = going.find_extension("pg_stat_statements")
        kept = session.open(target, target.dbname, 30)
        text = probe.sql_for(server.major * 10000, installed.version)
        assert text is not None
        with kept.connection.transaction():
            return read.read(kept.connection, probe, text, installed)
    finally:
        session.close()


def keep(target: Target, reading: Reading) -> Snapshot:
    state = ProbeState.objects.get(target=target, probe="statements")
    return store.store(
        Place(HISTORY["statements"], target.pk, 0),
        reading,
        taken_at=timezone.now(),
        interval_seconds=60,
        next_due=timezone.now(),
        epoch=state.epoch,
    )


def test_a_reading_older_than_what_is_stored_is_refused(server: Server, watch: Watch) -> None:
    target = watch(server)
    with counted(server) as session:
        run(session, 20)
        snap(target)
        run(session, 30)
        older = reading_of(target, server)
        run(session, 30)
        newer = reading_of(target, server)

        kept, refused = keep(target, newer), keep(target, older)
        again = keep(target, newer)
        run(session, 5)
        snap(target)

    assert (kept.state, refused.state, again.state) == ("ok", "superseded", "superseded")
    assert refused.reason == "Another snapshot was stored while this one was read."
    assert (refused.stored, refused.rows) == (0, 0)
    assert calls_of(target) == (65, True)
    state = ProbeState.objects.get(target=target, probe="statements")
    assert (state.state, state.failing_since) == ("ok", None)


def test_a_clock_that_was_set_back_costs_no_snapshot(server: Server, watch: Watch) -> None:
    target = watch(server)
    with counted(server) as session:
        run(session, 2)
        snap(target)
        ahead = timezone.now() + timedelta(hours=1)
        ProbeState.objects.filter(target=target).update(target_at=ahead)
        run(session, 7)
        snap(target)

    assert calls_of(target) == (7, True)


class Paused:
    """Holds back whoever wants to store in one thread until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go, self.thread = threading.Event(), threading.Event(), 0
        self.store = store.store
        monkeypatch.setattr(store, "store", self.wait_and_store)

    def wait_and_store(self, *args: Any, **options: Any) -> Snapshot:
        if threading.get_ident() == self.thread:
            self.reached.set()
            assert self.go.wait(30)
        return self.store(*args, **options)

    def take(self, work: Callable[[], object]) -> threading.Thread:
        """Begin some work in a thread of its own, which stops before it stores."""

        def held() -> None:
            self.thread = threading.get_ident()
            try:
                work()
            finally:
                connection.close()

        thread = threading.Thread(target=held)
        thread.start()
        assert self.reached.wait(30)
        return thread


def test_a_worker_that_stood_still_and_lost_its_lease_stores_nothing(
    embedded: Server, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = watch(embedded)
    claim = uuid.uuid4()
    Lease.objects.create(target=target, kind="slow", claim=claim, expires_at=timezone.now())
    with counted(embedded) as session:
        run(session, 20)
        snap(target)
        before = ProbeState.objects.get(target=target, probe="statements")
        run(session, 30)
        paused = Paused(monkeypatch)
        still = paused.take(partial(rounds.take_due, target.pk, "slow", str(claim)))
        Lease.objects.filter(target=target).update(claim=uuid.uuid4())
        paused.go.set()
        still.join(30)

        places = Snapshot.objects.filter(target_id=target.pk, state="superseded")
        assert {one.reason for one in places} == {
            "Another worker took this target over while this one read it."
        }
        assert places.count() == 1  # it went no further
        after = ProbeState.objects.get(target=target, probe="statements")
        assert (after.sequence, after.state) == (before.sequence, "ok")
        snap(target)

    assert calls_of(target) == (30, True)


@pytest.mark.parametrize("gone", [False, True], ids=["marked", "gone"])
@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_a_target_that_is_removed_while_it_is_read_ends_its_read_quietly(
    embedded: Server,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    gone: bool,
) -> None:
    target = watch(embedded)  # was never read
    claim, raised = uuid.uuid4(), []
    Lease.objects.create(target=target, kind=kind, claim=claim, expires_at=timezone.now())
    paused = Paused(monkeypatch)

    def take() -> None:
        try:
            rounds.take_due(target.pk, kind, str(claim))
        except Exception as error:  # noqa: BLE001 - told below
            raised.append(error)

    still = paused.take(take)
    register.remove("admin", "test", target)
    if gone:
        remove.delete_target(target.pk)
    paused.go.set()
    still.join(30)

    assert raised == []
    kept = Snapshot.objects.filter(target_id=target.pk)
    assert {one.state for one in kept} <= {"superseded"}
    assert kept.count() <= 1  # it went no further
    remove.delete_target(target.pk)
    assert not Target.objects.filter(pk=target.pk).exists()
    assert not ProbeState.objects.filter(target=target).exists()
    assert len(caplog.records) <= 3, caplog.text


def test_a_target_that_is_gone_before_its_server_answers_ends_its_read_quietly(
    embedded: Server, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, claim = watch(embedded), uuid.uuid4()
    Lease.objects.create(target=target, kind="fast", claim=claim, expires_at=timezone.now())

    def ask_and_remove(session: psycopg.Connection[Any]) -> Identity:
        answer = read_identity(session)
        Target.objects.filter(pk=target.pk).update(deleting_at=timezone.now())
        remove.delete_target(target.pk)
        return answer

    monkeypatch.setattr(sessions, "read_identity", ask_and_remove)

    assert rounds.take_due(target.pk, "fast", str(claim)) == set()
    assert not Target.objects.filter(pk=target.pk).exists()


def test_a_late_worker_reports_no_failure_of_a_target_that_another_has_read(
    embedded: Server, watch: Watch
) -> None:
    target = watch(embedded)
    snap(target)
    place = Place(HISTORY["statements"], target.pk, 0)

    kept = store.record_failure(
        place,
        state="timeout",
        reason="The time for this round was used up.",
        taken_at=timezone.now(),
        interval_seconds=60,
        next_due=timezone.now(),
        after=0,
    )

    assert kept.state == "superseded"
    state = ProbeState.objects.get(target=target, probe="statements")
    assert (state.state, state.reason, state.failing_since) == ("ok", "", None)


def test_two_who_read_at_once_count_once(
    server: Server, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = watch(server)
    with counted(server) as session:
        run(session, 20)
        snap(target)
        run(session, 30)
        paused = Paused(monkeypatch)
        late = paused.take(lambda: take_now(target, ["statements"]))
        run(session, 50)
        snap(target)
        paused.go.set()
        late.join(30)
        run(session, 1)
        snap(target)

    assert calls_of(target) == (81, True)


def test_four_snapshotters_at_once_count_once(server: Server, watch: Watch) -> None:
    target = watch(server)
    stop = threading.Event()

    def snapshots() -> None:
        try:
            while not stop.is_set():
                states = {one.state for one in take_now(target, ["statements", "tables"])}
                assert states <= {"ok", "superseded"}
        finally:
            connection.close()

    with counted(server) as session:
        run(session, 1)
        take_now(target, ["databases"])
        snap(target, "statements", "tables")
        threads = [threading.Thread(target=snapshots) for _ in range(4)]
        for thread in threads:
            thread.start()
        run(session, 3000)
        stop.set()
        for thread in threads:
            thread.join(60)
        snap(target)

    assert calls_of(target) == (3000, True)


def told(server: Server, table: str, times: int) -> bool:
    """Whether the server has counted so many updates; it tells them late."""
    with server.connect(dbname="shop") as session:
        row = session.execute("SELECT pg_stat_get_tuples_updated(%s::regclass)", [table]).fetchone()
    return row == (times,)


@pytest.mark.parametrize("how", ["clean", "immediate", "crash"])
def test_each_counter_goes_on_or_begins_anew_as_the_server_has_it(
    own_server: Own, watch: Watch, eventually: Callable[..., None], how: str
) -> None:
    cluster, server = own_server
    target = watch(server)
    with server.connect(dbname="shop") as session:
        make_table(session)
        take_now(target, PROBES)
        run(session, 40)
    eventually(lambda: told(server, "counted", 40))
    snap(target, *PROBES)
    if how == "crash":
        servers.crash(server)
    else:
        servers.restart(cluster, immediate=how == "immediate")
    with server.connect(dbname="shop", options="-c enable_seqscan=off") as session:
        run(session, 60)
    kept = 40 if how == "clean" else 0
    eventually(lambda: told(server, "counted", kept + 60))
    snap(target, *PROBES)

    whole = how == "clean"
    assert calls_of(target) == (100, how != "crash")
    assert grown(target, "tables", "n_tup_upd", "counted") == (100, whole)
    assert grown(target, "indexes", "idx_scan", "counted_pkey") == (100, whole)


def test_a_reset_by_hand_and_a_clean_restart_are_no_crash(
    own_server: Own, watch: Watch, eventually: Callable[..., None]
) -> None:
    cluster, server = own_server
    target = watch(server)
    with server.connect(dbname="shop") as session:
        make_table(session)
        take_now(target, PROBES)
        run(session, 40)
    eventually(lambda: told(server, "counted", 40))
    snap(target, *PROBES)
    with server.connect() as session:
        session.execute("SELECT pg_stat_reset_shared('bgwriter')")
        session.execute("SELECT pg_stat_reset_shared('archiver')")
    servers.restart(cluster)
    with server.connect(dbname="shop") as session:
        run(session, 60)
    eventually(lambda: told(server, "counted", 100))
    snap(target, *PROBES)

    updates, complete = grown(target, "tables", "n_tup_upd", "counted")
    assert updates <= 100
    assert complete == (updates == 100)
    with server.connect(dbname="shop") as session:
        run(session, 5)
    eventually(lambda: told(server, "counted", 105))
    snap(target, *PROBES)
    assert grown(target, "tables", "n_tup_upd", "counted")[0] == updates + 5


def test_an_extension_that_is_updated_or_made_again_goes_on_counting(
    server: Server, watch: Watch
) -> None:
    target = watch(server)
    newest = server.major >= 17
    with counted(server) as session, server.connect() as entry:
        try:
            for each in (session, entry):
                each.execute("DROP EXTENSION pg_stat_statements")
            entry.execute(
                f"CREATE EXTENSION pg_stat_statements VERSION '{'1.10' if newest else '1.9'}'"
            )
            run(session, 10)
            snap(target)
            run(session, 25)
            snap(target)
            entry.execute("ALTER EXTENSION pg_stat_statements UPDATE")
            run(session, 5)
            snap(target)
            entry.execute("DROP EXTENSION pg_stat_statements")
            [missing] = take_now(target, ["statements"])
            run(session, 20)
            entry.execute("CREATE EXTENSION pg_stat_statements VERSION '1.9'")
            snap(target)
            run(session, 30)
            entry.execute("DROP EXTENSION pg_stat_statements")
            entry.execute("CREATE EXTENSION pg_stat_statements")
            snap(target)
            run(session, 1)
            snap(target)
            assert missing.state == "unsupported"
            assert calls_of(target) == (81, True)
            if newest:
                session.execute("SELECT 1")
                entry.execute("SELECT pg_stat_statements_reset()")
                run(session, 90)
                snap(target)
                assert calls_of(target) == (171, False)
        finally:
            for each in (session, entry):
                each.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
                each.execute("CREATE EXTENSION pg_stat_statements")
