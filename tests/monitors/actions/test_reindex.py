"""REINDEX: smaller indexes, and nothing left behind when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection as history
from django.utils import timezone
from psycopg import sql

from monitors.acting import ask, perform, sweep
from monitors.acting.preview import preview_now
from monitors.action import InvalidArguments
from monitors.actions.reindex import ACTION
from monitors.models import Action, Target
from monitors.pg import indexes
from tests.servers import Server

IDENTITY = {"schemaname": "s", "relname": 'a"b', "relkind": "r"}


@pytest.mark.parametrize(
    ("given", "relkind", "expected"),
    [
        ({"relid": "1"}, "r", 'REINDEX TABLE CONCURRENTLY "s"."a""b"'),
        ({"indexrelid": "1"}, "i", 'REINDEX INDEX CONCURRENTLY "s"."a""b"'),
        ({"relid": "1", "concurrently": "false"}, "m", 'REINDEX TABLE "s"."a""b"'),
    ],
)
def test_its_statement(given: dict[str, str], relkind: str, expected: str) -> None:
    cleaned = ACTION.clean({"database": "shop", **given})

    text = ACTION.statement(cleaned, {**IDENTITY, "relkind": relkind}, 180000).as_string(None)

    assert text == expected


@pytest.mark.parametrize(
    "given", [{}, {"table": "a.b", "index": "a.c"}, {"relid": "1", "index": "x"}]
)
def test_it_needs_one_table_or_one_index(given: dict[str, str]) -> None:
    with pytest.raises(InvalidArguments):
        ACTION.clean({"database": "shop", **given})


def test_without_concurrently_it_waits_little_and_asks_for_a_confirmation() -> None:
    blocking = ACTION.given(ACTION.clean({"database": "d", "relid": "1", "concurrently": "off"}))

    assert blocking.destructive
    assert blocking.lock == "ShareLock"
    assert blocking.lock_timeout_ms <= 5000
    assert not ACTION.destructive


@pytest.fixture
def indexed(table: Callable[..., str]) -> Callable[[Server], str]:
    """A table with an index most of whose rows are gone: indexed(server) -> public.name.

    Its index is `<name>_id`, its primary key's `<name>_pkey`.
    """

    def make(server: Server) -> str:
        name = table(server)
        with server.connect(user="owner", dbname="shop") as owner:
            for text in (
                "INSERT INTO {table} SELECT generate_series(2000, 20000)",
                "ALTER TABLE {table} ADD COLUMN body text, ADD PRIMARY KEY (id)",
                "CREATE INDEX {index} ON {table} (id)",
                "DELETE FROM {table} WHERE id > 2000",
                "VACUUM {table}",
            ):
                owner.execute(
                    sql.SQL(text).format(
                        table=sql.Identifier(*name.split(".")),
                        index=sql.Identifier(f"{name.split('.')[1]}_id"),
                    )
                )
        return name

    return make


def states(server: Server, name: str) -> dict[str, bool]:
    """Return {index: whether it is valid} of a table."""
    with server.connect(dbname="shop") as connection:
        rows = connection.execute(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = %s::regclass",
            [name],
        ).fetchall()
    return dict(rows)


@pytest.mark.django_db
@pytest.mark.parametrize("what", ["table", "index", "blocking"])
def test_it_makes_indexes_smaller(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    done: Callable[..., Action],
    what: str,
) -> None:
    """With the rights that the grant script gives."""
    name = indexed(server)
    target = watch(server, operator_user="operator")
    given = {
        "table": {"table": name},
        "index": {"index": f"{name}_id"},
        "blocking": {"table": name, "concurrently": "off"},
    }[what]

    row = done(person("dba"), target, "reindex", **given)

    assert row.state == "succeeded", row.outcome
    assert row.effect.startswith("indexes ")
    assert row.after["index_bytes"] < row.before["index_bytes"] / 2
    assert all(states(server, name).values())


@pytest.mark.django_db
def test_a_refusal_of_the_server_is_told_with_its_detail_and_no_value(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    done: Callable[..., Action],
) -> None:
    """A unique index over a function that was changed since: what is duplicated is the DETAIL."""
    name = indexed(server)
    schema, relname = name.split(".")
    with server.connect(user="owner", dbname="shop") as owner:
        make = sql.SQL(
            "CREATE OR REPLACE FUNCTION {}(bigint) RETURNS text IMMUTABLE LANGUAGE sql AS {}"
        )
        key = sql.Identifier(schema, f"{relname}_key")
        owner.execute(make.format(key, sql.Literal("SELECT $1::text")))
        unique = "CREATE UNIQUE INDEX {} ON {} ({}(id))"
        owner.execute(
            sql.SQL(unique).format(
                sql.Identifier(f"{relname}_once"), sql.Identifier(schema, relname), key
            )
        )
        owner.execute(make.format(key, sql.Literal("SELECT 'canary'::text")))

    row = done(
        person("dba"),
        watch(server, operator_user="operator"),
        "reindex",
        index=f"{name}_once",
        concurrently="off",
    )
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(sql.SQL("DROP FUNCTION {} CASCADE").format(key))

    assert row.state == "failed"
    assert "_key(id))=(…) " in row.outcome  # and that it is duplicated, in any language
    assert "canary" not in row.outcome


@pytest.mark.django_db
def test_its_preview_names_whom_it_waits_for(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    previewed: Callable[..., Action],
    live: Callable[..., psycopg.Connection[Any]],
) -> None:
    name = indexed(server)
    target = watch(server, operator_user="operator")
    old = live(server, user="owner", dbname="shop", autocommit=False, application_name="report")
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT 1")

    preview = previewed(person("dba"), target, "reindex", table=name).preview

    assert any(
        "1 transaction is open" in text and "(report)" in text for text in preview["warnings"]
    )
    assert [one["application_name"] for one in preview["conflicts"]] == ["report"]


@pytest.mark.django_db
def test_without_the_right_it_fails_and_says_the_grant(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    done: Callable[..., Action],
) -> None:
    name = indexed(server)
    version = server.major * 10000
    target = watch(server, operator_user="collector", server_version=version)

    row = done(person("dba"), target, "reindex", table=name)

    assert row.state == "failed"
    grant = "GRANT pg_maintain TO collector" if server.major >= 17 else "GRANT owner TO collector"
    assert grant in row.outcome
    assert all(states(server, name).values())


@pytest.mark.django_db
def test_a_table_without_an_index_is_left_alone(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
) -> None:
    target = watch(server, operator_user="operator")

    draft = previewed(person("dba"), target, "reindex", table=table(server))

    assert "has no index" in draft.preview["refused"]


@pytest.mark.django_db
def test_an_index_that_is_gone_or_another_is_left_alone(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    requested: Callable[..., Action],
) -> None:
    name = indexed(server)
    target = watch(server, operator_user="operator")
    gone = requested(person("dba"), target, "reindex", index=f"{name}_id")
    renamed = requested(person("dba"), target, "reindex", index=f"{name}_pkey")
    with server.connect(dbname="shop") as connection:
        connection.execute(
            sql.SQL("DROP INDEX {}").format(sql.Identifier(*f"{name}_id".split(".")))
        )
        connection.execute(
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(*f"{name}_pkey".split(".")),
                sql.Identifier(f"{name.split('.')[1]}_key"),
            )
        )
    for row in (gone, renamed):
        perform.perform(str(row.pk))
        row.refresh_from_db()

    assert [gone.state, renamed.state] == ["skipped", "skipped"]
    assert "The index is gone" in gone.outcome
    assert "Object changed" in renamed.outcome


@pytest.mark.django_db
def test_what_a_lost_one_left_is_named_with_its_statement(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    requested: Callable[..., Action],
) -> None:
    """Its worker was killed; the sweep finds what it left."""
    name = indexed(server)
    row = requested(person("dba"), watch(server, operator_user="operator"), "reindex", table=name)
    left = f"{name.split('.')[1]}_id_ccnew"
    with server.connect(dbname="shop") as superuser:
        superuser.execute(
            sql.SQL("CREATE INDEX {} ON {} (id)").format(
                sql.Identifier(left), sql.Identifier(*name.split("."))
            )
        )
        superuser.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
            [f"public.{left}"],
        )
    long_ago = timezone.now() - timedelta(minutes=1)
    Action.objects.filter(pk=row.pk).update(state="running", beat_at=long_ago)

    sweep.sweep()
    row.refresh_from_db()

    assert row.state == "lost"
    assert (
        f'It left public.{left}, which is not used: DROP INDEX CONCURRENTLY "public".'
        in row.outcome
    )


def in_background(row: Action) -> threading.Thread:
    """Perform an action as a worker would, while the test goes on."""

    def work() -> None:
        try:
            perform.perform(str(row.pk))
        finally:
            history.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("right", ["owner", "maintain"])
def test_what_a_stopped_rebuild_left_is_dropped_or_named(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    indexed: Callable[[Server], str],
    requested: Callable[..., Action],
    live: Callable[..., psycopg.Connection[Any]],
    eventually: Callable[..., None],
    right: str,
) -> None:
    """An old snapshot keeps it waiting; an index that was invalid before stays as it is."""
    if right == "maintain" and server.major < 17:
        pytest.skip("needs pg_maintain")
    if right == "owner":
        with server.connect() as superuser:
            superuser.execute("GRANT owner TO operator")
    try:
        name = indexed(server)
        target, user = watch(server, operator_user="operator"), person("dba")
        older = f"{name.split('.')[1]}_old_ccnew"
        with server.connect(dbname="shop") as superuser:
            superuser.execute(
                sql.SQL("CREATE INDEX {} ON {} (id)").format(
                    sql.Identifier(older), sql.Identifier(*name.split("."))
                )
            )
            superuser.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
                [f"public.{older}"],
            )
        row = requested(user, target, "reindex", index=f"{name}_id")
        old = live(server, user="owner", dbname="shop", autocommit=False, application_name="report")
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1")
        thread = in_background(row)

        def waits() -> bool:
            row.refresh_from_db()
            return "(report)" in str(row.progress.get("waits_for"))

        eventually(waits, seconds=20)
        with server.connect(dbname="shop") as superuser:
            [relid] = superuser.execute("SELECT %s::regclass::oid::int8", [name]).fetchone() or [0]
            building = {one.relname: one.building for one in indexes.invalid(superuser, relid)}
        ask.stop(user, row, "test")
        thread.join(40)
        row.refresh_from_db()

        left = states(server, name)
        assert building == {f"{name.split('.')[1]}_id_ccnew": True, older: True}
        assert row.state == "cancelled"
        assert left[f"{name.split('.')[1]}_id"]
        assert not left[older]
        if right == "owner":
            assert f"It left {name}_id_ccnew, which was dropped." in row.outcome
            assert f"{name.split('.')[1]}_id_ccnew" not in left
        else:
            assert "and could not be dropped (" in row.outcome  # its owner may
            assert "DROP INDEX CONCURRENTLY" in row.outcome
            assert not left[f"{name.split('.')[1]}_id_ccnew"]
        old.rollback()
        preview = ask.preview(
            user, target, "reindex", {"database": "shop", "table": name}, source="t"
        )
        preview_now(str(preview.pk))
        preview.refresh_from_db()
        assert any(f"{older} is left from a rebuild" in one for one in preview.preview["warnings"])
    finally:
        if right == "owner" and server.major >= 17:
            with server.connect() as superuser:
                superuser.execute("REVOKE owner FROM operator")
