"""ANALYZE: the planner's statistics are new afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from monitors.actions.analyze import ACTION
from monitors.models import Action, Target
from tests.servers import Server

pytestmark = pytest.mark.django_db


def test_its_statement() -> None:
    cleaned = ACTION.clean({"database": "shop", "relid": "1"})

    text = ACTION.statement(cleaned, {"schemaname": "s", "relname": "t"}, 180000).as_string(None)

    assert text == 'ANALYZE "s"."t"'


def test_it_says_how_many_changes_it_caught_up_with(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    done: Callable[..., Action],
) -> None:
    target = watch(server, operator_user="operator")

    row = done(person("operator"), target, "analyze", table=table(server, dead=100))

    assert row.state == "succeeded"
    assert row.effect == "rows changed since the last analyze 1,100 → 0"


def test_only_is_for_partitioned_tables_of_18(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
    done: Callable[..., Action],
    worker_id: str,
) -> None:
    target, user, plain = watch(server, operator_user="operator"), person("operator"), table(server)
    name = f"only_{worker_id}"
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(f"CREATE TABLE {name} (id bigint) PARTITION BY HASH (id)")
    try:
        if server.major >= 18:
            row = done(user, target, "analyze", table=f"public.{name}", only="true")
            refused = previewed(user, target, "analyze", table=plain, only="true")
            assert row.sql == f'ANALYZE ONLY "public"."{name}"'
            assert row.state == "succeeded"
            assert "is not partitioned" in refused.preview["refused"]
        else:
            refused = previewed(user, target, "analyze", table=f"public.{name}", only="true")
            assert "has no only (PostgreSQL 18)" in refused.preview["refused"]
    finally:
        with server.connect(dbname="shop") as connection:
            connection.execute(f"DROP TABLE {name}")


def test_only_of_a_parent_says_what_the_planner_learnt(
    fleet: Callable[[int], Server],
    watch: Callable[..., Target],
    person: Callable[..., User],
    done: Callable[..., Action],
    worker_id: str,
) -> None:
    """Its partitions are as they were: what changes is what the planner assumes of the whole."""
    server = fleet(18)
    name = f"parent_{worker_id}"
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(f"CREATE TABLE {name} (id bigint) PARTITION BY HASH (id)")
        owner.execute(
            f"CREATE TABLE {name}_0 PARTITION OF {name} FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
        )
        owner.execute(f"INSERT INTO {name} SELECT generate_series(1, 1000)")
    try:
        target, user = watch(server, operator_user="operator"), person("operator")
        first = done(user, target, "analyze", table=f"public.{name}", only="true")
        again = done(user, target, "analyze", table=f"public.{name}", only="true")
    finally:
        with server.connect(dbname="shop") as connection:
            connection.execute(f"DROP TABLE {name}")

    assert "rows that the planner assumes unknown → 1,000" in first.effect
    assert (first.verdict, first.verdict_text) == (
        "helped",
        "rows that the planner assumes unknown → 1,000",
    )
    assert "rows that the planner assumes 1,000 → 1,000" in again.effect
    assert again.verdict == ""


def test_a_foreign_table_is_analyzed_and_not_vacuumed(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    previewed: Callable[..., Action],
    done: Callable[..., Action],
    worker_id: str,
) -> None:
    name = f"far_{worker_id}"
    with server.connect(dbname="shop") as setup:
        setup.execute("CREATE EXTENSION IF NOT EXISTS file_fdw")
        setup.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER file_fdw")
        setup.execute(
            f"CREATE FOREIGN TABLE {name} (line text) SERVER {name} OPTIONS (filename 'PG_VERSION')"
        )
        setup.execute(f"ALTER FOREIGN TABLE {name} OWNER TO owner")
        setup.execute("GRANT pg_read_server_files TO owner, operator")
    try:
        target, user = watch(server, operator_user="operator"), person("operator")
        row = done(user, target, "analyze", table=f"public.{name}")
        refused = previewed(user, target, "vacuum", table=f"public.{name}")
    finally:
        with server.connect(dbname="shop") as setup:
            setup.execute(f"DROP SERVER {name} CASCADE")
            setup.execute("REVOKE pg_read_server_files FROM owner, operator")

    assert (row.state, row.effect) == ("succeeded", "rows that the planner assumes unknown → 1")
    assert row.verdict == "helped"
    assert "is a foreign table" in refused.preview["refused"]
