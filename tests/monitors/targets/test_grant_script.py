"""The grant script of each version runs there and is enough."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import pytest
from psycopg import sql

from monitors.pg import rights
from monitors.targets.grant_script import grant_script
from tests.servers import Server


@pytest.fixture
def names(server: Server, worker_id: str) -> Iterator[tuple[str, str]]:
    suffix = f"{worker_id}-{secrets.token_hex(3)}"  # a hyphen: they must be quoted
    pair = (f"c {suffix}", f"o {suffix}")
    yield pair
    with server.connect() as connection:
        for name in pair:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_the_script_runs_and_gives_just_the_rights(server: Server, names: tuple[str, str]) -> None:
    collector, operator = names
    script = grant_script(server.major, collector=collector, operator=operator, databases=["shop"])
    with server.connect() as superuser:
        for statement in script.splitlines():
            if not statement.startswith(("--", "\\")):
                superuser.execute(statement)
        for name in names:
            superuser.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), server.password)
            )

    with server.connect(user=collector) as connection:
        reading = rights.read_rights(connection)
    with server.connect(user=operator, dbname="shop") as connection:
        acting = rights.read_rights(connection)

    assert reading.has("pg_monitor")
    assert not reading.has("pg_signal_backend")
    assert not reading.has("pg_maintain")
    assert reading.connection_limit == 5
    assert acting.has("pg_signal_backend")
    assert acting.has("pg_read_all_stats")
    assert acting.has("pg_maintain") == (server.major >= 17)


def test_one_login_for_both_gets_both() -> None:
    script = grant_script(18, collector="howdah", operator="howdah")

    assert len(re.findall("CREATE ROLE", script)) == 1
    assert "GRANT pg_monitor TO howdah;" in script
    assert "GRANT pg_maintain TO howdah;" in script


def test_without_an_operator_nothing_may_be_done() -> None:
    script = grant_script(18, collector="howdah")

    assert "signal" not in script
    assert "maintain" not in script


def test_it_holds_no_password() -> None:
    assert "PASSWORD" not in grant_script(18, collector="c", operator="o")
