"""Resetting pg_stat_statements: the last numbers are kept, a mark says when."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.acting import ask, perform, preview
from monitors.action import Changed, InvalidArguments, Refused
from monitors.actions.reset_statements import ACTION
from monitors.collect import rounds
from monitors.models import HISTORY, Action, Mark, Snapshot, Target
from monitors.people import access
from tests.people import browser_of
from tests.servers import Server

pytestmark = pytest.mark.django_db

Session = psycopg.Connection[Any]
Asked = Callable[..., Action]
newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)
GRANT = "GRANT EXECUTE ON FUNCTION public.pg_stat_statements_reset TO operator"
REVOKE = "REVOKE EXECUTE ON FUNCTION public.pg_stat_statements_reset FROM operator"


@pytest.fixture
def permitted(server: Server) -> Iterator[None]:
    """The operator may reset, as long as the test lasts."""
    with server.connect(dbname="shop") as connection:
        connection.execute(GRANT)
        yield
        connection.execute(REVOKE)


@pytest.fixture
def target(server: Server, watch: Callable[..., Target]) -> Target:
    return watch(server, dbname="shop", operator_user="operator")


def statement_of(name: str) -> tuple[sql.Composed, str]:
    """Return a statement on a table of that name, and how the extension shows it.

    An alias would not do: statements that differ in it are one to the
    extension, which keeps the text that it saw first.
    """
    return sql.SQL("SELECT FROM {}").format(sql.Identifier(name)), f'SELECT FROM "{name}"'


def calls_of(target: Target, shown: str) -> int:
    """Return the calls of a statement that the history has counted."""
    samples = HISTORY["statements"].samples
    labels = HISTORY["statements"].latest
    keys: Any = labels._default_manager.filter(target_id=target.pk, query_hash=hashed(shown))
    ids = [row.queryid for row in keys]
    rows: Any = samples._default_manager.filter(target_id=target.pk, queryid__in=ids)
    return sum(row.calls or 0 for row in rows)


def hashed(text: str) -> str:
    import hashlib  # noqa: PLC0415

    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def counted(server: Server, shown: str) -> int:
    """Return the calls that the server counts."""
    with server.connect(dbname="shop") as connection:
        row = connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM public.pg_stat_statements WHERE query = %s",
            [shown],
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_only_a_dba_may_and_confirms(db: None) -> None:
    assert {str(role) for role, names in access.ROLES.items() if ACTION.name in names} == {"dba"}
    assert ACTION.destructive
    assert not ACTION.direct


def test_the_last_numbers_are_kept_and_the_reset_is_a_mark(
    server: Server,
    target: Target,
    person: Callable[..., User],
    requested: Asked,
    permitted: None,
    live: Callable[..., Session],
) -> None:
    """AC-20."""
    name = f"reset_{secrets.token_hex(6)}"
    statement, shown = statement_of(name)
    session = live(server, dbname="shop", prepare_threshold=None)
    session.execute(sql.SQL("CREATE TEMP TABLE {} ()").format(sql.Identifier(name)))
    session.execute(statement)
    rounds.take_now(target, ["statements"])  # known from now on; later calls are differences
    before = calls_of(target, shown)
    row = requested(person("dba"), target, "reset_statements")
    for _ in range(7):  # after the preview, never seen by a snapshot of the usual rhythm
        session.execute(statement)
    assert counted(server, shown) == 8
    taken = Snapshot.objects.count()
    since = server.log_size()

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "succeeded", row.outcome
    assert server.log_text(since=since).count("pg_stat_statements_reset(0::oid") == 1
    assert calls_of(target, shown) == before + 7
    assert counted(server, shown) == 0
    around = Snapshot.objects.order_by("taken_at")[taken:]
    assert [(found.probe, found.state) for found in around] == [("statements", "ok")] * 2
    assert row.started_at
    mark = Mark.objects.get(target=target, kind="reset")
    assert "pg_stat_statements were reset" in mark.text
    assert around[0].taken_at <= mark.at
    assert row.after["statement_count"] < row.before["statement_count"]
    for _ in range(3):
        session.execute(statement)
    rounds.take_now(target, ["statements"])
    assert calls_of(target, shown) == before + 7 + 3


@newest
def test_without_a_last_snapshot_nothing_is_sent(
    server: Server, target: Target, person: Callable[..., User], requested: Asked, permitted: None
) -> None:
    """AC-20: the collector can't log in any more."""
    row = requested(person("dba"), target, "reset_statements")
    target.targetsecret_set.filter(login="collector").delete()
    since = server.log_size()

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "refused"
    assert "no last snapshot could be stored" in row.outcome
    assert "pg_stat_statements_reset(" not in server.log_text(since=since)


def test_a_missing_right_is_refused_with_its_grant(
    server: Server, target: Target, person: Callable[..., User], previewed: Asked
) -> None:
    draft = previewed(person("dba"), target, "reset_statements")

    assert f"Run in shop: {GRANT};" in draft.preview["refused"]


@newest
def test_it_is_not_asked_for_without_a_confirmation(
    target: Target, person: Callable[..., User], previewed: Asked, permitted: None
) -> None:
    user = person("dba")
    draft = previewed(user, target, "reset_statements")

    with pytest.raises(InvalidArguments, match="Confirm"):
        ask.request(user, draft, confirmed=False, source="test")


@newest
def test_without_a_database_it_finds_the_one_that_has_it(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    permitted: None,
    worker_id: str,
) -> None:
    entry = f"entry_{worker_id}_{secrets.token_hex(3)}"
    name = sql.Identifier(entry)
    target = watch(server, dbname=entry, include=["shop"], operator_user="operator")
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            rounds.take_now(target, ["databases"])
            draft = ask.preview(person("dba"), target, "reset_statements", {}, source="test")
            preview.preview_now(str(draft.pk))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(name))
    draft.refresh_from_db()

    assert draft.preview["refused"] == ""
    assert draft.arguments == {"database": "shop"}


def test_where_it_is_not_installed_it_says_so(server: Server, worker_id: str) -> None:
    cleaned = ACTION.clean({"database": "template1"})
    with (
        server.connect(dbname="template1") as connection,
        pytest.raises(Refused, match="not installed in template1"),
    ):
        ACTION.resolve(connection, cleaned)


def test_another_version_than_asked_for_is_left_alone(server: Server) -> None:
    with server.connect(dbname="shop") as connection:
        found = ACTION.resolve(connection, {})

        with pytest.raises(Changed, match="updated meanwhile"):
            ACTION.guard(connection, {}, {**found, "version": "0.1"})
        assert ACTION.guard(connection, {}, found).warnings


@newest
def test_nobodys_function_of_the_same_name_is_called(
    server: Server, target: Target, person: Callable[..., User], done: Asked, permitted: None
) -> None:
    with server.connect(dbname="shop") as connection:
        for arguments in ("", "oid, oid, bigint"):
            connection.execute(
                sql.SQL(
                    "CREATE FUNCTION public.pg_stat_statements_reset({}) RETURNS void LANGUAGE"
                    " plpgsql AS 'BEGIN RAISE EXCEPTION ''caught''; END'"
                ).format(sql.SQL(arguments))
            )
        try:
            row = done(person("dba"), target, "reset_statements")
        finally:
            for arguments in ("", "oid, oid, bigint"):
                connection.execute(
                    sql.SQL("DROP FUNCTION public.pg_stat_statements_reset({})").format(
                        sql.SQL(arguments)
                    )
                )

    assert row.state == "succeeded", row.outcome


@newest
def test_the_page_wants_the_targets_name_typed(
    target: Target, person: Callable[..., User], previewed: Asked, permitted: None
) -> None:
    user = person("dba")
    draft = previewed(user, target, "reset_statements")
    browser = browser_of(user)
    url = f"/actions/{draft.pk}/"

    page = browser.get(url).content.decode()
    browser.post(f"{url}request/", {"confirm": "shop"})
    draft.refresh_from_db()
    wrong = draft.state
    browser.post(f"{url}request/", {"confirm": target.name})
    draft.refresh_from_db()

    assert "count from 0 again" in page
    assert f'data-confirm="{target.name}"' in page
    assert (wrong, draft.state) == ("draft", "queued")
