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

from monitors import perform, run
from monitors.models import Action, Target
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


def signalled(user: User, target: Target, arguments: dict[str, str]) -> Action:
    """Ask for a cancel and perform it."""
    row = run.ask(user, target, "cancel_backend", arguments, source="test")
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


VIEWS = ("pg_settings", "pg_locks", "pg_roles", "pg_extension")


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
