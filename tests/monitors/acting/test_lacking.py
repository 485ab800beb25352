"""What is refused names the right that is missing, never one that is there: proven by the server."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.acting import ask, perform
from monitors.models import Action, Target
from monitors.targets import check, survey
from tests.servers import Server

pytestmark = pytest.mark.django_db

Asked = Callable[..., Action]
Person = Callable[..., User]
Watch = Callable[..., Target]
Times = Callable[[int], dict[str, str]]
MAINTENANCE = ("vacuum", "analyze", "reindex", "vacuum_full", "cluster")
IN_SCHEMA = {
    "vacuum": "VACUUM {}.secret",
    "analyze": "ANALYZE {}.secret",
    "reindex": "REINDEX TABLE {}.secret",
    "vacuum_full": "VACUUM FULL {}.secret",
    "cluster": "CLUSTER {}.secret USING secret_pkey",
}


@pytest.fixture
def closed(server: Server, worker_id: str) -> Iterator[str]:
    """A schema of shop that only its owner may use, with a table `secret` of `owner`."""
    name = f"closed_{worker_id}_{secrets.token_hex(3)}"
    with server.connect(dbname="shop") as setup:
        setup.execute(f"CREATE SCHEMA {name}")
        setup.execute(f"CREATE TABLE {name}.secret (id int PRIMARY KEY)")
        setup.execute(f"ALTER TABLE {name}.secret OWNER TO owner")
        yield name
        setup.execute(f"DROP SCHEMA {name} CASCADE")


@contextmanager
def revoked(server: Server, right: str, dbname: str = "postgres") -> Iterator[None]:
    """Take a right away from all in a database, for as long as the context lasts."""
    with server.connect(dbname=dbname) as setup:
        setup.execute(f"REVOKE {right} FROM PUBLIC, pg_monitor, pg_read_all_settings")
        try:
            yield
        finally:
            setup.execute(f"GRANT {right} TO PUBLIC")


@contextmanager
def set_for(server: Server, whose: str, setting: str) -> Iterator[None]:
    """Give a role a setting, for as long as the context lasts."""
    with server.connect() as setup:
        setup.execute(f"ALTER ROLE {whose} SET {setting}")
        try:
            yield
        finally:
            setup.execute(f"ALTER ROLE {whose} RESET ALL")


def actions(server: Server, target: Target) -> dict[str, dict[str, Any]]:
    """Check a target; return what is said of its actions, by name."""
    result = check.check(target, {"collector": server.password, "operator": server.password})
    return {row["name"]: row for row in result["actions"]}


def refused_by(server: Server, user: str, text: str) -> str:
    """Return how the server refuses a statement in shop, '' where it does what is asked."""
    said: list[str] = []
    with server.connect(user=user, dbname="shop") as session:
        session.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        try:
            session.execute(text)
        except psycopg.errors.InsufficientPrivilege as error:
            return str(error)
    return " ".join(said)


def test_a_schema_that_may_not_be_used_costs_what_names_its_tables(
    server: Server, watch: Watch, closed: str
) -> None:
    target = watch(server, operator_user="operator")
    grant = f"GRANT USAGE ON SCHEMA {closed} TO operator;"

    said = actions(server, target)
    refusals = {
        name: refused_by(server, "operator", IN_SCHEMA[name].format(closed)) for name in IN_SCHEMA
    }
    with server.connect(dbname="shop") as superuser:
        superuser.execute(grant)
    after = actions(server, target)
    left = {
        name: refused_by(server, "operator", IN_SCHEMA[name].format(closed)) for name in IN_SCHEMA
    }

    assert all(f"permission denied for schema {closed}" in text for text in refusals.values())
    for name in MAINTENANCE:
        assert said[name]["needs"] == f"In the database shop: {grant}"
        assert after[name]["works"]
    assert set(left.values()) == {""}


@pytest.mark.parametrize("by", ["table", "relid"])
def test_an_action_in_such_a_schema_names_the_grant_that_helps(
    server: Server, watch: Watch, person: Person, previewed: Asked, closed: str, by: str
) -> None:
    with server.connect(dbname="shop") as setup:
        row = setup.execute("SELECT %s::regclass::oid::text", [f"{closed}.secret"]).fetchone()
    assert row is not None
    which = {"table": f"{closed}.secret", "relid": row[0]}[by]

    draft = previewed(
        person("dba"), watch(server, operator_user="operator"), "vacuum", **{by: which}
    )

    refused = draft.preview["refused"]
    assert refused.endswith(f"In the database shop: GRANT USAGE ON SCHEMA {closed} TO operator;")
    assert "no table's name" not in refused
    assert "pg_maintain" not in refused


CLOSED_TO_SIGNALS = (
    ("EXECUTE ON FUNCTION pg_cancel_backend(integer)", True),
    ("EXECUTE ON FUNCTION pg_blocking_pids(integer)", True),
    ("SELECT ON pg_stat_activity", False),
    ("SELECT ON pg_roles", False),
)


@pytest.mark.parametrize(("right", "function"), CLOSED_TO_SIGNALS)
def test_a_cancel_names_the_object_that_is_closed_not_a_right_that_is_there(  # noqa: PLR0917 - fixtures
    server: Server,
    watch: Watch,
    person: Person,
    live: Callable[..., psycopg.Connection[Any]],
    background: Callable[..., threading.Thread],
    active: Times,
    right: str,
    function: bool,
) -> None:
    target = watch(server, operator_user="operator")
    victim = live(server, dbname="shop", user="owner")
    background(victim, "SELECT pg_sleep(60)")
    arguments = active(victim.info.backend_pid)

    with revoked(server, right):
        said = actions(server, target)["cancel_backend"]
        row = signalled(person("operator"), target, arguments)
    again = signalled(person("operator"), target, arguments)

    grant = f"In the database postgres: GRANT {right} TO operator;"
    assert (row.state, again.state) == ("failed", "succeeded")
    assert grant in row.outcome
    assert "pg_signal_backend" not in row.outcome
    assert not said["works"]
    assert grant in said["needs"]


def signalled(user: User, target: Target, arguments: dict[str, str]) -> Action:
    """Ask for a cancel and perform it."""
    row = ask.ask(user, target, "cancel_backend", arguments, source="test")
    perform.perform(str(row.pk))
    row.refresh_from_db()
    return row


def test_a_member_of_the_backends_role_may_cancel_it(
    server: Server,
    watch: Watch,
    person: Person,
    live: Callable[..., psycopg.Connection[Any]],
    background: Callable[..., threading.Thread],
    active: Times,
) -> None:
    victim = live(server, dbname="shop", user="owner")
    stranger = live(server, dbname="shop", user="collector")
    background(victim, "SELECT pg_sleep(60)")
    background(stranger, "SELECT pg_sleep(60)")
    with server.connect() as superuser:
        superuser.execute("REVOKE pg_signal_backend FROM operator")
        superuser.execute("GRANT owner TO operator")
        try:
            target = watch(server, operator_user="operator")
            row = signalled(person("operator"), target, active(victim.info.backend_pid))
            other = signalled(person("operator"), target, active(stranger.info.backend_pid))
        finally:
            superuser.execute("GRANT pg_signal_backend TO operator")
            if server.major >= 17:
                superuser.execute("REVOKE owner FROM operator")

    assert row.state == "succeeded"
    assert other.state == "refused"
    assert other.outcome.endswith("GRANT pg_signal_backend TO operator;")


@pytest.fixture
def heir(server: Server, worker_id: str) -> Iterator[str]:
    """A login that is a member of what an operator needs and inherits nothing of it."""
    name = f"heir_{worker_id}_{secrets.token_hex(3)}"
    roles = ["pg_monitor", "pg_signal_backend", "owner"] + ["pg_maintain"] * (server.major >= 17)
    inherits = " WITH INHERIT FALSE" if server.major >= 16 else ""
    with server.connect() as setup:
        made = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
        inherit = sql.SQL("" if inherits else "NOINHERIT")
        setup.execute(made.format(sql.Identifier(name), inherit, server.password))
        setup.execute(f"GRANT {', '.join(roles)} TO {name}{inherits}")
        yield name
        setup.execute(f"DROP OWNED BY {name}")
        setup.execute(f"DROP ROLE {name}")


def test_who_inherits_nothing_is_told_how_to_inherit(
    server: Server, watch: Watch, person: Person, table: Callable[..., str], done: Asked, heir: str
) -> None:
    name, target = table(server), watch(server, operator_user=heir)
    said = actions(server, target)
    with server.connect() as superuser:
        superuser.execute("GRANT pg_read_all_stats TO " + heir)
    row = done(person("dba"), target, "vacuum", table=name)
    before = refused_by(server, heir, f"VACUUM {name}")

    with server.connect() as superuser:
        for one in ("vacuum", "set_autovacuum", "cancel_backend"):
            superuser.execute(said[one]["needs"])
    after = actions(server, target)

    role = "pg_maintain" if server.major >= 17 else "owner"
    helps = (
        f"GRANT {role} TO {heir} WITH INHERIT TRUE"
        if server.major >= 16
        else f"ALTER ROLE {heir} INHERIT"
    )
    assert before
    assert row.state == "skipped"
    assert row.outcome.endswith(f"Run: {helps}.")
    assert said["vacuum"]["needs"] == f"{helps};"
    assert all(after[one]["works"] for one in ("vacuum", "set_autovacuum", "cancel_backend"))
    assert refused_by(server, heir, f"VACUUM {name}") == ""


@pytest.mark.parametrize("dbname", ["postgres", "shop"])
def test_where_nobody_can_tell_which_server_it_is_no_action_works(
    server: Server, watch: Watch, dbname: str
) -> None:
    right = "EXECUTE ON FUNCTION pg_control_system()"
    with revoked(server, right, dbname):
        said = actions(server, watch(server, operator_user="operator"))

    of_database = {name for name in said if name.endswith("_backend")}
    refused = {
        name for name, one in said.items() if f"database {dbname}: GRANT {right}" in one["needs"]
    }
    assert not any(said[name]["works"] for name in refused)
    if dbname == "postgres":
        assert of_database <= refused
    else:
        assert set(MAINTENANCE) <= refused
        assert not refused & of_database


def test_what_may_not_write_is_told_by_the_check(
    server: Server, watch: Watch, person: Person, table: Callable[..., str], done: Asked
) -> None:
    name, target = table(server), watch(server, operator_user="operator")
    with server.connect() as superuser:
        superuser.execute("GRANT owner TO operator")
    try:
        with set_for(server, "operator", "default_transaction_read_only = on"):
            said = actions(server, target)
            row = done(person("dba"), target, "set_autovacuum", table=name, fillfactor="80")
            vacuum = done(person("dba"), target, "vacuum", table=name)
        after = actions(server, target)
    finally:
        if server.major >= 17:
            with server.connect() as superuser:
                superuser.execute("REVOKE owner FROM operator")

    reset = "ALTER ROLE operator RESET default_transaction_read_only;"
    assert (row.state, vacuum.state) == ("failed", "succeeded")
    assert said["set_autovacuum"]["needs"] == said["drop_leftover_index"]["needs"] == reset
    assert said["vacuum"]["works"]
    assert after["set_autovacuum"]["works"]


def test_signals_need_no_statistics_of_their_own(
    server: Server,
    watch: Watch,
    person: Person,
    live: Callable[..., psycopg.Connection[Any]],
    background: Callable[..., threading.Thread],
    active: Times,
) -> None:
    victim = live(server, dbname="shop", user="owner")
    background(victim, "SELECT pg_sleep(60)")
    target = watch(server, operator_user="operator")
    with set_for(server, "operator", "track_counts = off"):
        said = actions(server, target)
        row = signalled(person("operator"), target, active(victim.info.backend_pid))

    assert row.state == "succeeded"
    assert said["cancel_backend"]["works"]
    assert said["terminate_backend"]["works"]
    assert said["vacuum"]["needs"].startswith("track_counts is off for this login alone")


VIEWS = ("pg_settings", "pg_locks", "pg_roles", "pg_extension")


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_that_may_not_be_read_costs_what_needs_it_alone(
    server: Server, watch: Watch, view: str
) -> None:
    target = watch(server, operator_user="operator")
    passwords = {"collector": server.password, "operator": server.password}
    with revoked(server, f"SELECT ON {view}"), revoked(server, f"SELECT ON {view}", "shop"):
        result = check.check(target, passwords)

    grant = f"GRANT SELECT ON {view} TO "
    said = {row["name"]: row for row in [*result["probes"], *result["actions"]]}
    assert any(f"{grant}collector;" in text for text in result["warnings"])
    assert said["sessions"]["works"]
    needs = {
        "pg_settings": "set_autovacuum",
        "pg_locks": "vacuum",
        "pg_roles": "cancel_backend",
        "pg_extension": "reset_statements",
    }[view]
    assert (
        f"In the database {'postgres' if view == 'pg_roles' else 'shop'}: {grant}operator;"
        in said[needs]["needs"]
    )
    assert said["cancel_backend"]["works"] == (view != "pg_roles")


@pytest.mark.parametrize("view", ["pg_locks", "pg_roles"])
def test_a_preview_that_may_not_look_names_the_grant(
    server: Server,
    watch: Watch,
    person: Person,
    table: Callable[..., str],
    previewed: Asked,
    view: str,
) -> None:
    name, target = table(server), watch(server, operator_user="operator")
    with revoked(server, f"SELECT ON {view}", "shop"):
        draft = previewed(person("dba"), target, "vacuum", table=name)

    assert draft.preview["refused"].endswith(
        f"In the database shop: GRANT SELECT ON {view} TO operator;"
    )


def test_databases_that_are_not_looked_at_are_counted(
    server: Server, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = watch(server, operator_user="operator", include=["postgres", "shop"])
    passwords = {"collector": server.password, "operator": server.password}
    whole = check.check(target, passwords)["warnings"]
    monkeypatch.setattr(survey, "DATABASES_AT_MOST", 1)

    said = check.check(target, passwords)["warnings"]

    assert not any("not looked at" in text for text in whole)
    assert "Of the databases that are read 1 was not looked at: a check enters 1." in said
