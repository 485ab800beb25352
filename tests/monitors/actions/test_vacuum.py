"""VACUUM: its options, and what it must say of an autovacuum."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.action import InvalidArguments
from monitors.actions.vacuum import ACTION, OPTIONS
from monitors.models import Action, Target
from tests import servers
from tests.servers import Server

TABLE = {"schemaname": "public", "relname": 'Odd "Name"'}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 'VACUUM "public"."Odd ""Name"""'),
        ({"analyze": "true"}, 'VACUUM (ANALYZE) "public"."Odd ""Name"""'),
        ({"analyze": "false"}, 'VACUUM "public"."Odd ""Name"""'),
        (
            {"analyze": "on", "freeze": "1", "skip_locked": "yes"},
            'VACUUM (ANALYZE, FREEZE, SKIP_LOCKED) "public"."Odd ""Name"""',
        ),
        (
            {"index_cleanup": "AUTO", "truncate": "false", "parallel": "0"},
            'VACUUM (INDEX_CLEANUP \'auto\', TRUNCATE \'off\', PARALLEL 0) "public"."Odd ""Name"""',
        ),
    ],
)
def test_its_statement_has_the_options_that_were_asked_for(
    options: dict[str, str], expected: str
) -> None:
    cleaned = ACTION.clean({"database": "shop", "relid": "1", **options})

    assert ACTION.statement(cleaned, TABLE, 180000).as_string(None) == expected


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"table": "a.b", "relid": "1"},
        {"relid": "1", "analyze": "maybe"},
        {"relid": "1", "verbose": "true"},
        {"relid": "1", "parallel": "33"},
        {"relid": "1", "parallel": "-1"},
        {"relid": "1", "index_cleanup": "on, FULL"},
        {"relid": "1", "buffer_usage_limit": "127"},
        {"relid": "1", "buffer_usage_limit": "16777217"},
        {"relid": "1", "process_main": "off", "process_toast": "off"},
    ],
)
def test_it_needs_one_table_and_clear_options(given: dict[str, str]) -> None:
    with pytest.raises(InvalidArguments):
        ACTION.clean({"database": "shop", **given})


GIVEN = {
    "analyze": "true",
    "freeze": "true",
    "disable_page_skipping": "true",
    "index_cleanup": "on",
    "truncate": "off",
    "process_toast": "on",
    "parallel": "2",
    "skip_database_stats": "true",
    "process_main": "on",
    "buffer_usage_limit": "512",
}


@pytest.mark.django_db
def test_every_option_of_its_version_is_sent_and_no_other(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
    done: Callable[..., Action],
) -> None:
    target, user, name = watch(server, operator_user="operator"), person("operator"), table(server)
    since = {option.name: option.since for option in OPTIONS}
    here = {option: text for option, text in GIVEN.items() if since[option] <= server.major}

    row = done(user, target, "vacuum", table=name, **here)

    assert row.state == "succeeded", row.outcome
    assert row.effect.startswith("dead rows 100 → 0")
    assert all(option.upper() in row.sql for option in here)
    for option in set(GIVEN) - set(here):
        refused = previewed(user, target, "vacuum", table=name, **{option: GIVEN[option]})
        sentence = f"PostgreSQL {server.major}, which has no {option} (PostgreSQL 16)"
        assert sentence in refused.preview["refused"]
        assert refused.sql == ""


@pytest.mark.django_db
def test_a_partitioned_table_is_the_sum_of_its_partitions(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    previewed: Callable[..., Action],
    done: Callable[..., Action],
    worker_id: str,
    eventually: Callable[..., None],
) -> None:
    name = f"parts_{worker_id}"
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(f"CREATE TABLE {name} (id bigint) PARTITION BY HASH (id)")
        for number in (0, 1):
            owner.execute(
                f"CREATE TABLE {name}_{number} PARTITION OF {name}"
                f" FOR VALUES WITH (MODULUS 2, REMAINDER {number})"
            )
        owner.execute(f"INSERT INTO {name} SELECT generate_series(1, 1000)")
        owner.execute(f"DELETE FROM {name} WHERE id <= 400")
        eventually(lambda: dead_of(owner, f"{name}_0") + dead_of(owner, f"{name}_1") == 400)
    try:
        target, user = watch(server, operator_user="operator"), person("operator")

        preview = previewed(user, target, "vacuum", table=f"public.{name}").preview
        row = done(user, target, "vacuum", table=f"public.{name}")

        assert dict(preview["facts"])["Partitions"] == "2"
        assert row.state == "succeeded"
        assert row.effect.startswith("dead rows 400 → 0")
    finally:
        with server.connect(dbname="shop") as connection:
            connection.execute(f"DROP TABLE {name}")


def dead_of(connection: psycopg.Connection[Any], name: str) -> int:
    row = connection.execute(
        "SELECT pg_stat_get_dead_tuples(%s::regclass)", [f"public.{name}"]
    ).fetchone()
    return int(row[0]) if row else 0


@pytest.fixture(params=[servers.MAJORS[0], servers.MAJORS[-1]], ids=str)
def restless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of its own whose autovacuum comes each second."""
    try:
        programs = servers.fleet_programs(request.param)
    except servers.Missing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    monkeypatch.setitem(servers.SETTINGS, "autovacuum_naptime", "1s")
    with ExitStack() as stack:
        folder = stack.enter_context(servers.home())
        yield stack.enter_context(servers.running(request.param, programs, folder))


def test_it_warns_of_the_autovacuum_that_it_would_cancel(
    restless: Server, eventually: Callable[..., None]
) -> None:
    """The autovacuum is slowed down so that it can be met at work."""
    with restless.connect(user="owner", dbname="shop") as owner:
        owner.execute(
            "CREATE TABLE slow (id bigint) WITH (autovacuum_vacuum_threshold = 1,"
            " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
        )
        owner.execute("INSERT INTO slow SELECT generate_series(1, 100000)")
        owner.execute("DELETE FROM slow")
    cleaned = ACTION.clean({"database": "shop", "table": "public.slow"})
    with restless.connect(user="operator", dbname="shop") as operator:
        identity = ACTION.resolve(operator, cleaned)
        eventually(lambda: vacuums(operator, identity["relid"]), seconds=30)
        warnings = ACTION.guard(operator, cleaned, identity).warnings

    assert len(warnings) == 1
    assert "it will be cancelled after deadlock_timeout" in warnings[0]


def vacuums(connection: psycopg.Connection[Any], relid: int) -> bool:
    return bool(
        connection.execute(
            "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = %s", [relid]
        ).fetchone()
    )


@pytest.mark.django_db
@pytest.mark.fleet
def test_a_vacuum_that_could_not_clean_says_who_held_it(
    server: Server,
    watch: Callable[..., Any],
    person: Callable[..., Any],
    live: Callable[..., psycopg.Connection[Any]],
    table: Callable[..., str],
    done: Callable[..., Any],
) -> None:
    target = watch(server, operator_user="operator")
    holder = live(
        server, user="owner", dbname="shop", autocommit=False, application_name="nightly-report"
    )
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT 1")
    name = table(server, dead=100)

    row = done(person("operator"), target, "vacuum", table=name)

    assert row.state == "succeeded"
    assert row.outcome.startswith("Dead rows 100 → 100, size ")
    who = rf"backend {holder.info.backend_pid} \(nightly-report, idle in transaction since .* UTC\)"
    assert re.search(rf"; 100 dead rows stay: {who} holds the horizon\.$", row.outcome)

    holder.rollback()
    again = done(person("operator"), target, "vacuum", table=name)

    assert again.outcome.startswith("Dead rows 100 → 0")
    assert "stay" not in again.outcome


@pytest.mark.django_db
@pytest.mark.fleet
@pytest.mark.pg(">=16")
def test_nobody_is_blamed_for_rows_that_were_not_to_be_vacuumed(
    server: Server,
    watch: Callable[..., Any],
    person: Callable[..., Any],
    table: Callable[..., str],
    done: Callable[..., Any],
) -> None:
    target = watch(server, operator_user="operator")
    name = table(server, dead=100)

    row = done(person("operator"), target, "vacuum", table=name, process_main="off")

    assert row.state == "succeeded"
    assert row.outcome.startswith("Dead rows 100 → 100, size unchanged")
    assert "stay" not in row.outcome
    assert "again" not in row.outcome


@pytest.mark.django_db
@pytest.mark.fleet
def test_who_holds_another_database_back_is_not_blamed(
    server: Server,
    watch: Callable[..., Any],
    person: Callable[..., Any],
    live: Callable[..., psycopg.Connection[Any]],
    table: Callable[..., str],
    done: Callable[..., Any],
) -> None:
    target = watch(server, operator_user="operator")
    elsewhere = live(server, dbname="postgres", autocommit=False)
    elsewhere.execute("SELECT pg_current_xact_id()")
    gid = "kept 4711"
    with server.connect(user="owner", dbname="shop", autocommit=False) as session:
        session.execute("SELECT pg_current_xact_id()")
        session.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
        session.rollback()
    try:
        row = done(person("operator"), target, "vacuum", table=table(server, dead=100))
    finally:
        with server.connect(dbname="shop") as session:
            session.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))

    assert f"100 dead rows stay: prepared transaction '{gid}' of " in row.outcome
