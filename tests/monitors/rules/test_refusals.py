"""What clients are told when no connection is left, asked of a server of each version that is full."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql

from monitors.rules.refusals import (
    FOR_SUPERUSERS_14,
    FOR_SUPERUSERS_16,
    RESERVED_MAJOR,
    TOO_MANY,
    database_full,
    pool_exhausted,
    role_full,
    slots_taken,
)
from tests import servers
from tests.conftest import missing
from tests.servers import Server


def refusal(server: Server, **login: str) -> str:
    """Return what a login is told that gets no connection, '' where it gets one."""
    try:
        server.connect(**login).close()
    except psycopg.OperationalError as error:
        return f"FATAL:  {str(error).rpartition('FATAL:  ')[2].strip()}"
    return ""


def hold(stack: ExitStack, server: Server, user: str) -> bool:
    """Keep one more session of a user; a backend that was just refused may hold its slot yet."""
    try:
        stack.enter_context(server.connect(user=user))
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("major", servers.MAJORS)
def test_a_full_server_says_what_is_expected_of_its_version(major, eventually):
    try:
        programs = servers.fleet_programs(major)
    except servers.Missing as error:
        missing(str(error))
        raise
    kept = 1 if major >= RESERVED_MAJOR else 0
    usual = {"max_connections": "8", "superuser_reserved_connections": "3"}
    if kept:
        usual["reserved_connections"] = "1"
    with ExitStack() as stack:
        folder = stack.enter_context(servers.home())
        _, server = stack.enter_context(servers.stoppable(major, programs, folder, **usual))
        first = stack.enter_context(server.connect())
        first.execute("CREATE DATABASE narrow CONNECTION LIMIT 0")
        none = sql.SQL("CREATE ROLE nobody LOGIN CONNECTION LIMIT 0 PASSWORD {}")
        first.execute(none.format(sql.Literal(server.password)))
        of_role = role_full("nobody"), {"user": "nobody"}
        of_database = database_full("narrow"), {"user": "owner", "dbname": "narrow"}

        for text, login in (of_role, of_database):
            eventually(lambda text=text, login=login: refusal(server, **login) == text)

        for _ in range(8 - 1 - 3 - kept):
            eventually(lambda: hold(stack, server, "owner"))
        told, in_a_rush = slots_taken(major, 3 + kept, kept)
        eventually(lambda: refusal(server, user="owner") == told)
        assert in_a_rush == TOO_MANY

        if kept:
            first.execute("GRANT pg_use_reserved_connections TO collector")
            eventually(lambda: hold(stack, server, "collector"))
        told = FOR_SUPERUSERS_16 if major >= RESERVED_MAJOR else FOR_SUPERUSERS_14
        eventually(lambda: refusal(server, user="collector") == told)
        assert slots_taken(major, 3)[0] == told

        for _ in range(3):
            eventually(lambda: hold(stack, server, "postgres"))
        assert refusal(server, user="owner") == refusal(server) == TOO_MANY
        assert slots_taken(major, 0) == (TOO_MANY,)


def test_where_the_version_is_not_known_all_wordings_are_told():
    assert slots_taken(None, 3) == (FOR_SUPERUSERS_16, FOR_SUPERUSERS_14, TOO_MANY)


def test_a_pool_says_its_sizes_and_how_long_it_waited():
    assert pool_exhausted(25, 10) == (
        "QueuePool limit of size 25 overflow 10 reached, connection timed out, timeout 30.00"
    )
