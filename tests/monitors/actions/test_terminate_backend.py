"""Terminate: the same statement, or the same idle transaction, and nobody else's session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from monitors.action import Changed, InvalidArguments, Refused
from monitors.actions.terminate_backend import ACTION
from tests.servers import Server

Session = psycopg.Connection[Any]
Times = Callable[[int], dict[str, str]]
MOMENT = "2026-01-01T00:00:00.000001Z"


def send(server: Server, arguments: dict[str, str]) -> Any:
    cleaned = ACTION.clean(arguments)
    with server.connect(user="operator") as connection:
        ACTION.guard(connection, cleaned, cleaned)
        return connection.execute(ACTION.statement(cleaned, cleaned, 180000)).fetchone()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"query_start": MOMENT, "xact_start": MOMENT, "state_change": MOMENT},
        {"xact_start": MOMENT},
        {"query_start": MOMENT, "state_change": MOMENT},
    ],
)
def test_it_needs_what_the_session_does_named_in_one_way(given: dict[str, str]) -> None:
    with pytest.raises(InvalidArguments, match="query_start"):
        ACTION.clean({"pid": "1", "backend_start": MOMENT, **given})


def test_it_ends_a_running_statement(
    server: Server, sleeping: Callable[..., Session], active: Times
) -> None:
    assert send(server, active(sleeping().info.backend_pid)) == (1, True)


def test_it_leaves_a_session_that_did_something_since(
    server: Server, live: Callable[..., Session], idle_in_transaction: Times
) -> None:
    session = live(server, user="owner", dbname="shop", autocommit=False)
    session.execute("SELECT 1")
    arguments = idle_in_transaction(session.info.backend_pid)
    session.execute("SELECT 2")

    with pytest.raises(Changed, match="no longer idle in that transaction"):
        send(server, arguments)

    assert session.execute("SELECT 3").fetchone() == (3,)


def idle_since(server: Server, pid: int) -> dict[str, str]:
    """Return the arguments that name an idle session."""
    with server.connect() as eye:
        while True:
            row = eye.execute(
                "SELECT pid::text, backend_start::text, state_change::text FROM pg_stat_activity"
                " WHERE pid = %s AND state = 'idle'",
                [pid],
            ).fetchone()
            if row:
                return dict(zip(("pid", "backend_start", "state_change"), row, strict=True))


def test_it_ends_an_idle_session(server: Server, live: Callable[..., Session]) -> None:
    session = live(server, user="owner", dbname="shop")
    session.execute("SELECT 1")

    assert send(server, idle_since(server, session.info.backend_pid)) == (1, True)


def test_it_leaves_an_idle_session_that_did_something_since(
    server: Server, live: Callable[..., Session]
) -> None:
    session = live(server, user="owner", dbname="shop")
    session.execute("SELECT 1")
    arguments = ACTION.clean(idle_since(server, session.info.backend_pid))
    session.execute("SELECT 2")
    idle_since(server, session.info.backend_pid)

    with pytest.raises(Changed, match="no longer idle"):
        send(server, arguments)
    with server.connect(user="operator") as connection:
        row = connection.execute(ACTION.statement(arguments, arguments, 180000)).fetchone()

    assert row == (0, None)
    assert session.execute("SELECT 3").fetchone() == (3,)


def test_the_statement_itself_leaves_it_too(
    server: Server, live: Callable[..., Session], idle_in_transaction: Times
) -> None:
    session = live(server, user="owner", dbname="shop", autocommit=False)
    session.execute("SELECT 1")
    cleaned = ACTION.clean(idle_in_transaction(session.info.backend_pid))
    session.execute("SELECT 2")
    with server.connect(user="operator") as connection:
        row = connection.execute(ACTION.statement(cleaned, cleaned, 180000)).fetchone()

    assert row == (0, None)


def test_it_refuses_a_walsender(
    server: Server,
    live: Callable[..., Session],
) -> None:
    """AC-03: its role may be no superuser, and the server would let us."""
    sender = live(server, replication="database", dbname="shop")
    pid = sender.info.backend_pid
    with server.connect() as connection:
        row = connection.execute(
            "SELECT backend_start::text FROM pg_stat_activity"
            " WHERE pid = %s AND backend_type = 'walsender'",
            [pid],
        ).fetchone()
    assert row is not None

    with pytest.raises(Refused, match="walsender"):
        send(server, {"pid": str(pid), "backend_start": row[0], "query_start": row[0]})
