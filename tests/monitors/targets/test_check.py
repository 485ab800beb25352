"""What works on a target, and the statement that makes the rest work."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.actions import ACTIONS, actions_of
from monitors.kinds import POSTGRES
from monitors.models import Target, TargetCheck
from monitors.probes import probes_of
from monitors.targets import check, drafts
from monitors.targets.check import CheckFailed
from tests.servers import Server

pytestmark = pytest.mark.django_db

Watch = Callable[..., Target]


@pytest.fixture
def bare(server: Server, worker_id: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"bare_{worker_id}_{secrets.token_hex(3)}"
    with server.connect() as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(name), server.password
            )
        )
        yield name
        with server.connect(dbname="shop") as shop:
            shop.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def orders(server: Server, bare: str) -> Iterator[str]:
    """A database with one table of `owner`, and with nothing that other tests left."""
    name = f"{bare}_orders"
    database = sql.Identifier(name)
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER owner").format(database))
        try:
            with server.connect(dbname=name) as inside:
                inside.execute("CREATE EXTENSION pg_stat_statements")
                inside.execute("CREATE TABLE public.kept (id int)")
                inside.execute("ALTER TABLE public.kept OWNER TO owner")
            yield name
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


def works(result: dict[str, Any], kind: str) -> dict[str, bool]:
    return {row["name"]: row["works"] for row in result[kind]}


def check_as(server: Server, target: Target) -> dict[str, Any]:
    return check.check(target, {"collector": server.password, "operator": server.password})


def test_it_says_what_the_server_is_and_that_all_works(
    server: Server, watch: Watch, orders: str
) -> None:
    with server.connect(dbname=orders) as inside:
        inside.execute("GRANT SELECT ON public.kept TO collector")
    target = watch(server, operator_user="operator", dbname=orders, include=[orders])
    result = check_as(server, target)

    assert result["version"] // 10000 == server.major
    assert result["in_recovery"] is False
    assert result["system_identifier"].isdigit()
    assert result["databases"] == [orders]
    assert works(result, "probes") == {probe.name: True for probe in probes_of(POSTGRES)}
    assert {name for name, ok in works(result, "actions").items() if ok} >= {
        "cancel_backend",
        "terminate_backend",
    }
    json.dumps(result)


def test_each_missing_right_is_named_with_its_statement(
    server: Server, watch: Watch, bare: str, orders: str
) -> None:
    target = watch(server, user=bare, operator_user=bare, dbname=orders, include=[orders])
    result = check_as(server, target)

    needs = {row["name"]: row["needs"] for row in [*result["probes"], *result["actions"]]}
    assert needs["activity"] == f"GRANT pg_monitor TO {bare};"
    assert needs["cancel_backend"] == f"GRANT pg_signal_backend, pg_read_all_stats TO {bare};"
    if server.major >= 17:
        assert needs["vacuum"] == f"GRANT pg_maintain TO {bare};"
    else:
        assert needs["vacuum"].startswith("GRANT owner")
    assert needs["set_autovacuum"].startswith("GRANT owner")  # also where there is pg_maintain
    assert needs["reset_statements"] == (
        f"GRANT EXECUTE ON FUNCTION public.pg_stat_statements_reset TO {bare};"
    )
    assert needs["statements"] == f"GRANT pg_monitor TO {bare};"
    assert needs["create_extension"] == "CREATE EXTENSION pgstattuple;"
    assert needs["measure_bloat"] == "CREATE EXTENSION pgstattuple;"
    assert needs["bloat"] == f"GRANT pg_read_all_data TO {bare};"
    # What asks for itself (`needs`) may find nothing here that it lacks a right to.
    working = {name for name, ok in works(result, "actions").items() if ok}
    assert {name for name in working if ACTIONS[name].right} == set()


def test_the_statements_that_it_names_do_help(
    server: Server, watch: Watch, bare: str, orders: str
) -> None:
    target = watch(server, user=bare, operator_user=bare, dbname=orders, include=[orders])
    newer = {spec.name for spec in actions_of(POSTGRES).values() if spec.since > server.major}
    done: set[str] = set()
    with server.connect(dbname=orders) as superuser:
        for _ in range(2):  # what an extension needs is known once it is there
            result = check_as(server, target)
            needs = {
                row["needs"]
                for kind in ("probes", "actions")
                for row in result[kind]
                if row["name"] not in newer
            }
            for statement in sorted(needs - done - {""}):
                superuser.execute(statement)
                done.add(statement)
        result = check_as(server, target)

    assert set(works(result, "probes").values()) == {True}
    assert works(result, "actions") == {name: name not in newer for name in actions_of(POSTGRES)}


def test_a_login_whose_password_never_expires_is_checked(
    server: Server, watch: Watch, bare: str
) -> None:
    """`VALID UNTIL 'infinity'` is what provisioning tools write, and no time that Python has."""
    with server.connect() as superuser:
        superuser.execute(
            sql.SQL("ALTER ROLE {} VALID UNTIL 'infinity'").format(sql.Identifier(bare))
        )

    assert check_as(server, watch(server, user=bare))["version"] // 10000 == server.major


OWNERS = ("member", "stranger", "superuser", "database", "maintainer")
STATEMENTS = {
    "vacuum": "VACUUM {table}",
    "vacuum_full": "VACUUM (FULL) {table}",
    "analyze": "ANALYZE {table}",
    "reindex": "REINDEX TABLE {table}",
    "cluster": "CLUSTER {table} USING kept_pkey",
    "set_autovacuum": "ALTER TABLE {table} SET (autovacuum_enabled = true)",
    "drop_leftover_index": "DROP INDEX {schema}.kept_note",
}
"""What an action sends, on a table that the operator finds by its owner's kind."""


@pytest.mark.fleet
@pytest.mark.parametrize("kind", OWNERS)
def test_an_action_works_where_the_server_lets_it(
    server: Server, watch: Watch, bare: str, kind: str
) -> None:
    other, database = f"{bare}_other", f"{bare}_db"
    if kind == "maintainer" and server.major < 17:
        pytest.skip("pg_maintain came with PostgreSQL 17")
    owner = {"superuser": "postgres"}.get(kind, other)
    with server.connect() as setup:
        setup.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(other)))
        setup.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        if kind == "member":
            grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(other), sql.Identifier(bare))
            setup.execute(grant)
        if kind == "maintainer":
            setup.execute(sql.SQL("GRANT pg_maintain TO {}").format(sql.Identifier(bare)))
        if kind == "database":
            setup.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                    sql.Identifier(database), sql.Identifier(bare)
                )
            )
    try:
        with server.connect(dbname=database) as setup:
            setup.execute("CREATE SCHEMA kept")
            setup.execute(sql.SQL("GRANT USAGE ON SCHEMA kept TO {}").format(sql.Identifier(bare)))
            setup.execute("CREATE TABLE kept.kept (id int PRIMARY KEY, note text)")
            setup.execute("CREATE INDEX kept_note ON kept.kept (note)")
            setup.execute(
                sql.SQL("ALTER TABLE kept.kept OWNER TO {}").format(sql.Identifier(owner))
            )
            setup.execute(
                sql.SQL("GRANT CREATE ON SCHEMA kept TO {}").format(sql.Identifier(other))
            )
        target = watch(server, user=bare, operator_user=bare, dbname=database, include=[database])

        said = works(check_as(server, target), "actions")

        let = {name: accepts(server, bare, database, text) for name, text in STATEMENTS.items()}
        if server.major >= 17 and kind == "database":
            # One that owns the database may vacuum; for all else pg_maintain is asked for.
            assert let["vacuum"]
        assert {name: said[name] for name in STATEMENTS} == let
    finally:
        with server.connect() as cleanup:
            cleanup.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database))
            )
            cleanup.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(other)))


def accepts(server: Server, user: str, database: str, text: str) -> bool:
    """Return whether the server does what a login asks for, without an error or a warning."""
    said: list[str] = []
    with server.connect(user=user, dbname=database) as session:
        session.add_notice_handler(lambda notice: said.append(notice.severity_nonlocalized or ""))
        try:
            session.execute(text.format(table="kept.kept", schema="kept"))
        except psycopg.errors.InsufficientPrivilege:
            return False
    return "WARNING" not in said


def test_an_extension_is_installed_by_who_may(server: Server, watch: Watch, bare: str) -> None:
    plain = works(check_as(server, watch(server, operator_user=bare)), "actions")
    Target.objects.all().delete()
    superuser = watch(server, operator_user="postgres", allow_superuser=True)

    assert not plain["create_extension"]
    assert works(check_as(server, superuser), "actions")["create_extension"]


def test_a_database_that_can_not_be_entered_costs_the_check_a_warning(
    server: Server, watch: Watch, bare: str
) -> None:
    closed = f"{bare}_shut"
    with server.connect() as setup:
        setup.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(closed)))
        setup.execute(
            sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(sql.Identifier(closed))
        )
        try:
            target = watch(server, operator_user="operator", include=[closed, "shop"])
            result = check_as(server, target)
        finally:
            setup.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(closed)))

    assert works(result, "actions")["cancel_backend"]
    assert [said for said in result["warnings"] if closed in said] == [
        f"No statistics of {closed}: The database's own CONNECTION LIMIT lets no further session in:"
        f" ALTER DATABASE {closed} CONNECTION LIMIT -1;"
    ]


def test_without_an_operator_no_action_works(server: Server, watch: Watch) -> None:
    result = check_as(server, watch(server))

    assert works(result, "actions") == dict.fromkeys(actions_of(POSTGRES), False)
    assert {row["needs"] for row in result["actions"]} == {"Give the target an operator login."}


def test_a_superuser_is_warned_of_and_refused_as_operator(server: Server, watch: Watch) -> None:
    result = check_as(server, watch(server, user="postgres", operator_user="postgres"))

    assert any("only pg_monitor" in text for text in result["warnings"])
    assert set(works(result, "actions").values()) == {False}


def test_a_login_that_fails_says_why(server: Server, watch: Watch) -> None:
    target = watch(server)

    with pytest.raises(CheckFailed, match="Password authentication failed"):
        check.check(target, {"collector": "wrong"})


def test_a_worker_answers_a_check_once_and_forgets_its_passwords(
    server: Server, person: Callable[..., User]
) -> None:
    draft = {"host": server.host, "port": server.port, "user": "collector", "sslmode": "disable"}
    row = drafts.ask_check(person("admin"), draft=draft, passwords={"collector": server.password})

    check.carry_out(str(row.pk))
    check.carry_out(str(row.pk))

    row = TargetCheck.objects.get(pk=row.pk)
    assert row.error == ""
    assert row.result["version"] // 10000 == server.major
    assert row.sealed == {"collector": ""}
    assert row.done_at


def test_a_stored_password_never_goes_to_another_address(
    server: Server, watch: Watch, person: Callable[..., User]
) -> None:
    """DR-04: a check with a changed address needs the password again."""
    target = watch(server)
    draft = {"host": server.host, "port": server.port, "user": "collector", "sslmode": "disable"}
    user = person("admin")
    same = drafts.ask_check(user, target=target, draft=draft)
    for change in ({"sslmode": "prefer"}, {"host": "127.0.0.2"}, {"require_auth": "password"}):
        moved = drafts.ask_check(user, target=target, draft={**draft, **change})

        assert check.subject_of(moved)[1] == {}

    assert check.subject_of(same)[1] == {"collector": server.password}
