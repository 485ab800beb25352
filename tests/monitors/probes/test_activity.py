"""Backends by pid and start, with blockers for those that wait on a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from monitors.rows.backend_groups import fold_workers
from monitors.rows.backends import backends_of
from tests import servers
from tests.servers import Blocked, Server, waits

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_a_waiting_backend_names_its_blocker_and_no_other_does(
    server: Server,
    watch: Callable[..., Target],
    blocked: Callable[[Server], Blocked],
) -> None:
    target = watch(server)
    pair = blocked(server)

    take_now(target, ["activity"])

    rows = {row["pid"]: row for row in read_latest("activity", target.pk)}
    waiter, root = rows[pair.waiter_pid], rows[pair.root_pid]
    assert (waiter["wait_event_type"], waiter["blocked_by"]) == ("Lock", [pair.root_pid])
    assert (root["state"], root["blocked_by"]) == ("idle in transaction", None)
    assert root["xact_start"] is not None
    assert {waiter["datname"], waiter["usename"]} == {"shop", "postgres"}


def test_a_backend_says_whether_its_role_is_a_superuser(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    with server.connect() as one, server.connect(user="owner", dbname="shop") as other:
        take_now(target, ["activity"])

        rows = {row["pid"]: row["rolsuper"] for row in read_latest("activity", target.pk)}
        found = rows[one.info.backend_pid], rows[other.info.backend_pid]

    assert found == (True, False)


def test_a_waiter_that_hides_its_statement_still_tells_since_when_it_waits(
    server: Server,
    watch: Callable[..., Target],
    blocked: Callable[..., Blocked],
) -> None:
    target = watch(server)
    told, hidden = blocked(server), blocked(server, options="-c track_activities=off")

    take_now(target, ["activity"])

    rows = {row["pid"]: row for row in read_latest("activity", target.pk)}
    waiter, root = rows[hidden.waiter_pid], rows[hidden.root_pid]
    assert (waiter["state"], waiter["query_start"]) == ("disabled", None)
    assert waiter["backend_start"] < waiter["waitstart"]
    assert root["waitstart"] is None
    assert rows[told.waiter_pid]["waitstart"] is None  # query_start is known


def test_a_backend_that_left_is_no_longer_there(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    with server.connect() as session:
        pid = session.info.backend_pid
        take_now(target, ["activity"])
        assert pid in {row["pid"] for row in read_latest("activity", target.pk)}

    take_now(target, ["activity"])

    assert pid not in {row["pid"] for row in read_latest("activity", target.pk)}


def test_a_parallel_leader_that_blocks_is_named_once(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None], worker_id: str
) -> None:
    table = f"in_parallel_{worker_id}"
    with server.connect(dbname="shop") as setup:
        setup.execute(f"CREATE TABLE {table} AS SELECT generate_series(1, 20000) AS id")
        setup.execute(f"ALTER TABLE {table} SET (parallel_workers = 2)")
        leader = server.connect(
            dbname="shop", options="-c parallel_setup_cost=0 -c parallel_tuple_cost=0"
        )
        waiter = server.connect(dbname="shop", autocommit=False)
        slow = f"SELECT count(pg_sleep(0.01)) FROM {table}"
        threads = [
            threading.Thread(target=run, args=(leader, slow)),
            threading.Thread(target=run, args=(waiter, f"LOCK TABLE {table}")),
        ]
        workers = "SELECT count(*) FROM pg_stat_activity WHERE leader_pid = %s AND pid <> %s"
        pid, waiting = leader.info.backend_pid, waiter.info.backend_pid
        try:
            threads[0].start()
            eventually(lambda: list(setup.execute(workers, [pid, pid])) == [(2,)])
            threads[1].start()
            eventually(lambda: waits(setup, waiting))
            said = "SELECT pg_blocking_pids(%s)"
            repeated = [([pid] * 3,)]  # what the server says once each worker has its lock
            eventually(lambda: list(setup.execute(said, [waiting])) == repeated)
            target = watch(server)
            take_now(target, ["activity"])
        finally:
            for one in (pid, waiting):
                setup.execute("SELECT pg_terminate_backend(%s)", [one])
            for thread in threads:
                thread.join()
            leader.close()
            waiter.close()
            setup.execute(f"DROP TABLE {table}")

    rows = {row["pid"]: row for row in read_latest("activity", target.pk)}
    assert rows[waiting]["blocked_by"] == [pid]
    alone = fold_workers(backends_of(rows.values(), datetime.now(UTC), {}))
    [of_leader] = [one for one in alone if one.pid == pid]
    assert {one.leader_pid for one in of_leader.workers} == {pid}
    assert len(of_leader.workers) == 2
    assert not {one.pid for one in of_leader.workers} & {one.pid for one in alone}


def test_a_backend_says_whether_its_connection_is_encrypted(watch: Callable[..., Target]) -> None:
    with servers.home() as folder:
        programs, settings = servers.fleet_programs(18), servers.certificate(folder)
        with servers.running(18, programs, folder, **settings) as encrypted:
            target = watch(encrypted)
            with (
                encrypted.connect(sslmode="require") as one,
                encrypted.connect(sslmode="disable") as other,
            ):
                take_now(target, ["activity"])
                pids = one.info.backend_pid, other.info.backend_pid

    rows = {row["pid"]: row for row in read_latest("activity", target.pk)}
    tls, plain = (rows[pid] for pid in pids)
    assert (tls["ssl"], tls["sslversion"]) == (True, "TLSv1.3")
    assert tls["sslcipher"].startswith("TLS_")
    assert (plain["ssl"], plain["sslversion"], plain["sslcipher"]) == (False, None, None)


def run(connection: psycopg.Connection, statement: str) -> None:
    """Run a statement until somebody ends it."""
    with suppress(psycopg.OperationalError):
        connection.execute(statement)
