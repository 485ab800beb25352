"""Dropping what a failed rebuild left: only that, and never while somebody builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.acting import perform
from monitors.action import InvalidArguments
from monitors.actions.drop_leftover_index import ACTION
from monitors.models import Action, Target
from tests.servers import Server

pytestmark = pytest.mark.django_db


@pytest.fixture
def owning(server: Server, watch: Callable[..., Target]) -> Iterator[Target]:
    """A target whose operator is a member of the role that owns the tables."""
    with server.connect() as superuser:
        superuser.execute("GRANT owner TO operator")
    yield watch(server, operator_user="operator")
    if server.major >= 17:
        with server.connect() as superuser:
            superuser.execute("REVOKE owner FROM operator")


@pytest.fixture
def left(server: Server, table: Callable[..., str]) -> Callable[..., str]:
    """Make an index: left("_ccnew", valid=False) -> its name."""

    def make(suffix: str, *, valid: bool = False) -> str:
        name = table(server)
        index = f"{name.split('.')[1]}{suffix}"
        with server.connect(dbname="shop") as superuser:
            superuser.execute(
                sql.SQL("CREATE INDEX {} ON {} (id)").format(
                    sql.Identifier(index), sql.Identifier(*name.split("."))
                )
            )
            superuser.execute(
                "UPDATE pg_index SET indisvalid = %s WHERE indexrelid = %s::regclass",
                [valid, f"public.{index}"],
            )
        return f"public.{index}"

    return make


def exists(server: Server, index: str) -> bool:
    with server.connect(dbname="shop") as connection:
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [index]).fetchone()
    return bool(row and row[0])


def test_it_needs_one_index() -> None:
    with pytest.raises(InvalidArguments):
        ACTION.clean({"database": "shop", "index": "a.b", "indexrelid": "1"})


@pytest.mark.parametrize("suffix", ["_ccnew", "_ccold1"])
def test_it_drops_what_was_left(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    left: Callable[..., str],
    done: Callable[..., Action],
    suffix: str,
) -> None:
    index = left(suffix)

    row = done(person("dba"), owning, "drop_leftover_index", index=index)

    assert row.state == "succeeded", row.outcome
    assert "given back" in row.effect
    assert not exists(server, index)


@pytest.mark.parametrize(
    ("suffix", "valid", "reason"),
    [("_ccnew", True, "is valid"), ("_by_hand", False, "no rebuild left it")],
)
def test_any_other_index_is_left_alone(  # noqa: PLR0917 - fixtures
    server: Server,
    owning: Target,
    person: Callable[..., User],
    left: Callable[..., str],
    previewed: Callable[..., Action],
    suffix: str,
    valid: bool,
    reason: str,
) -> None:
    index = left(suffix, valid=valid)

    draft = previewed(person("dba"), owning, "drop_leftover_index", index=index)

    assert reason in draft.preview["refused"]
    assert exists(server, index)


def test_it_is_left_alone_while_somebody_works_on_it(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    left: Callable[..., str],
    requested: Callable[..., Action],
    live: Callable[..., psycopg.Connection[Any]],
) -> None:
    """A build that began after the preview is seen too."""
    index = left("_ccnew")
    row = requested(person("dba"), owning, "drop_leftover_index", index=index)
    builder = live(server, user="owner", dbname="shop", autocommit=False)
    builder.execute(
        sql.SQL("ALTER INDEX {} SET (fillfactor = 80)").format(sql.Identifier(*index.split(".")))
    )

    perform.perform(str(row.pk))
    row.refresh_from_db()

    assert row.state == "refused"
    assert "is being built now" in row.outcome
    assert exists(server, index)


def test_who_does_not_own_it_is_told_the_grant(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    left: Callable[..., str],
    done: Callable[..., Action],
) -> None:
    index = left("_ccnew")

    row = done(
        person("dba"), watch(server, operator_user="collector"), "drop_leftover_index", index=index
    )

    assert row.state == "failed"
    assert "Run: GRANT owner TO collector." in row.outcome
    assert exists(server, index)


def test_one_that_is_gone_is_skipped(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    left: Callable[..., str],
    requested: Callable[..., Action],
) -> None:
    index = left("_ccnew")
    row = requested(person("dba"), owning, "drop_leftover_index", index=index)
    with server.connect(dbname="shop") as connection:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*index.split("."))))

    perform.perform(str(row.pk))
    row.refresh_from_db()

    assert row.state == "skipped"
