"""Autovacuum options of a table: bounds as the server's, the exact inverse, owners alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.acting import ask, perform, preview
from monitors.action import InvalidArguments, Kind
from monitors.actions.set_autovacuum import ACTION, OPTIONS
from monitors.models import Action, Target
from monitors.pg import options
from tests.servers import Server

pytestmark = pytest.mark.django_db

FACTOR = "autovacuum_vacuum_scale_factor"


@pytest.fixture
def owning(server: Server, watch: Callable[..., Target]) -> Iterator[Target]:
    """A target whose operator is a member of the role that owns the tables."""
    with server.connect() as superuser:
        superuser.execute("GRANT owner TO operator")
    yield watch(server, operator_user="operator")
    if server.major >= 17:  # where the grant script gives pg_maintain instead
        with server.connect() as superuser:
            superuser.execute("REVOKE owner FROM operator")


def texts(server: Server, name: str) -> dict[str, str]:
    """Return the options that stand in the catalog."""
    with server.connect(dbname="shop") as connection:
        [relid] = connection.execute("SELECT %s::regclass::oid::int8", [name]).fetchone() or [0]
        table = options.read(connection, relid)
    assert table is not None
    return table.texts


def test_its_statement_sets_and_resets_in_one() -> None:
    cleaned = ACTION.clean(
        {"database": "shop", "relid": "1", FACTOR: "0.050", "toast.vacuum_truncate": "Reset"}
    )

    text = ACTION.statement(cleaned, {"schemaname": "s", "relname": 'a"b'}, 180000).as_string(None)

    assert text == (
        'ALTER TABLE "s"."a""b" SET ("autovacuum_vacuum_scale_factor" = \'0.050\'),'
        ' RESET ("toast"."vacuum_truncate")'
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (FACTOR, "NaN"),
        (FACTOR, "1e309"),
        (FACTOR, "inf"),
        (FACTOR, "-0.1"),
        (FACTOR, "100.1"),
        (FACTOR, "0.1); DROP TABLE x; --"),
        ("fillfactor", "9"),
        ("fillfactor", "101"),
        ("fillfactor", "50.5"),
        ("autovacuum_enabled", "maybe"),
        ("vacuum_index_cleanup", "never"),
        ("user_catalog_table", "true"),
        ("toast.fillfactor", "50"),
        ("toast.autovacuum_analyze_threshold", "50"),
    ],
)
def test_other_options_and_values_are_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidArguments):
        ACTION.clean({"database": "shop", "relid": "1", name: text})


def test_its_bounds_are_the_servers(server: Server, table: Callable[..., str]) -> None:
    """Both ends are taken, what is beyond them is not: nothing is forbidden that the server allows."""
    name = table(server)
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(sql.SQL("ALTER TABLE {} ADD COLUMN body text").format(relation(name)))
        for option in OPTIONS.values():
            if option.since > server.major:
                assert not taken(owner, name, option.name, "1")
            elif option.kind == Kind.CHOICE:
                words = [*option.choices, *option.spellings]
                assert all(taken(owner, name, option.name, word) for word in words), option
                assert not taken(owner, name, option.name, "sometimes")
            else:
                low, high = option.minimum, option.maximum
                assert low is not None
                assert high is not None
                assert taken(owner, name, option.name, f"{low:.0f}"), option
                assert taken(owner, name, option.name, f"{high:.0f}"), option
                assert not taken(owner, name, option.name, f"{low - 1:.0f}"), option
                assert not taken(owner, name, option.name, f"{high + 1:.0f}"), option


def relation(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def taken(owner: psycopg.Connection[Any], name: str, option: str, text: str) -> bool:
    try:
        owner.execute(
            sql.SQL("ALTER TABLE {} SET ({} = {})").format(
                relation(name), sql.Identifier(*option.split(".")), sql.Literal(text)
            )
        )
    except psycopg.Error:
        return False
    return True


def test_it_says_when_autovacuum_comes_and_undo_gives_back_the_very_texts(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    done: Callable[..., Action],
) -> None:
    name, user = table(server), person("dba")
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(sql.SQL("ANALYZE {}").format(relation(name)))
        owner.execute(
            sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = of, fillfactor = 90)").format(
                relation(name)
            )
        )
    before = texts(server, name)
    changes = {FACTOR: "0.050", "autovacuum_enabled": "true", "fillfactor": "reset"}

    row = done(user, owning, "set_autovacuum", table=name, **changes)

    assert row.state == "succeeded"
    assert row.effect.startswith("vacuum after 230 → 95 dead rows")
    assert "autovacuum off → on" in row.effect
    assert texts(server, name) == {FACTOR: "0.050", "autovacuum_enabled": "true"}
    assert row.inverse["arguments"] | {"relid": "", "database": ""} == {
        "database": "",
        "relid": "",
        FACTOR: "reset",
        "autovacuum_enabled": "of",
        "fillfactor": "90",
    }

    draft = ask.undo(user, row, "test")
    preview.preview_now(str(draft.pk))
    draft.refresh_from_db()
    undone = ask.request(user, draft, source="test")
    perform.perform(str(undone.pk))
    undone.refresh_from_db()

    assert undone.state == "succeeded", undone.outcome
    assert texts(server, name) == before


def test_what_is_so_already_is_not_sent(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
    requested: Callable[..., Action],
) -> None:
    """Whether it was so before the preview, or became so after it."""
    name, user = table(server), person("dba")
    twice = previewed(user, owning, "set_autovacuum", table=name, autovacuum_enabled="0")
    row = requested(user, owning, "set_autovacuum", table=name, fillfactor="70")
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(sql.SQL("ALTER TABLE {} SET (fillfactor = 70)").format(relation(name)))

    since = server.log_size()
    perform.perform(str(row.pk))
    row.refresh_from_db()

    assert twice.preview["refused"].startswith("Already so: autovacuum_enabled is false")
    assert row.state == "skipped"
    assert "Already so" in row.outcome
    assert "ALTER TABLE" not in server.log_text(since=since)


def test_who_does_not_own_it_is_told_the_grant(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
) -> None:
    """Pg_maintain does not allow it, and nobody is told to be given a superuser's rights."""
    with server.connect() as superuser:
        superuser.execute("CREATE ROLE tables_owner_set")
        superuser.execute("GRANT tables_owner_set TO owner")
        superuser.execute("GRANT CREATE ON DATABASE shop TO tables_owner_set")
    try:
        target = watch(server, operator_user="operator")
        with server.connect(dbname="shop") as superuser:
            superuser.execute("GRANT CREATE ON SCHEMA public TO tables_owner_set")
            name, other = table(server), table(server, owner="postgres")
            if server.major < 17:
                superuser.execute("REVOKE owner FROM operator")
            superuser.execute(
                sql.SQL("ALTER TABLE {} OWNER TO tables_owner_set").format(relation(name))
            )

        draft = previewed(person("dba"), target, "set_autovacuum", table=name, fillfactor="80")
        supers = previewed(person("dba"), target, "set_autovacuum", table=other, fillfactor="80")

        assert draft.preview["refused"].endswith("Run: GRANT tables_owner_set TO operator.")
        assert "GRANT postgres" not in supers.preview["refused"]
        assert "belongs to the superuser postgres" in supers.preview["refused"]
    finally:
        with server.connect(dbname="shop") as superuser:
            superuser.execute("REASSIGN OWNED BY tables_owner_set TO owner")
            superuser.execute("DROP OWNED BY tables_owner_set")
            superuser.execute("DROP ROLE tables_owner_set")
            if server.major < 17:
                superuser.execute("GRANT owner TO operator")


def test_it_is_refused_where_it_means_nothing(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
) -> None:
    name, user = table(server), person("dba")
    with server.connect(user="owner", dbname="shop") as owner:
        owner.execute(
            sql.SQL("CREATE TABLE {} (id bigint) PARTITION BY HASH (id)").format(
                relation(f"{name}_p")
            )
        )
    try:

        def refused(of: str, **changes: str) -> str:
            draft = previewed(user, owning, "set_autovacuum", table=of, **changes)
            return str(draft.preview["refused"])

        assert "Set now: autovacuum_enabled = false" in refused(name)
        assert "has no TOAST table" in refused(name, **{"toast.autovacuum_enabled": "false"})
        assert "is partitioned" in refused(f"{name}_p", fillfactor="80")
        newest = refused(name, autovacuum_vacuum_max_threshold="1000")
        assert ("which has no autovacuum_vacuum_max_threshold (PostgreSQL 18)" in newest) == (
            server.major < 18
        )
    finally:
        with server.connect(dbname="shop") as connection:
            connection.execute(sql.SQL("DROP TABLE {}").format(relation(f"{name}_p")))


@pytest.mark.pg(">=18")  # it takes its time
def test_it_tries_again_and_names_who_holds_the_lock(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    requested: Callable[..., Action],
    live: Callable[..., psycopg.Connection[Any]],
) -> None:
    name, user = table(server), person("dba")
    row = requested(user, owning, "set_autovacuum", table=name, fillfactor="80")
    holder = live(server, user="owner", dbname="shop", autocommit=False, application_name="ddl")
    holder.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(relation(name)))
    since, started = server.log_size(), time.monotonic()

    perform.perform(str(row.pk))
    row.refresh_from_db()

    assert row.state == "failed"
    assert "was not free within 5 times 2 s: pid" in row.outcome
    assert "(ddl)" in row.outcome
    assert time.monotonic() - started < 20
    assert server.log_text(since=since).count(": ALTER TABLE") == 5
    assert row.inverse == {}


def test_switching_it_off_asks_for_a_confirmation(person: Callable[..., User]) -> None:
    asked = {"database": "shop", "relid": "1"}

    assert ACTION.given(ACTION.clean({**asked, "autovacuum_enabled": "off"})).destructive
    assert ACTION.given(ACTION.clean({**asked, "toast.autovacuum_enabled": "0"})).destructive
    assert not ACTION.given(ACTION.clean({**asked, "autovacuum_enabled": "on"})).destructive
    assert not ACTION.given(ACTION.clean({**asked, "autovacuum_enabled": "reset"})).destructive


@pytest.mark.parametrize("change", ["DROP TABLE {}", "ALTER TABLE {} RENAME TO gone_elsewhere"])
def test_a_table_that_is_gone_or_changed_is_left_alone(
    server: Server,
    owning: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    requested: Callable[..., Action],
    change: str,
) -> None:
    name, user = table(server), person("dba")
    row = requested(user, owning, "set_autovacuum", table=name, fillfactor="80")
    with server.connect(dbname="shop") as connection:
        connection.execute(sql.SQL(change).format(relation(name)))
        try:
            perform.perform(str(row.pk))
        finally:
            connection.execute("DROP TABLE IF EXISTS gone_elsewhere")
    row.refresh_from_db()

    assert row.state == "skipped"
    assert "Nothing was sent" in row.outcome
