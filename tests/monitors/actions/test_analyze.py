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
