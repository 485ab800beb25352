"""Snapshots of real servers through resets, restarts, crashes and dropped tables."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import redis
from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster
from monitors import tasks
from monitors.collect import leases, live, rounds, sessions
from monitors.collect.rounds import take_due, take_now
from monitors.collect.sessions import SESSIONS, Session
from monitors.history.counters import read_totals
from monitors.history.latest import read_latest
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Lease, Mark, ProbeState, Snapshot, Target, WorkerBeat
from monitors.models.history import Change
from monitors.targets import secrets
from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.django_db

Watch = Callable[..., Target]


def window() -> Window:
    now = timezone.now()
    return Window(now - timedelta(hours=1), now + timedelta(seconds=1), is_live=True)


def total(target: Target, relname: str, counter: str) -> tuple[int, bool]:
    """Return what the pages would say: a table's sum over the window, and whether it is complete."""
    relids = set(
        HISTORY["tables"]
        .latest._default_manager.filter(target_id=target.pk, relname=relname)
        .values_list("relid", flat=True)
    )
    rows = [r for r in read_totals("tables", target.pk, window()) if r["relid"] in relids]
    return sum(row[counter] for row in rows), all(row["complete"] for row in rows)


def flush(connection: psycopg.Connection[Any]) -> None:
    """Make this session's counters visible to others now."""
    if connection.info.server_version >= 150000:
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT 1")
    else:
        # 14 sends at most twice a second, and only when another statement ends.
        time.sleep(0.6)
        connection.execute("SELECT 1")
        time.sleep(0.6)


def insert(connection: psycopg.Connection[Any], rows: int, table: str = "counted") -> None:
    connection.execute(f"INSERT INTO {table} SELECT g FROM generate_series(1, {rows}) AS g")
    flush(connection)


@pytest.fixture
def shop(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with server.connect(dbname="shop") as connection:
        connection.execute("DROP TABLE IF EXISTS counted, counted_too")
        connection.execute("CREATE TABLE counted (id bigint)")
        connection.execute("CREATE TABLE counted_too (id bigint)")
        yield connection


@pytest.mark.fleet
def test_totals_are_known_to_the_row_through_a_reset(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    take_now(target)
    insert(shop, 100)
    take_now(target)
    insert(shop, 20)
    take_now(target)

    shop.execute("SELECT pg_stat_reset()")
    insert(shop, 3)
    take_now(target)

    assert total(target, "counted", "n_tup_ins") == (123, False)
    mark = Mark.objects.get(target=target, kind=Mark.Kind.RESET)
    assert mark.text.startswith("Statistics of this database were reset at 20")


@pytest.mark.fleet
def test_a_reset_of_one_table_makes_no_other_tables_difference_false(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    insert(shop, 100)
    insert(shop, 100, "counted_too")
    take_now(target)

    shop.execute("SELECT pg_stat_reset_single_table_counters('counted'::regclass)")
    insert(shop, 7)
    insert(shop, 7, "counted_too")
    take_now(target)

    assert total(target, "counted", "n_tup_ins")[0] == 7
    assert total(target, "counted_too", "n_tup_ins")[0] in {0, 7}  # never 107


@pytest.mark.fleet
def test_a_table_that_is_dropped_and_made_again_is_another_one(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    take_now(target)
    insert(shop, 50)
    take_now(target)

    shop.execute("DROP TABLE counted")
    shop.execute("CREATE TABLE counted (id bigint)")
    insert(shop, 5)
    take_now(target)

    assert total(target, "counted", "n_tup_ins") == (55, True)
    latest = HISTORY["tables"].latest._default_manager.filter(relname="counted")
    assert sorted(gone_at is None for gone_at in latest.values_list("gone_at", flat=True)) == [
        False,
        True,
    ]
    gone = HISTORY["tables"].samples._default_manager.filter(change=Change.GONE)
    assert gone.count() == 1


@pytest.mark.fleet
def test_the_size_of_a_locked_table_is_left_and_the_rest_is_read(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    insert(shop, 1000)
    with server.connect(dbname="shop", autocommit=False) as holder:
        holder.execute("LOCK TABLE counted IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        results = {r.probe: r for r in take_now(target)}

    assert results["tables"].state == "ok"
    assert time.monotonic() - began < 5
    rows = {row["relname"]: row for row in read_latest("tables", target.pk)}
    assert rows["counted"]["size_bytes"] is None
    assert rows["counted"]["n_live_tup"] == 1000
    assert rows["counted_too"]["size_bytes"] == 0


@pytest.fixture(params=[14, 18], ids=str)
def own_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Server]]:
    """A server that the test may stop, start and crash."""
    try:
        programs = servers.fleet_programs(request.param)
    except servers.Missing as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))
    with servers.home() as folder:
        settings = {**servers.SETTINGS, "log_statement": "none", "restart_after_crash": "on"}
        cluster = Cluster("own", folder / "own", programs, "secret-of-own", settings)
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        cluster.wait()
        servers.create_roles(cluster, request.param)
        yield cluster, Server(request.param, cluster.port, cluster.password, str(cluster.log))
        cluster.stop()


@pytest.mark.fleet
def test_a_clean_restart_is_a_mark_and_a_crash_counts_from_zero(
    own_server: tuple[Cluster, Server], watch: Watch, eventually: Callable[..., None]
) -> None:
    cluster, server = own_server
    target = watch(server)
    with server.connect(dbname="shop") as shop:
        shop.execute("CREATE TABLE counted (id bigint)")
        take_now(target)
        insert(shop, 100)
    take_now(target)

    cluster.stop()
    cluster.start(server.port)
    cluster.wait()
    with server.connect(dbname="shop") as shop:
        insert(shop, 10)
        take_now(target)

        assert total(target, "counted", "n_tup_ins") == (110, True)
        assert [mark["kind"] for mark in read_marks(target.pk, window())] == ["restart"]
        os.kill(shop.info.backend_pid, signal.SIGKILL)

    def is_back() -> bool:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    time.sleep(0.2)
    eventually(is_back, seconds=30)
    with server.connect(dbname="shop") as shop:
        insert(shop, 4)
        take_now(target)

    assert total(target, "counted", "n_tup_ins") == (114, False)
    kinds = [mark["kind"] for mark in read_marks(target.pk, window())]
    assert kinds == ["restart", "crash"]


def test_another_server_at_the_address_freezes_the_target(embedded: Server, watch: Watch) -> None:
    target = watch(embedded)
    take_now(target)
    Target.objects.filter(pk=target.pk).update(system_identifier="7000000000000000000")
    target.refresh_from_db()

    results = take_now(target)

    target.refresh_from_db()
    assert "Another server answers" in target.frozen_reason
    assert {result.state for result in results} == {"unreachable"}


def test_running_texts_are_stored_without_literals_and_cached_whole(
    embedded: Server, watch: Watch
) -> None:
    target = watch(embedded)
    with embedded.connect(application_name="teller", autocommit=False) as session:
        session.execute("SELECT 'the secret', 4711 AS number")
        take_now(target, ["activity"])
        pid = session.info.backend_pid

    [stored] = [row for row in read_latest("activity", target.pk) if row["pid"] == pid]
    assert stored["query"] == "SELECT ?, ? AS number"
    cached = cache.get(f"activity:{target.pk}")
    assert cached[live.text_key((pid, stored["backend_start"]))].startswith("SELECT 'the secret'")


def test_a_password_that_no_key_opens_is_said_and_nothing_breaks(
    embedded: Server, watch: Watch
) -> None:
    target = watch(embedded)
    target.targetsecret_set.update(key_id="another-key")

    results = take_now(target)

    assert {result.state for result in results} == {"unreachable"}
    assert "key" in results[0].error


def test_a_wrong_password_is_one_sentence_and_a_row_for_each_attempt(
    embedded: Server, watch: Watch
) -> None:
    target = watch(embedded)
    take_now(target)
    secret = target.targetsecret_set.get()
    sealed, secret.key_id = secrets.seal_password("not-it", target.host, target.port, target.user)
    secret.sealed = sealed
    secret.save()

    [result] = take_now(target, ["sessions"])

    assert result.error == "Password authentication failed: check user and password."
    rows = Snapshot.objects.filter(target_id=target.pk, probe="sessions").order_by("taken_at")
    assert [row.state for row in rows] == ["ok", "unreachable"]
    state = ProbeState.objects.get(target=target, probe="sessions")
    assert state.failing_since is not None
    assert state.taken_at is not None  # the last good values stay


@pytest.mark.fleet
def test_a_missing_right_costs_one_probe(fleet: Callable[[int], Server], watch: Watch) -> None:
    try:
        server = fleet(17)
    except servers.Missing as error:
        pytest.skip(str(error))
    with server.connect(dbname="shop") as setup:
        setup.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_stat_get_numscans(oid) FROM public")
    try:
        results = {r.probe: r for r in take_now(watch(server))}
    finally:
        with server.connect(dbname="shop") as setup:
            setup.execute(
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_get_numscans(oid) TO public"
            )

    assert results["tables"].state == "denied"
    assert results["tables"].error == (
        "Permission denied for function pg_stat_get_numscans. In the database shop:"
        " GRANT EXECUTE ON FUNCTION pg_stat_get_numscans(oid) TO collector;"
    )
    assert {r.state for name, r in results.items() if name not in {"tables", "indexes"}} == {"ok"}


def test_patterns_take_databases_in_and_out(embedded: Server, watch: Watch) -> None:
    target = watch(embedded, include=["sh*", "post*"], exclude=["*op"])

    take_now(target)

    included = Database.objects.filter(target=target, included=True)
    assert list(included.values_list("datname", flat=True)) == ["postgres"]
    assert Database.objects.filter(target=target, datname="shop").exists()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A peer that accepts and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                accepted.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.close()
    for peer in accepted:
        peer.close()


def test_a_silent_peer_costs_no_more_than_the_connect_limit(
    embedded: Server, watch: Watch, silent_port: int
) -> None:
    target = watch(embedded)
    target.port = silent_port
    target.save()
    target.targetsecret_set.all().delete()

    began = time.monotonic()
    [result] = take_now(target, ["sessions"])

    assert result.state == "unreachable"
    assert time.monotonic() - began < 5


def claim_of(target: Target, kind: str) -> str:
    """Claim a lease as the tick does."""
    WorkerBeat.objects.create(name="w", role="snapshots", slot=0, beat_at=timezone.now())
    leases.make_leases()
    [lease] = [lease for lease in leases.claim_due(timezone.now()) if lease.kind == kind]
    return str(lease.claim)


def test_a_lease_is_read_over_one_kept_connection(embedded: Server, watch: Watch) -> None:
    target = watch(embedded, name="kept")
    claim = claim_of(target, Lease.Kind.FAST)
    try:
        take_due(target.pk, Lease.Kind.FAST, claim)
        with SESSIONS.use(target.pk, Lease.Kind.FAST) as session:
            assert session.kept is not None
            first = session.kept.connection
        Lease.objects.filter(target=target).update(claim=claim, due_at=timezone.now())
        ProbeState.objects.filter(target=target).update(due_at=timezone.now())
        take_due(target.pk, Lease.Kind.FAST, claim)
        with SESSIONS.use(target.pk, Lease.Kind.FAST) as session:
            assert session.kept is not None
            assert session.kept.connection is first
    finally:
        SESSIONS.forget(set())

    counts = Snapshot.objects.filter(target_id=target.pk, state="ok")
    assert counts.filter(probe="activity").count() == 2
    lease = Lease.objects.get(target=target, kind=Lease.Kind.FAST)
    assert lease.claim is None
    assert lease.due_at > timezone.now()


def test_a_claim_that_was_given_to_another_reads_nothing(embedded: Server, watch: Watch) -> None:
    target = watch(embedded)
    claim_of(target, Lease.Kind.FAST)

    take_due(target.pk, Lease.Kind.FAST, "00000000-0000-0000-0000-000000000000")

    assert not Snapshot.objects.exists()


def test_a_session_has_one_connection_at_a_time(embedded: Server, watch: Watch) -> None:
    target = watch(embedded, include=[])
    session = Session(Lease.Kind.SLOW)
    session.prepare(target)
    try:
        opened = [
            session.open(target, name, 5).connection for name in ("postgres", "shop", "postgres")
        ]

        assert [connection.closed for connection in opened] == [True, True, False]
    finally:
        session.close()


def test_the_connections_of_a_disabled_target_are_closed(embedded: Server, watch: Watch) -> None:
    target = watch(embedded, name="leaving")
    claim = claim_of(target, Lease.Kind.FAST)
    take_due(target.pk, Lease.Kind.FAST, claim)
    with SESSIONS.use(target.pk, Lease.Kind.FAST) as session:
        assert session.kept is not None
        connection = session.kept.connection

    sessions.close_unwatched()
    assert not connection.closed

    Target.objects.filter(pk=target.pk).update(enabled=False)
    sessions.close_unwatched()
    assert connection.closed


def test_while_somebody_looks_the_activity_is_read_and_shared(
    embedded: Server, watch: Watch
) -> None:
    target = watch(embedded, name="looked-at")
    leases.make_leases()
    assert leases.looked_at() == []
    live.watch(target.pk)
    [(target_id, slot)] = leases.looked_at()
    try:
        with embedded.connect(application_name="teller", autocommit=False) as session:
            session.execute("SELECT 'the secret' AS said")
            rounds.read_live(target_id)
            found = live.activity(target.pk)
            pid = session.info.backend_pid
    finally:
        SESSIONS.forget(set())

    assert slot == 0
    assert found is not None
    [row] = [row for row in found.rows if row["pid"] == pid]
    assert row["query"] == "SELECT ? AS said"
    assert row["xact_start"].tzinfo is not None
    assert found.texts[live.text_key((pid, row["backend_start"]))] == "SELECT 'the secret' AS said"
    assert not Snapshot.objects.filter(target_id=target.pk).exists()


def test_three_viewers_cost_a_target_one_read_a_tick_and_nobody_none(
    embedded: Server, watch: Watch, broker_url: str
) -> None:
    target = watch(embedded, name="shared")
    leases.make_leases()
    queue = f"{os.environ['HOWDAH_PREFIX']}:snapshots.0"

    def waiting() -> int:
        with redis.Redis.from_url(broker_url) as client:
            sent = [json.loads(one)["headers"] for one in client.lrange(queue, 0, -1)]
            client.delete(queue)
        args = f"({target.pk},)"
        return sum(
            1 for one in sent if one["task"] == "monitors.tasks.live" and one["argsrepr"] == args
        )

    waiting()  # what other tests left
    tasks.tick()
    assert waiting() == 0

    for _viewer in range(3):
        live.watch(target.pk)
    tasks.tick()
    assert waiting() == 1

    cache.delete(f"live:watch:{target.pk}")  # as it goes out by itself
    tasks.tick()
    assert waiting() == 0


def test_a_cached_value_is_json_and_nothing_that_runs() -> None:
    cache.set("told", {"at": timezone.now(), "numbers": [1, 2.5, None]}, 5)

    raw = redis.from_url(settings.REDIS_URL).get(cache.make_key("told"))

    assert isinstance(raw, bytes)
    assert raw.startswith(b'{"at":"')


@pytest.mark.parametrize("entry", ["postgres", "plain_bytes"])
def test_statements_in_foreign_encodings_hide_no_row(
    embedded: Server, watch: Watch, plain_bytes: str, entry: str
) -> None:
    target = watch(embedded, dbname=entry, include=[plain_bytes])
    with embedded.connect(dbname=plain_bytes, client_encoding="SQL_ASCII") as session:
        session.pgconn.exec_(b'CREATE TABLE "caf\xe9" AS SELECT 1 AS id')
        session.pgconn.exec_(b'SELECT id AS "caf\xe9" FROM "caf\xe9"')
        results = take_now(target)
        pid = session.info.backend_pid

    failed = {r.probe: r.error for r in results if r.state != "ok"}
    assert set(failed) <= {"statements"} if entry == "plain_bytes" else not failed, failed
    [row] = [row for row in read_latest("activity", target.pk) if row["pid"] == pid]
    assert row["query"] == 'SELECT id AS "caf\ufffd" FROM "caf\ufffd"'
    assert "caf\ufffd" in {row["relname"] for row in read_latest("tables", target.pk)}


def test_what_is_hidden_from_the_login_is_denied_and_not_taken_for_an_empty_server(
    server: Server, watch: Watch
) -> None:
    with server.connect() as setup:
        try:
            before = {one.probe: one for one in take_now(watch(server, user="owner"))}
            setup.execute("GRANT pg_monitor TO owner")
            after = take_now(Target.objects.get(), [name for name in before if name != "progress"])
        finally:
            setup.execute("REVOKE pg_monitor FROM owner")

    denied = {name for name, one in before.items() if one.state == "denied"}
    sessions = {"activity", "sessions", "progress", "connections", "locks"}
    assert denied == {*sessions, "statements", "horizon"}
    assert {before[name].error for name in denied} == {
        "What other roles do is hidden from this login: GRANT pg_monitor TO owner;"
    }
    assert {one.state for one in after} == {"ok"}
    due = ProbeState.objects.get(probe="activity").due_at
    assert due < timezone.now() + timedelta(minutes=1)
