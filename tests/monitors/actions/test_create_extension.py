"""Installing pg_stat_statements: refused with the next step, or done and read at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from psycopg import sql

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster, embedded_programs
from monitors.action import Changed, InvalidArguments, Refused
from monitors.actions.create_extension import ACTION, Facts, preload, reason_not_to_create
from monitors.models import Action, ProbeState, Target
from monitors.people import access
from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.django_db

Session = psycopg.Connection[Any]
FACTS = Facts(
    version="1.11",
    superuser_only=True,
    superuser=True,
    rolname="postgres",
    database="shop",
    loaded=True,
    libraries="pg_stat_statements",
    pending_restart=False,
)
STATEMENT = 'CREATE EXTENSION "pg_stat_statements" WITH SCHEMA "public"'


@pytest.fixture
def empty(server: Server, worker_id: str) -> Iterator[str]:
    """A database without the extension, owned by the operator."""
    name = f"bare_{worker_id}_{secrets.token_hex(3)}"
    with server.connect() as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER operator").format(sql.Identifier(name))
        )
        yield name
        connection.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def unloaded() -> Iterator[Server]:
    """A server that does not load the library."""
    others = {**servers.SETTINGS, "shared_preload_libraries": "auto_explain"}
    with servers.home() as folder:
        cluster = Cluster("unloaded", folder / "unloaded", embedded_programs(), "own", others)
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        try:
            cluster.wait()
            servers.create_roles(cluster, 18)
            with cluster.connect(dbname="shop") as connection:
                connection.execute("DROP EXTENSION pg_stat_statements")
            yield Server(18, cluster.port, cluster.password, str(cluster.log))
        finally:
            cluster.stop()


def guard(server: Server, user: str, dbname: str) -> Any:
    cleaned = ACTION.clean({"database": dbname})
    with server.connect(user=user, dbname=dbname) as connection:
        connection.execute("SET search_path = ''")
        return ACTION.guard(connection, cleaned, ACTION.resolve(connection, cleaned))


def test_only_a_dba_may(db: None) -> None:
    assert {str(role) for role, names in access.ROLES.items() if ACTION.name in names} == {"dba"}


def test_no_other_extension_is_installed() -> None:
    with pytest.raises(InvalidArguments, match="Only pg_stat_statements"):
        ACTION.clean({"database": "shop", "extension": "plpython3u"})


def test_a_superuser_installs_it_and_it_is_read_at_once(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    empty: str,
    previewed: Callable[..., Action],
    done: Callable[..., Action],
) -> None:
    target = watch(
        server, dbname=empty, include=[empty], operator_user="postgres", allow_superuser=True
    )
    user = person("dba")

    preview = previewed(user, target, ACTION.name, database=empty).preview
    row = done(user, target, ACTION.name, database=empty)

    assert preview["sql"] == row.sql == STATEMENT
    assert "DROP EXTENSION pg_stat_statements" in dict(preview["facts"])["To undo"]
    assert row.state == "succeeded"
    assert row.effect == f"version {row.after['extension_version']} is installed"
    assert row.before == {"extension_version": ""}
    assert row.inverse == {}
    with server.connect(dbname=empty) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM public.pg_stat_statements").fetchone()
    assert ProbeState.objects.get(target=target, probe="statements").state == "ok"


def test_owning_the_database_is_not_enough(server: Server, empty: str) -> None:
    """It is not a trusted extension: the server would refuse too."""
    with pytest.raises(Refused, match="not a trusted extension") as refused:
        guard(server, "operator", empty)
    with (
        server.connect(user="operator", dbname=empty) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(STATEMENT)

    assert f"operator is none. Run as one, in {empty}: {STATEMENT};" in str(refused.value)


def test_what_is_installed_is_left_as_it_is(server: Server) -> None:
    with pytest.raises(Changed, match="is installed in shop already, in the schema public"):
        guard(server, "operator", "shop")


def test_a_schema_that_does_not_exist_is_named(server: Server, empty: str) -> None:
    cleaned = ACTION.clean({"database": empty, "schema": "nowhere"})
    with (
        server.connect(dbname=empty) as connection,
        pytest.raises(Refused, match="no schema nowhere"),
    ):
        ACTION.resolve(connection, cleaned)


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("postgres", "run ALTER SYSTEM SET shared_preload_libraries = 'auto_explain',"
         " 'pg_stat_statements'; and restart the server."),
        ("owner", "(and name in it what SHOW shared_preload_libraries; holds already)"),
    ],
)  # fmt: skip
def test_without_the_library_it_says_how_to_load_it(unloaded: Server, user: str, says: str) -> None:
    with pytest.raises(Refused, match="is not loaded") as refused:
        guard(unloaded, user, "shop")

    assert says in str(refused.value)


def test_the_statement_that_loads_it_is_right(unloaded: Server) -> None:
    """A list in one pair of quotes would be one library of a strange name: no start any more."""
    with unloaded.connect() as connection:
        connection.execute(preload("auto_explain", "pg_stat_statements"))
        try:
            row = connection.execute(
                "SELECT setting FROM pg_file_settings WHERE name = 'shared_preload_libraries'"
            ).fetchone()
        finally:
            connection.execute("ALTER SYSTEM RESET shared_preload_libraries")

    assert row == ("auto_explain, pg_stat_statements",)


def test_a_restart_that_is_due_is_told() -> None:
    waiting = replace(FACTS, loaded=False, pending_restart=True)

    assert reason_not_to_create(FACTS, "pg_stat_statements", STATEMENT) == ""
    assert "restart the server" in reason_not_to_create(waiting, "pg_stat_statements", STATEMENT)
    assert "ALTER SYSTEM" not in reason_not_to_create(waiting, "pg_stat_statements", STATEMENT)
