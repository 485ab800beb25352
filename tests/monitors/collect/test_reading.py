"""What fails costs itself alone: one connection, one database, one right, one file at a time."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection as history
from psycopg import sql

from monitors.collect import sessions
from monitors.collect.passes import SnapshotResult
from monitors.collect.rounds import take_now
from monitors.collect.sessions import SESSIONS
from monitors.models import Lease, Snapshot, Target
from monitors.pg import doors
from monitors.pg.identity import PARTS, read_identity
from tests.leases import take_lease
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

Watch = Callable[..., Target]


@pytest.fixture
def name(server: Server, worker_id: str) -> Iterator[str]:
    """A name for a role and databases of this test alone; the first in the alphabet."""
    prefix = f"a_{worker_id}_{secrets.token_hex(3)}"
    yield prefix
    with server.connect() as session:
        found = session.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)",
            [prefix],
        ).fetchall()
        for (datname,) in found:
            session.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(datname))
            )
        session.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(prefix)))


@pytest.fixture
def run(server: Server) -> Iterator[Callable[..., None]]:
    """Run a statement as the superuser: run("DROP DATABASE {}", name, dbname=…)."""

    def execute(text: str, *names: str, dbname: str = "postgres") -> None:
        with server.connect(dbname=dbname) as session:
            session.execute(sql.SQL(text).format(*map(sql.Identifier, names)))

    yield execute
    SESSIONS.forget(set())


def failures(results: list[SnapshotResult]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return {(probe, database): (state, reason)} of what was not read well."""
    return {(r.probe, r.database): (r.state, r.error) for r in results if r.state != "ok"}


def attempts(target: Target) -> dict[str, set[str]]:
    """Return the states of all attempts by probe."""
    found: dict[str, set[str]] = {}
    for probe, state in Snapshot.objects.filter(target_id=target.pk).values_list("probe", "state"):
        found.setdefault(probe, set()).add(state)
    return found


@pytest.mark.parametrize("limited", ["ROLE", "DATABASE"])
def test_one_connection_is_enough_to_read_everything(
    server: Server, watch: Watch, name: str, run: Callable[..., None], limited: str
) -> None:
    run("CREATE ROLE {} LOGIN IN ROLE pg_monitor", name)
    with server.connect() as session:
        session.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), server.password)
        )
    run("CREATE DATABASE {}", f"{name}_entry")
    run("CREATE DATABASE {}", f"{name}_other")
    entry = f"{name}_entry" if limited == "DATABASE" else "postgres"
    run(f"ALTER {limited} {{}} CONNECTION LIMIT 1", entry if limited == "DATABASE" else name)
    target = watch(server, user=name, dbname=entry, include=[f"{name}_*", "shop"])
    take_now(target)

    for kind in (Lease.Kind.FAST, Lease.Kind.SLOW, Lease.Kind.FAST):
        take_lease(target, kind)

    assert {state for states in attempts(target).values() for state in states} == {"ok"}
    read = Snapshot.objects.filter(target_id=target.pk, probe="tables")
    assert read.values("database_id").distinct().count() == 3

    holder = server.connect(user=name, dbname=entry)
    leaving = threading.Timer(1, holder.close)
    leaving.start()
    results = take_now(target)  # waits for its turn
    leaving.join()
    assert not failures(results)


CLOSED = {
    "invalid": (
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{0}'",
        "The database is invalid, its DROP was interrupted: DROP DATABASE {0};",
    ),
    "full": (
        "ALTER DATABASE {0} CONNECTION LIMIT 0",
        "The database's own CONNECTION LIMIT lets no further session in: ALTER DATABASE {0} CONNECTION LIMIT -1;",
    ),
    "revoked": (
        "REVOKE CONNECT ON DATABASE {0} FROM PUBLIC",
        "The login may not connect to this database: GRANT CONNECT ON DATABASE {0} TO collector;",
    ),
    "shut": (
        "ALTER DATABASE {0} ALLOW_CONNECTIONS false",
        "The database takes no connections: ALTER DATABASE {0} ALLOW_CONNECTIONS true;",
    ),
}


@pytest.mark.parametrize("how", list(CLOSED))
def test_a_database_that_lets_nobody_in_costs_itself_alone(
    server: Server, watch: Watch, name: str, run: Callable[..., None], how: str
) -> None:
    run("CREATE DATABASE {}", name)
    target = watch(server, include=[name, "shop"])
    assert not failures(take_now(target))
    statement, reason = CLOSED[how]
    run(statement.format(name))

    per_database = ["tables", "indexes", "bloat"]
    results = take_now(target, per_database)

    assert failures(results) == {
        (probe, name): ("denied", reason.format(name)) for probe in per_database
    }
    assert {r.probe for r in results if r.database == "shop"} == set(per_database)


def test_a_database_that_is_locked_is_not_waited_for(
    server: Server, watch: Watch, name: str, run: Callable[..., None]
) -> None:
    """As DROP, RENAME and CREATE DATABASE … TEMPLATE lock it: a try would leave a backend there."""
    run("CREATE DATABASE {}", name)
    target = watch(server, include=[name, "shop"])
    take_now(target)
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    with server.connect(autocommit=False) as holder:
        holder.execute(rename.format(sql.Identifier(name), sql.Identifier(f"{name}_now")))
        since = server.log_size()
        results = take_now(target, ["tables", "indexes"])
        holder.rollback()

    said = "The database is being dropped, renamed or copied: nobody gets in until then."
    assert failures(results) == {(p, name): ("denied", said) for p in ("tables", "indexes")}
    assert f"collector@{name}" not in server.log_text(since=since)


def test_a_database_that_was_renamed_is_read_under_its_new_name(
    server: Server, watch: Watch, name: str, run: Callable[..., None]
) -> None:
    run("CREATE DATABASE {}", name)
    target = watch(server, include=[f"{name}*"])
    take_now(target)
    run("ALTER DATABASE {} RENAME TO {}", name, f"{name}_now")

    assert not failures(take_now(target, ["tables", "indexes"]))


def test_a_database_that_is_dropped_between_two_reads_costs_itself_alone(
    server: Server, watch: Watch, name: str, run: Callable[..., None], monkeypatch: Any
) -> None:
    """What is found out only by trying: the other databases are read after it."""
    run("CREATE DATABASE {}", name)
    target = watch(server, include=[name, "shop"])
    take_now(target)
    monkeypatch.setattr(doors, "read_doors", doors_before(server, run, name))

    results = take_now(target, ["tables", "indexes"])

    assert set(failures(results)) == {("tables", name), ("indexes", name)}
    assert {state for state, _ in failures(results).values()} == {"denied"}


def doors_before(
    server: Server, run: Callable[..., None], name: str
) -> Callable[[psycopg.Connection[Any]], Any]:
    """Return a read of the doors after which one is dropped at once."""
    read = doors.read_doors

    def read_and_drop(connection: psycopg.Connection[Any]) -> Any:
        found = read(connection)
        run("DROP DATABASE {}", name)
        return found

    return read_and_drop


def test_a_kept_connection_that_was_ended_costs_no_snapshot(
    server: Server, watch: Watch, run: Callable[..., None]
) -> None:
    target = watch(server)
    for kind in (Lease.Kind.FAST, Lease.Kind.SLOW):
        take_lease(target, kind)
    with server.connect() as session:
        ended = session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'collector' AND datname = 'postgres'"
        ).fetchall()
    assert ended

    for kind in (Lease.Kind.FAST, Lease.Kind.SLOW):
        take_lease(target, kind)

    assert {state for states in attempts(target).values() for state in states} == {"ok"}


def test_a_kept_connection_is_opened_anew_when_it_is_old(
    server: Server, watch: Watch, run: Callable[..., None], monkeypatch: Any
) -> None:
    target = watch(server)
    pids = []
    for seconds in (900, 900, 0):
        monkeypatch.setattr(sessions, "CONNECTION_SECONDS", seconds)
        take_lease(target, Lease.Kind.FAST)
        with SESSIONS.use(target.pk, Lease.Kind.FAST) as session:
            assert session.kept is not None
            pids.append(session.kept.connection.info.backend_pid)

    assert pids[0] == pids[1] != pids[2]


def test_outside_of_the_maintenance_database_no_session_stays(
    server: Server, watch: Watch, run: Callable[..., None]
) -> None:
    target = watch(server, dbname="shop", include=["shop", "postgres"])
    take_now(target, ["databases"])
    for kind in (Lease.Kind.FAST, Lease.Kind.SLOW):
        take_lease(target, kind)

    with server.connect() as session:
        left = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'collector'"
        ).fetchone()
    assert left == (0,)


@pytest.mark.django_db(transaction=True)
def test_databases_are_copied_renamed_and_dropped_while_they_are_read(
    server: Server,
    watch: Watch,
    name: str,
    run: Callable[..., None],
    eventually: Callable[..., None],
) -> None:
    run("CREATE DATABASE {}", name)
    target = watch(server, dbname="shop", include=[f"{name}*", "shop"])
    take_now(target)
    stop = threading.Event()
    rounds: list[int] = []

    def read_on() -> None:
        try:
            while not stop.is_set():
                for kind in (Lease.Kind.FAST, Lease.Kind.SLOW):
                    take_lease(target, kind)
                rounds.append(1)
        finally:
            history.close()

    reading = threading.Thread(target=read_on)
    reading.start()
    try:
        for number in range(4):
            copy, now = f"{name}_copy_{number}", f"{name}_{number}"
            run("CREATE DATABASE {} TEMPLATE {}", copy, name)
            run("ALTER DATABASE {} RENAME TO {}", name, now)
            run("ALTER DATABASE {} RENAME TO {}", now, name)
            before = len(rounds)
            eventually(lambda before=before: len(rounds) > before, seconds=30)
            run("DROP DATABASE {}", copy)
    finally:
        stop.set()
        reading.join()

    assert len(rounds) > 1
    left = failures(take_now(target))
    assert not left
    assert "unreachable" not in {state for found in attempts(target).values() for state in found}


PART_RIGHTS = {
    "system_identifier": "EXECUTE ON FUNCTION pg_control_system()",
    "timeline": "EXECUTE ON FUNCTION pg_control_checkpoint()",
    "started_at": "EXECUTE ON FUNCTION pg_postmaster_start_time()",
    "bgwriter_reset": "SELECT ON pg_stat_bgwriter",
    "checkpointer_start": "SELECT ON pg_stat_activity",
    "shared_reset": "SELECT ON pg_stat_wal",
    "connection_limit": "SELECT ON pg_roles",
    "settings": "SELECT ON pg_settings",
}


@contextmanager
def revoked(run: Callable[..., None], right: str) -> Iterator[None]:
    """Take a right from everybody for a while, in the entry database."""
    run(f"REVOKE {right} FROM PUBLIC")
    try:
        yield
    finally:
        run(f"GRANT {right} TO PUBLIC")


@pytest.mark.parametrize("part", list(PART_RIGHTS))
def test_a_right_to_one_part_of_the_identity_costs_that_part(
    server: Server, watch: Watch, run: Callable[..., None], part: str
) -> None:
    target = watch(server)
    take_now(target)
    target.refresh_from_db()
    kept = ("system_identifier", "timeline", "started_at", "settings", "frozen_reason")
    before = {key: getattr(target, key) for key in kept}
    with revoked(run, PART_RIGHTS[part]):
        results = take_now(target)
        with server.connect(user="collector") as session:
            found = read_identity(session)
            run(found.unknown[part].partition("postgres: ")[2])
            helped = read_identity(session)
            run(f"REVOKE {PART_RIGHTS[part]} FROM collector")

    assert set(found.unknown) == {part}
    assert f"GRANT {PART_RIGHTS[part]} TO collector;" in found.unknown[part]
    assert getattr(found, part) is None
    assert helped.unknown == {}
    needing = {
        "activity",
        "sessions",
        "connections",
        "locks",
        "horizon",
        "logins",
        "progress",
        "settings",
    }
    assert {probe for probe, _ in failures(results)} <= needing
    assert ("tables", "shop") not in failures(results)
    assert {state for state, _ in failures(results).values()} <= {"denied"}
    target.refresh_from_db()
    assert {key: getattr(target, key) for key in kept} == before


def test_every_part_of_the_identity_has_its_right() -> None:
    assert set(PART_RIGHTS) | {"reads_all_stats"} == {*PARTS, "settings"}


def test_the_schema_of_an_extension_that_may_not_be_used_is_named(
    server: Server, watch: Watch, name: str, run: Callable[..., None]
) -> None:
    run("CREATE DATABASE {}", name)
    run('CREATE SCHEMA "Own schema"', dbname=name)
    run('CREATE EXTENSION pg_stat_statements SCHEMA "Own schema"', dbname=name)
    target = watch(server, dbname=name, include=[name])

    [result] = take_now(target, ["statements"])
    assert (result.state, result.error) == (
        "denied",
        'The schema "Own schema" of pg_stat_statements may not be used.'
        f' In the database {name}: GRANT USAGE ON SCHEMA "Own schema" TO collector;',
    )

    run(result.error.partition(f"{name}: ")[2], dbname=name)
    [result] = take_now(target, ["statements"])
    assert result.state == "ok"
