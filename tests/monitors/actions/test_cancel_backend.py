"""Cancel: never for what idles in a transaction, never for what is not a client's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from monitors.acting import signalling
from monitors.action import Changed, InvalidArguments, Refused
from monitors.actions.cancel_backend import ACTION, UNREACHED
from monitors.pg import backends
from monitors.pg.signals import YOUNG_MS
from tests import races
from tests.servers import Server

Session = psycopg.Connection[Any]
Times = Callable[[int], dict[str, str]]


def guard(server: Server, arguments: dict[str, str], user: str = "operator", **more: Any) -> Any:
    cleaned = ACTION.clean(arguments)
    with server.connect(user=user) as connection:
        return ACTION.guard(connection, cleaned, {**cleaned, **more})


def test_it_refuses_what_idles_in_a_transaction_and_offers_terminate(
    server: Server, live: Callable[..., Session], active: Times
) -> None:
    session = live(server, user="owner", dbname="shop", autocommit=False)
    session.execute("SELECT 1")

    with pytest.raises(Refused, match="terminate"):
        guard(server, active(session.info.backend_pid))


def test_it_finds_that_the_statement_is_over(
    server: Server, live: Callable[..., Session], active: Times
) -> None:
    session = live(server, user="owner", dbname="shop")
    session.execute("SELECT 1")

    with pytest.raises(Changed, match="has ended"):
        guard(server, active(session.info.backend_pid))


def test_of_a_copy_that_waits_for_its_client_it_says_that_only_terminating_ends_it(  # noqa: PLR0917 - fixtures
    server: Server, live: Callable[..., Session], active: Times, watch, person, done, monkeypatch
) -> None:
    monkeypatch.setattr(signalling, "SETTLE_SECONDS", 0.5)
    session = live(server, user="owner", dbname="shop")
    session.execute("CREATE TEMP TABLE numbers (n integer)")
    session.pgconn.exec_(b"COPY numbers FROM STDIN")
    arguments = active(session.info.backend_pid)
    target = watch(server, operator_user="operator")

    cancelled = done(person("dba"), target, "cancel_backend", **arguments)

    assert cancelled.preview["warnings"] == [UNREACHED]
    assert cancelled.state == "failed"
    assert "it waits for its client (Client: ClientRead), which no cancel ends" in cancelled.outcome
    ended = done(person("dba"), target, "terminate_backend", **arguments)
    assert ended.state == "succeeded"


def test_it_finds_that_the_backend_is_gone(
    server: Server, live: Callable[..., Session], active: Times, eventually: Callable[..., None]
) -> None:
    session = live(server, user="owner", dbname="shop")
    session.execute("SELECT 1")
    arguments = active(session.info.backend_pid)
    session.close()
    with server.connect() as connection:
        eventually(
            lambda: (
                not connection.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE pid = %s", [arguments["pid"]]
                ).fetchone()
            )
        )

    with pytest.raises(Changed, match="has ended"):
        guard(server, arguments)


def test_it_refuses_a_superusers_backend(
    server: Server, sleeping: Callable[..., Session], active: Times
) -> None:
    """AC-03."""
    session = sleeping(user="postgres")

    with pytest.raises(Refused, match="superuser alone"):
        guard(server, active(session.info.backend_pid))


def test_it_refuses_our_own_backends(
    server: Server, sleeping: Callable[..., Session], active: Times
) -> None:
    """AC-03."""
    session = sleeping(application_name="howdah:collector:fast")
    arguments = active(session.info.backend_pid)

    with pytest.raises(Refused, match="own backends"):
        guard(server, arguments, logins={"owner"})
    guard(server, arguments, logins={"collector"})


def test_it_refuses_what_is_no_client(server: Server) -> None:
    """AC-03."""
    with server.connect() as connection:
        row = connection.execute(
            "SELECT pid::text, backend_start::text FROM pg_stat_activity"
            " WHERE backend_type = 'checkpointer'"
        ).fetchone()
    assert row is not None

    with pytest.raises(Refused, match="checkpointer"):
        guard(server, {"pid": row[0], "backend_start": row[1], "query_start": row[1]})


def test_a_statement_in_another_encoding_is_cancelled_like_any(
    server: Server,
    live: Callable[..., Session],
    active: Times,
    eventually: Callable[..., None],
) -> None:
    name = "plain_cancelled"
    with server.connect() as setup:
        setup.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        setup.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        session = live(server, user="owner", dbname=name, client_encoding="SQL_ASCII")
        session.pgconn.send_query(b"SELECT 'canary\xe9' AS \"caf\xe9\", pg_sleep(30)")
        pid = session.info.backend_pid
        running = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        eventually(lambda: setup.execute(running, [pid]).fetchone())

        guard(server, active(pid))  # raises nothing
        with server.connect(user="operator") as connection:
            [told] = backends.describe(connection, [pid])
        setup.execute(f"DROP DATABASE {name} WITH (FORCE)")

    assert told["query"] == 'SELECT ? AS "caf\ufffd", pg_sleep(?)'


def test_it_says_which_right_is_missing(
    server: Server, sleeping: Callable[..., Session], active: Times
) -> None:
    session = sleeping()

    with pytest.raises(Refused, match="GRANT pg_signal_backend TO collector"):
        guard(server, active(session.info.backend_pid), user="collector")


def test_its_statement_is_the_same_for_every_spelling_of_a_moment() -> None:
    spellings = ("2026-01-01 01:00:00.12+01", "2026-01-01T00:00:00.120000Z")
    texts = set()
    for spelling in spellings:
        cleaned = ACTION.clean({"pid": "1", "backend_start": spelling, "query_start": spelling})
        texts.add(ACTION.statement(cleaned, cleaned, 180000).as_string(None))

    assert len(texts) == 1


def test_it_needs_the_moment_of_the_statement() -> None:
    with pytest.raises(InvalidArguments, match="query_start"):
        ACTION.clean({"pid": "1", "backend_start": "2026-01-01T00:00:00Z"})


def test_a_statement_that_just_began_is_left_alone(
    server: Server, live: Callable[..., Session], background: Callable[..., Any]
) -> None:
    """By the guard, which says why, and by the statement itself."""
    session = live(server, user="owner", dbname="shop")
    with server.connect(user="operator") as hand:
        while True:  # until we were quick enough for it to be young all the while
            thread = background(session, "SELECT pg_sleep(0.4)")
            while (arguments := races.seen(hand, session.info.backend_pid)) is None:
                assert thread.is_alive()
            said = reason(hand, arguments)
            row = hand.execute(ACTION.statement(arguments, arguments, 0)).fetchone()
            if races.age_ms(hand, arguments) < YOUNG_MS:
                break
            thread.join()
        thread.join()

    assert said.startswith("Its statement began less than 250 ms ago")
    assert row == (0, None)


def reason(hand: Session, arguments: dict[str, str]) -> str:
    """Return why the guard lets nothing be sent, '' where it does."""
    try:
        ACTION.guard(hand, arguments, arguments)
    except Changed as error:
        return str(error)
    return ""


def test_no_cancel_hits_the_next_statement(server: Server) -> None:
    """Four sessions with statements of 0 to 5 ms, and some that run until they are cancelled."""
    raced = races.race(server, 300, endless_share=0.1, least_signalled=8)

    assert raced.wrong == 0
    assert raced.cancelled == raced.signalled
