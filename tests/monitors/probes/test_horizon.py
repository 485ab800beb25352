"""Every kind of holder, on every version, and who is none."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import ExecStatus

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

Live = Callable[..., psycopg.Connection[Any]]


def holders(target: Target) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the probe and return its rows by kind and holder."""
    [result] = take_now(target, ["horizon"])
    assert result.error == ""
    return {(row["kind"], row["holder"]): row for row in read_latest("horizon", target.pk)}


def burn(server: Server, count: int) -> None:
    """Use up transaction ids, one a statement."""
    with server.connect(dbname="shop") as session:
        for _ in range(count):
            session.execute("SELECT pg_current_xact_id()")


def next_xid(server: Server) -> int:
    with server.connect() as session:
        row = session.execute(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_snapshot_and_a_transaction_id_hold_each(
    server: Server, watch: Callable[..., Target], live: Live
) -> None:
    target = watch(server)
    before = next_xid(server)
    reader = live(server, user="owner", dbname="shop", autocommit=False, application_name="reader")
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT 1")
    writer = live(server, user="owner", dbname="shop", autocommit=False)
    writer.execute("SELECT pg_current_xact_id()")
    burn(server, 10)

    rows = holders(target)

    row = rows["session", str(reader.info.backend_pid)]
    assert row["horizon_xid"] == before
    assert row["xmin_age"] == 11  # the writer's, and ten
    assert (row["datname"], row["who"], row["application_name"], row["state"]) == (
        "shop", "owner", "reader", "idle in transaction",
    )  # fmt: skip
    assert row["since"] is not None
    assert row["backend_start"] is not None
    assert rows["session", str(writer.info.backend_pid)]["xmin_age"] == 11

    reader.rollback()
    assert ("session", str(reader.info.backend_pid)) not in holders(target)


def test_idle_sessions_and_lazy_vacuums_hold_nothing_and_analyze_does(
    server: Server,
    watch: Callable[..., Target],
    live: Live,
    background: Callable[..., Any],
    eventually: Callable[..., None],
    worker_id: str,
) -> None:
    target = watch(server)
    name = f"horizon_{worker_id}"
    setup = live(server, user="owner", dbname="shop")
    setup.execute(f"DROP TABLE IF EXISTS {name}")
    setup.execute(f"CREATE TABLE {name} AS SELECT g AS id FROM generate_series(1, 200000) AS g")
    setup.execute(f"DELETE FROM {name}")
    idle = live(server, user="owner", dbname="shop")
    slow = {"VACUUM": "vacuum", "ANALYZE": "analyze"}
    try:
        for command, view in slow.items():
            worker = live(server, user="owner", dbname="shop")
            worker.execute("SET vacuum_cost_delay = 100")
            worker.execute("SET vacuum_cost_limit = 1")
            pid = worker.info.backend_pid
            background(worker, f"{command} {name}")
            watched = (
                f"SELECT 1 FROM pg_stat_progress_{view} AS p JOIN pg_stat_activity AS a USING (pid)"
                " WHERE pid = %s AND a.backend_xmin IS NOT NULL"
            )
            if command == "VACUUM":
                watched = watched.replace(" AND a.backend_xmin IS NOT NULL", "")
            eventually(lambda sql=watched, pid=pid: setup.execute(sql, [pid]).fetchone())

            found = holders(target)

            assert (("session", str(pid)) in found) is (command == "ANALYZE"), command
            assert ("session", str(idle.info.backend_pid)) not in found
            setup.execute("SELECT pg_cancel_backend(%s)", [pid])
            eventually(lambda sql=watched, pid=pid: not setup.execute(sql, [pid]).fetchone())
    finally:
        setup.execute(f"DROP TABLE {name}")


def test_howdahs_own_session_is_marked_by_its_name_and_not_hidden(
    server: Server, watch: Callable[..., Target], live: Live
) -> None:
    target = watch(server)
    ours = live(
        server, user="owner", dbname="shop", autocommit=False, application_name="howdah:operator"
    )
    ours.execute("SELECT pg_current_xact_id()")

    row = holders(target)["session", str(ours.info.backend_pid)]

    assert row["application_name"].startswith("howdah")


def test_a_prepared_transaction_holds_without_a_backend(
    server: Server, watch: Callable[..., Target], worker_id: str
) -> None:
    target = watch(server)
    gid = f"it's {worker_id}"
    with server.connect(user="owner", dbname="shop", autocommit=False) as session:
        session.execute("SELECT pg_current_xact_id()")
        session.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
        session.rollback()
    try:
        burn(server, 5)

        row = holders(target)["prepared xact", gid]

        assert row["xmin_age"] == 6
        assert (row["datname"], row["who"], row["backend_start"]) == ("shop", "owner", None)
        assert row["since"] is not None
    finally:
        with server.connect(dbname="shop") as session:
            session.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))


@contextmanager
def standby(server: Server, slot: str = "") -> Iterator[Callable[[int, int], None]]:
    """Stream as a standby does; the given function sends its feedback (xmin, catalog_xmin)."""
    with server.connect(
        options="-c wal_sender_timeout=0", application_name="replica", replication="true"
    ) as session:
        pgconn = session.pgconn
        where = pgconn.exec_(b"IDENTIFY_SYSTEM").get_value(0, 2)
        assert where is not None
        named = f'SLOT "{slot}" '.encode() if slot else b""
        result = pgconn.exec_(b"START_REPLICATION " + named + b"PHYSICAL " + where)
        assert result.status == ExecStatus.COPY_BOTH

        def feedback(xmin: int, catalog_xmin: int) -> None:
            words = (xmin % 2**32, xmin >> 32, catalog_xmin % 2**32, catalog_xmin >> 32)
            pgconn.put_copy_data(b"h" + struct.pack(">qIIII", 0, *words))
            pgconn.flush()

        yield feedback
        with suppress(psycopg.Error):
            pgconn.finish()


def test_the_feedback_of_a_standby_holds(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    target = watch(server)
    with standby(server) as feedback:
        xid = next_xid(server)
        feedback(xid, 0)
        burn(server, 7)
        eventually(lambda: any(kind == "standby feedback" for kind, _ in holders(target)))

        [row] = [row for key, row in holders(target).items() if key[0] == "standby feedback"]

    assert (row["horizon_xid"], row["xmin_age"]) == (xid, 7)
    assert (row["application_name"], row["datname"]) == ("replica", None)


def test_slots_hold_rows_and_catalogs_apart(
    server: Server,
    watch: Callable[..., Target],
    eventually: Callable[..., None],
    worker_id: str,
) -> None:
    target = watch(server)
    slot = f"slot_{worker_id}"
    with server.connect() as setup:
        setup.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
        try:
            xid = next_xid(server)
            burn(server, 3)
            with standby(server, slot) as feedback:
                feedback(xid + 1, xid)
                eventually(lambda: len([key for key in holders(target) if key[1] == slot]) == 2)
                rows = holders(target)
                assert rows["slot xmin", slot]["active"] is True
            assert rows["slot xmin", slot]["horizon_xid"] == xid + 1
            assert rows["slot catalog_xmin", slot]["horizon_xid"] == xid

            eventually(lambda: holders(target)["slot xmin", slot]["active"] is False)
            row = holders(target)["slot xmin", slot]
            assert (row["since"] is not None) is (server.major >= 17)
        finally:
            setup.execute("SELECT pg_drop_replication_slot(%s)", [slot])
    assert not [key for key in holders(target) if key[1] == slot]


def test_only_the_twenty_oldest_of_a_database_are_read(
    server: Server, watch: Callable[..., Target], live: Live
) -> None:
    target = watch(server)
    sessions = [live(server, dbname="shop", autocommit=False) for _ in range(22)]
    for session in sessions:
        session.execute("SELECT pg_current_xact_id()")

    mine = {str(session.info.backend_pid) for session in sessions}
    found = {pid for kind, pid in holders(target) if kind == "session"} & mine

    assert str(sessions[0].info.backend_pid) in found
    assert str(sessions[-1].info.backend_pid) not in found
    assert len(found) <= 20


@pytest.mark.pg(">=19")
def test_a_repack_with_its_worker_and_slot_is_one_holder(
    server: Server,
    watch: Callable[..., Target],
    live: Live,
    background: Callable[..., Any],
    eventually: Callable[..., None],
    worker_id: str,
) -> None:
    target, name = watch(server), f"repacked_{worker_id}"
    setup = live(server, user="owner", dbname="shop")
    setup.execute(f"DROP TABLE IF EXISTS {name}")
    setup.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    reader = live(server, user="owner", dbname="shop", autocommit=False)
    reader.execute(f"SELECT FROM {name}")  # its swap waits for this
    session = live(server, user="owner", dbname="shop", application_name="repacking")
    background(session, f"REPACK (CONCURRENTLY) {name}")
    watching = live(server)
    eventually(
        lambda: watching.execute(
            "SELECT 1 FROM pg_stat_progress_repack WHERE phase = 'catch-up'"
        ).fetchone()
    )
    burn(server, 5)

    found = holders(target)
    [oldest] = watching.execute(
        "SELECT max(age(catalog_xmin)) FROM pg_replication_slots WHERE plugin = 'pgrepack'"
    ).fetchone() or [None]
    reader.rollback()

    assert set(found) == {("session", str(session.info.backend_pid))}
    [row] = found.values()
    assert (row["application_name"], row["xmin_age"]) == ("repacking", oldest)


def test_a_parallel_query_and_its_workers_are_one_holder(
    server: Server,
    watch: Callable[..., Target],
    live: Live,
    background: Callable[..., Any],
    eventually: Callable[..., None],
) -> None:
    target = watch(server)
    session = live(server, user="owner", dbname="shop")
    for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0"):
        session.execute(f"SET {setting}")
    session.execute("SET min_parallel_table_scan_size = 0")
    session.execute("DROP TABLE IF EXISTS parallel_held")
    session.execute(
        "CREATE TABLE parallel_held AS SELECT g AS id FROM generate_series(1, 20000) AS g"
    )
    session.execute("ANALYZE parallel_held")
    watching = live(server)
    background(
        session,
        "SELECT count(*) FROM parallel_held AS a, parallel_held AS b WHERE sqrt(a.id + b.id) < 0",
    )
    eventually(
        lambda: watching.execute(
            "SELECT 1 FROM pg_stat_activity WHERE leader_pid = %s", [session.info.backend_pid]
        ).fetchone(),
        seconds=30,
    )
    burn(server, 5)

    found = holders(target)
    workers = watching.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE leader_pid = %s AND backend_xmin IS NOT NULL",
        [session.info.backend_pid],
    ).fetchone()
    watching.execute("SELECT pg_cancel_backend(%s)", [session.info.backend_pid])

    assert workers is not None
    assert workers[0] > 0
    assert set(found) == {("session", str(session.info.backend_pid))}
