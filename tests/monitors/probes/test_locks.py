"""Who waits for whom and for what, on every version; what is left out changes no root and no count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Snapshot, Target
from monitors.rows.lock_edges import waits_of
from monitors.rules.lock_graph import Node, find_roots
from tests.servers import Server, waits

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

Session = psycopg.Connection[Any]
Open = Callable[..., Session]


@pytest.fixture
def session(server: Server, live: Callable[..., Session]) -> Open:
    """Open a session of the database `shop` in which a transaction is open: session(application_name)."""

    def start(name: str, **options: Any) -> Session:
        options = {"dbname": "shop", "autocommit": False, "application_name": name, **options}
        return live(server, **options)

    return start


@pytest.fixture
def waiting(
    server: Server,
    session: Open,
    background: Callable[..., Any],
    eventually: Callable[..., None],
) -> Open:
    """Let a session wait for a lock: waiting(application_name, statement)."""

    def start(name: str, statement: str, one: Session | None = None) -> Session:
        one = one or session(name)
        pid = one.info.backend_pid
        background(one, statement)
        with server.connect() as eye:
            eventually(lambda: waits(eye, pid))
        return one

    return start


@pytest.fixture
def tables(server: Server, worker_id: str) -> tuple[str, str]:
    """Two tables of the database `shop`, with a row each; emptied of what other tests left."""
    names = (f"stock_{worker_id}", f"orders_{worker_id}")
    with server.connect(dbname="shop") as setup:
        for name in names:
            setup.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v int)")
            setup.execute(f"INSERT INTO {name} VALUES (1, 0)")
    return names


def edges_of(target: Target) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the probe; return its rows by the names of waiter and blocker."""
    [result] = take_now(target, ["locks"])
    assert result.error == ""
    return {
        (row["application_name"], row["blocker_application_name"] or row["gid"]): row
        for row in read_latest("locks", target.pk)
    }


def all_edges(server: Server) -> dict[Node, dict[Node, bool | None]]:
    """Return whom every waiter waits for, as pg_blocking_pids says."""
    with server.connect() as eye:
        found = eye.execute(
            "SELECT pid, pg_blocking_pids(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchall()
    return {pid: dict.fromkeys(blockers) for pid, blockers in found}


def test_a_queue_for_a_row_names_who_holds_it_and_who_is_next(
    server: Server,
    watch: Callable[..., Target],
    session: Open,
    waiting: Open,
    tables: tuple[str, str],
) -> None:
    target, (table, _) = watch(server, dbname="shop"), tables
    holder = session("holder")
    holder.execute(f"UPDATE {table} SET v = 1")
    queue = [waiting(f"w{number}", f"UPDATE {table} SET v = v + 1") for number in range(1, 9)]

    edges = edges_of(target)

    first, second = edges["w1", "holder"], edges["w2", "w1"]
    assert (first["hard"], first["locktype"], first["mode"], first["blocker_mode"]) == (
        True, "transactionid", "ShareLock", "ExclusiveLock",
    )  # fmt: skip
    assert (second["hard"], second["locktype"], second["mode"], second["blocker_mode"]) == (
        True, "tuple", "ExclusiveLock", "ExclusiveLock",
    )  # fmt: skip
    for row in (first, second):
        assert (row["schemaname"], row["relname"], row["page"], row["tuple"]) == (
            "public", table, 0, 1,
        )  # fmt: skip
        assert row["backend_start"] < row["waitstart"]
    assert (first["blocker_state"], first["blocker_backend_type"], first["blocker_datname"]) == (
        "idle in transaction", "client backend", "shop",
    )  # fmt: skip
    assert first["blocker_query"] == f"UPDATE {table} SET v = ?"
    assert second["blocker_query"] is None  # w1 waits itself: the activity has what it runs
    queued = {pair for pair, row in edges.items() if row["hard"] is False}
    assert queued == {(f"w{number + 1}", f"w{number}") for number in range(2, 8)}
    held = {pair for pair, row in edges.items() if row["hard"]}
    assert held == {("w1", "holder"), *((f"w{number}", "w1") for number in range(2, 9))}

    every = all_edges(server)
    assert sum(map(len, every.values())) > len(edges)
    assert find_roots(every) == find_roots(waits_of(edges.values()))
    assert [len(root.victims) for root in find_roots(every)] == [len(queue)]


def test_a_queue_for_a_table_tells_who_holds_it_from_who_waits_ahead(
    server: Server,
    watch: Callable[..., Target],
    session: Open,
    waiting: Open,
    tables: tuple[str, str],
) -> None:
    target, (table, _) = watch(server, dbname="shop"), tables
    for name in ("reader", "other"):
        session(name).execute(f"SELECT FROM {table}")
    waiting("alter", f"ALTER TABLE {table} ADD COLUMN w int")
    for name in ("late", "later"):
        waiting(name, f"SELECT FROM {table}")
    waiting("drop", f"DROP TABLE {table}")

    edges = edges_of(target)

    told = {
        pair: (row["hard"], row["mode"], row["blocker_mode"], row["relname"])
        for pair, row in edges.items()
    }
    share, whole = "AccessShareLock", "AccessExclusiveLock"
    assert told == {
        ("alter", "reader"): (True, whole, share, table),
        ("alter", "other"): (True, whole, share, table),
        ("late", "alter"): (False, share, whole, table),
        ("later", "alter"): (False, share, whole, table),
        ("drop", "reader"): (True, whole, share, table),
        ("drop", "other"): (True, whole, share, table),
        ("drop", "late"): (False, whole, share, table),
        ("drop", "later"): (False, whole, share, table),
        ("drop", "alter"): (False, whole, whole, table),
    }
    assert find_roots(all_edges(server)) == find_roots(waits_of(edges.values()))


def test_an_idle_holder_of_an_advisory_lock_and_a_prepared_transaction_are_named(
    server: Server,
    watch: Callable[..., Target],
    session: Open,
    waiting: Open,
    tables: tuple[str, str],
    worker_id: str,
) -> None:
    target, (stock, orders) = watch(server), tables
    session("idle", autocommit=True).execute("SELECT pg_advisory_lock(-5), pg_advisory_lock(7, -1)")
    waiting("one", "SELECT pg_advisory_lock(-5)")
    waiting("two", "SELECT pg_advisory_lock(7, -1)")
    gids = [f"it's {worker_id}", f"other {worker_id}"]
    for gid, table in zip(gids, (stock, orders), strict=True):
        one = session("gone")
        one.execute(f"UPDATE {table} SET v = 1")
        one.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
        one.close()
    waiting("three", f"UPDATE {stock} SET v = 2")
    waiting("four", f"LOCK TABLE {orders}")
    try:
        edges = edges_of(target)
    finally:
        with server.connect(dbname="shop") as superuser:
            for gid in gids:
                superuser.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))

    idle = edges["one", "idle"]
    assert (idle["hard"], idle["blocker_state"], idle["locktype"]) == (True, "idle", "advisory")
    assert (idle["classid"], idle["objid"], idle["objsubid"]) == (2**32 - 1, 2**32 - 5, 1)
    idle = edges["two", "idle"]
    assert (idle["classid"], idle["objid"], idle["objsubid"]) == (7, 2**32 - 1, 2)
    by_gid = {row["gid"]: row for row in edges.values() if row["gid"]}
    assert set(by_gid) == set(gids)
    for gid, waiter in zip(gids, ("three", "four"), strict=True):
        row = by_gid[gid]
        assert (row["application_name"], row["blocker_pid"], row["hard"]) == (waiter, 0, True)
        assert (row["blocker_usename"], row["blocker_datname"]) == ("postgres", "shop")
        assert row["blocker_xact_start"] is not None
        assert row["blocker_backend_start"] is None
    assert [(root.node, len(root.victims)) for root in find_roots(waits_of(edges.values()))] == [
        (idle["blocker_pid"], 2), *((gid, 1) for gid in sorted(gids)),
    ]  # fmt: skip


def test_a_circle_is_read_while_the_server_has_not_broken_it(
    server: Server,
    watch: Callable[..., Target],
    session: Open,
    waiting: Open,
    tables: tuple[str, str],
) -> None:
    target, pair = watch(server), [session(name) for name in ("left", "right")]
    for one, table in zip(pair, tables, strict=True):
        one.execute("SET deadlock_timeout = '1h'")
        one.execute(f"LOCK TABLE {table}")
    for one, table in zip(pair, reversed(tables), strict=True):
        waiting("", f"LOCK TABLE {table}", one)

    edges = edges_of(target)

    assert set(edges) == {("left", "right"), ("right", "left")}
    assert {row["hard"] for row in edges.values()} == {True}
    [root] = find_roots(waits_of(edges.values()))
    assert root.circle == {one.info.backend_pid for one in pair}


def test_nothing_is_stored_where_nobody_waits(
    server: Server, watch: Callable[..., Target], session: Open, tables: tuple[str, str]
) -> None:
    target = watch(server)
    session("holder").execute(f"LOCK TABLE {tables[0]}")

    assert edges_of(target) == {}
    assert Snapshot.objects.get(probe="locks").state == Snapshot.State.OK
