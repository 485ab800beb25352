"""CLUSTER: in an index's order, with all its locks said, and smaller afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.acting import perform
from monitors.actions.cluster import ACTION
from monitors.models import Action, Target
from tests.servers import Server

pytestmark = pytest.mark.django_db


@pytest.fixture
def indexed(table: Callable[..., str]) -> Callable[[Server], str]:
    """A table with 990 dead rows of 1,000 and an index `<name>_id`."""

    def make(server: Server) -> str:
        name = table(server, dead=990)
        with server.connect(user="owner", dbname="shop") as owner:
            owner.execute(
                sql.SQL("CREATE INDEX {} ON {} (id)").format(
                    sql.Identifier(f"{name.split('.')[1]}_id"), sql.Identifier(*name.split("."))
                )
            )
        return name

    return make


def test_it_needs_a_confirmation_and_where_protected_a_second_person() -> None:
    assert ACTION.destructive
    assert ACTION.second_person
    assert ACTION.lock == "AccessExclusiveLock"
    assert 0 < ACTION.lock_timeout_ms <= 5000


def test_its_statement() -> None:
    identity = {"schemaname": "s", "relname": "t", "indexrelname": 'i"x'}

    assert ACTION.statement({}, identity, 180000).as_string(None) == 'CLUSTER "s"."t" USING "i""x"'


def test_it_takes_the_named_index_and_then_that_of_last_time(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    previewed: Callable[..., Action],
    done: Callable[..., Action],
) -> None:
    target, user = watch(server, operator_user="operator"), person("dba")
    name = indexed(server)
    index = f"{name.split('.')[1]}_id"

    never = previewed(user, target, "cluster", table=name)
    other = previewed(user, target, "cluster", table=name, using="no_such_index")
    preview = previewed(user, target, "cluster", table=name, using=index).preview
    row = done(user, target, "cluster", table=name, using=index)
    again = done(user, target, "cluster", table=name)

    assert "never clustered" in never.preview["refused"]
    assert "has no index no_such_index" in other.preview["refused"]
    assert "Free disk space needed" in dict(preview["facts"])
    assert row.state == "succeeded", row.outcome
    assert row.after["size_bytes"] < row.before["size_bytes"]
    assert again.state == "succeeded", again.outcome
    assert again.sql == f'CLUSTER "public"."{name.split(".")[1]}" USING "{index}"'


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("(id) WHERE id > 10", "is partial and orders only some of the rows"),
        ("USING hash (id)", "has no order to follow: choose a btree or GiST index"),
        ("USING brin (id)", "has no order to follow: choose a btree or GiST index"),
    ],
    ids=["partial", "hash", "brin"],
)
def test_an_index_that_gives_no_order_is_refused_as_the_server_would(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    previewed: Callable[..., Action],
    how: str,
    says: str,
) -> None:
    name = indexed(server)
    index = f"{name.split('.')[1]}_odd"
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(f"CREATE INDEX {index} ON {name} {how}")
        with pytest.raises(psycopg.Error):
            owner.execute(f"CLUSTER {name} USING {index}")

    draft = previewed(
        person("dba"), watch(server, operator_user="operator"), "cluster", table=name, using=index
    )

    assert says in draft.preview["refused"]


def test_without_the_right_nothing_is_done_and_the_grant_is_said(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    done: Callable[..., Action],
) -> None:
    version = server.major * 10000
    target = watch(server, operator_user="collector", server_version=version)
    name = indexed(server)

    row = done(person("dba"), target, "cluster", table=name, using=f"{name.split('.')[1]}_id")

    grant = "GRANT pg_maintain TO collector" if server.major >= 17 else "GRANT owner TO collector"
    assert row.state in {"failed", "skipped"}
    assert grant in row.outcome


def test_a_lock_that_is_not_free_or_an_index_that_is_gone_ends_it(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    requested: Callable[..., Action],
    live: Callable[..., psycopg.Connection[Any]],
) -> None:
    target, user = watch(server, operator_user="operator"), person("dba")
    name = indexed(server)
    index = f"{name.split('.')[1]}_id"
    locked = requested(user, target, "cluster", table=name, using=index)
    gone = requested(user, target, "cluster", table=name, using=index)
    reader = live(server, user="owner", dbname="shop", autocommit=False, application_name="report")
    reader.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*name.split("."))))

    perform.perform(str(locked.pk))
    reader.rollback()
    with server.connect(dbname="shop") as connection:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier("public", index)))
    perform.perform(str(gone.pk))
    locked.refresh_from_db()
    gone.refresh_from_db()

    assert locked.state == "failed"
    assert "was not free within 5 s: pid" in locked.outcome
    assert "(report)" in locked.outcome
    assert gone.state == "refused"
    assert "is gone" in gone.outcome
