"""REPACK: refused before the server would, waits for its swap, says who is in the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection as history
from psycopg import sql

from monitors.acting import perform
from monitors.actions.repack import ACTION
from monitors.models import Action, Target
from monitors.pg import relations, repack
from tests import servers
from tests.servers import Server

Session = psycopg.Connection[Any]


@pytest.fixture
def keyed(table: Callable[..., str]) -> Callable[..., str]:
    """A table with 990 dead rows of 1,000 and, unless others are named, a primary key."""

    def make(server: Server, *statements: str) -> str:
        name = table(server, dead=990)
        with server.connect(user="owner", dbname="shop") as owner:
            for text in statements or ("ALTER TABLE {} ADD PRIMARY KEY (id)",):
                owner.execute(sql.SQL(text).format(sql.Identifier(*name.split("."))))
        return name

    return make


@pytest.mark.parametrize(
    ("given", "expected", "wait_ms"),
    [
        ({}, 'REPACK (CONCURRENTLY) "s"."t"', 60_000),
        ({"wait_seconds": "600"}, 'REPACK (CONCURRENTLY) "s"."t"', 600_000),
        ({"concurrently": "false", "wait_seconds": "600"}, 'REPACK "s"."t"', 5000),
    ],
)
def test_its_statement_and_how_long_it_waits(
    given: dict[str, str], expected: str, wait_ms: int
) -> None:
    cleaned = ACTION.clean({"database": "shop", "relid": "1", **given})

    text = ACTION.statement(cleaned, {"schemaname": "s", "relname": "t"}, 190000).as_string(None)

    assert text == expected
    assert ACTION.given(cleaned).lock_timeout_ms == wait_ms


def test_it_asks_as_vacuum_full_does() -> None:
    assert ACTION.destructive
    assert ACTION.second_person


@pytest.mark.pg("<19")
@pytest.mark.django_db
def test_a_server_without_it_says_so(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
) -> None:
    target = watch(server, operator_user="operator")

    draft = previewed(person("dba"), target, "repack", table=table(server))

    assert (
        f"This server is PostgreSQL {server.major}: REPACK came with 19."
        in draft.preview["refused"]
    )
    assert draft.sql == ""


@pytest.mark.pg(">=19")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("concurrently", "lock", "swap_lock"),
    [
        ("on", "ShareUpdateExclusiveLock", "AccessExclusiveLock"),
        ("off", "AccessExclusiveLock", None),
    ],
)
def test_it_gives_the_room_back(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    keyed: Callable[..., str],
    previewed: Callable[..., Action],
    done: Callable[..., Action],
    concurrently: str,
    lock: str,
    swap_lock: str | None,
) -> None:
    target, user = watch(server, operator_user="operator"), person("dba")
    given = {"table": keyed(server), "concurrently": concurrently}

    preview = previewed(user, target, "repack", **given).preview
    row = done(user, target, "repack", **given)

    assert "Free disk space needed" in dict(preview["facts"])
    assert (preview["lock"], preview.get("swap_lock")) == (lock, swap_lock)
    assert (row.state, row.verdict) == ("succeeded", "helped")
    assert row.after["size_bytes"] < row.before["size_bytes"]


RULES = [
    ((), "has no primary key and no replica identity index"),
    (("ALTER TABLE {} ADD PRIMARY KEY (id) DEFERRABLE",), "is deferrable"),
    (
        ("ALTER TABLE {} ADD PRIMARY KEY (id)", "ALTER TABLE {} REPLICA IDENTITY FULL"),
        "REPLICA IDENTITY FULL",
    ),
    (
        ("ALTER TABLE {} ADD PRIMARY KEY (id)", "ALTER TABLE {} REPLICA IDENTITY NOTHING"),
        "REPLICA IDENTITY NOTHING",
    ),
    (
        ("ALTER TABLE {} ADD PRIMARY KEY (id)", "ALTER TABLE {} SET UNLOGGED"),
        "not an ordinary logged table",
    ),
]


@pytest.mark.pg(">=19")
@pytest.mark.django_db
@pytest.mark.parametrize(("statements", "reason"), RULES, ids=[reason for _, reason in RULES])
def test_what_the_server_would_refuse_is_refused_before(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    keyed: Callable[..., str],
    previewed: Callable[..., Action],
    live: Callable[..., Session],
    statements: tuple[str, ...],
    reason: str,
) -> None:
    target, user = watch(server, operator_user="operator"), person("dba")
    name = keyed(server, *(statements or ("ANALYZE {}",)))
    identifier = sql.Identifier(*name.split("."))

    refused = previewed(user, target, "repack", table=name).preview["refused"]
    plain = previewed(user, target, "repack", table=name, concurrently="off").preview["refused"]

    with pytest.raises(psycopg.Error):  # the server agrees
        live(server, user="operator", dbname="shop").execute(
            sql.SQL("REPACK (CONCURRENTLY) {}").format(identifier)
        )
    assert reason in refused
    assert plain == ""


@pytest.mark.pg(">=19")
@pytest.mark.django_db
def test_a_login_without_the_right_is_refused_before(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    keyed: Callable[..., str],
    previewed: Callable[..., Action],
) -> None:
    target = watch(server, operator_user="collector")

    draft = previewed(person("dba"), target, "repack", table=keyed(server))

    assert "GRANT pg_maintain" in draft.preview["refused"]


@pytest.mark.pg(">=19")
@pytest.mark.django_db
def test_it_says_who_is_in_the_way(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    keyed: Callable[..., str],
    previewed: Callable[..., Action],
    live: Callable[..., Session],
) -> None:
    target, name = watch(server, operator_user="operator"), keyed(server)
    identifier = sql.Identifier(*name.split("."))
    reader = live(server, dbname="shop", application_name="reader", autocommit=False)
    reader.execute(sql.SQL("SELECT count(*) FROM {}").format(identifier))
    older = live(server, dbname="shop", application_name="older", autocommit=False)
    older.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    older.execute("SELECT 1")
    writer = live(server, dbname="postgres", application_name="writer", autocommit=False)
    writer.execute("SELECT pg_current_xact_id()")

    warnings = previewed(person("dba"), target, "repack", table=name).preview["warnings"]

    [begins] = [text for text in warnings if text.startswith("It begins once")]
    [swap] = [text for text in warnings if text.startswith("The swap at its end")]
    [blind] = [text for text in warnings if "sees it empty" in text]
    assert f"pid {writer.info.backend_pid} (writer)" in begins
    assert f"pid {reader.info.backend_pid} (reader)" in swap
    assert f"pid {older.info.backend_pid} (older)" in blind
    assert "(reader)" not in blind


@pytest.mark.pg(">=19")
@pytest.mark.django_db
def test_an_older_snapshot_sees_the_table_empty_as_the_preview_says(
    server: Server, keyed: Callable[..., str], live: Callable[..., Session]
) -> None:
    identifier = sql.Identifier(*keyed(server).split("."))
    count = sql.SQL("SELECT count(*) FROM {}").format(identifier)
    older = live(server, dbname="shop", autocommit=False)
    older.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    older.execute("SELECT 1")
    other = live(server, dbname="shop")

    other.execute(sql.SQL("REPACK (CONCURRENTLY) {}").format(identifier))

    assert (older.execute(count).fetchone(), other.execute(count).fetchone()) == ((0,), (10,))


@pytest.mark.pg(">=19")
@pytest.mark.django_db(transaction=True)
def test_it_waits_for_its_swap_and_says_for_whom(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    keyed: Callable[..., str],
    requested: Callable[..., Action],
    live: Callable[..., Session],
    eventually: Callable[..., None],
) -> None:
    target, name = watch(server, operator_user="operator"), keyed(server)
    reader = live(server, dbname="shop", application_name="reader", autocommit=False)
    reader.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*name.split("."))))
    look = live(server, dbname="shop")
    row = requested(person("dba"), target, "repack", table=name)

    def work() -> None:
        perform.perform(str(row.pk))
        history.close()  # this thread's, to our own database

    thread = threading.Thread(target=work)
    thread.start()

    def waits() -> bool:
        row.refresh_from_db()
        return f"pid {reader.info.backend_pid} (reader)" in str(row.progress.get("waits_for"))

    eventually(lambda: waits() and row.progress.get("elapsed_seconds", 0) > 5, seconds=30)
    locks = look.execute(
        "SELECT l.mode, l.granted FROM pg_locks AS l JOIN pg_stat_progress_repack USING (pid)"
        " WHERE l.relation = %s::regclass AND pid <> %s",
        [name, reader.info.backend_pid],
    ).fetchall()
    reader.rollback()
    thread.join()
    row.refresh_from_db()

    assert set(locks) == {(ACTION.lock, True), (ACTION.swap_lock, False)}
    assert row.progress["command"] == "REPACK"
    assert row.state == "succeeded"


@pytest.mark.pg(">=19")
@pytest.mark.django_db
@pytest.mark.parametrize("late", [True, False], ids=["swap", "begin"])
def test_a_wait_that_was_in_vain_says_what_it_cost(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    keyed: Callable[..., str],
    requested: Callable[..., Action],
    live: Callable[..., Session],
    late: bool,
) -> None:
    target, name = watch(server, operator_user="operator"), keyed(server)
    other = live(server, dbname="shop", application_name="other", autocommit=False)
    if late:
        other.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(*name.split("."))))
    else:
        other.execute("SELECT pg_current_xact_id()")
    row = requested(person("dba"), target, "repack", table=name, wait_seconds="5")

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "failed"
    assert f"pid {other.info.backend_pid} (other)" in row.outcome
    assert ("All its work was lost" in row.outcome) == late
    assert row.outcome.startswith("What it waits for before it begins") != late


@pytest.mark.pg(">=19")
@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("max_repack_replication_slots", "0", "max_repack_replication_slots is 0"),
        ("max_worker_processes", "1", "background workers (max_worker_processes) are in use"),
    ],
)
def test_a_server_that_lacks_what_it_takes_is_named(
    server: Server, setting: str, value: str, reason: str
) -> None:
    programs = servers.fleet_programs(server.major)
    with (
        servers.home() as folder,
        servers.running(19, programs, folder, **{setting: value}) as own,
        own.connect(user="owner", dbname="shop") as owner,
        own.connect(user="operator", dbname="shop") as hand,
    ):
        owner.execute("CREATE TABLE public.keyed (id int PRIMARY KEY)")
        found = relations.by_name(hand, "public.keyed")
        assert found is not None

        said = repack.reason_not_concurrently(hand, found)
        with pytest.raises(psycopg.Error):  # the server agrees
            hand.execute("REPACK (CONCURRENTLY) public.keyed")

    assert reason in said
