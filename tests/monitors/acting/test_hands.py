"""A connection that sent a signal is kept for the next one, and for nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from monitors.acting import connections
from monitors.actions.cancel_backend import ACTION
from monitors.models import Action, Target
from monitors.pg.errors import Unreachable
from monitors.targets import logins
from tests.servers import Server

pytestmark = pytest.mark.django_db
Watch = Callable[..., Target]


@pytest.fixture
def hands() -> Iterator[connections.Hands]:
    """The kept connections of a worker of its own."""
    found = connections.Hands()
    yield found
    found.close()


@pytest.fixture
def target(embedded: Server, watch: Watch) -> Target:
    return watch(embedded, name="hands-1", operator_user="operator")


def names(server: Server, pid: int) -> list[str]:
    with server.connect() as eye:
        rows = eye.execute("SELECT application_name FROM pg_stat_activity WHERE pid = %s", [pid])
        return [name for (name,) in rows.fetchall()]


def used(hands: connections.Hands, target: Target, address: Any = None) -> int:
    """Use a hand once; return its pid."""
    where = address or logins.operator_address(target, target.dbname)
    row = Action(target=target)
    with hands.signalling(where, row, ACTION) as hand:
        [(name, limit)] = hand.execute(
            "SELECT current_setting('application_name'), current_setting('statement_timeout')"
        ).fetchall()
        assert name == connections.application_name(row)
        assert limit != "0"
        return hand.info.backend_pid


def test_the_next_signal_uses_the_same_connection(
    hands: connections.Hands, target: Target, embedded: Server
) -> None:
    first = used(hands, target)

    assert names(embedded, first) == ["howdah:operator"]  # at rest it is no action that runs
    assert used(hands, target) == first


def test_it_is_closed_after_a_while(
    hands: connections.Hands,
    target: Target,
    embedded: Server,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., None],
) -> None:
    monkeypatch.setattr(connections, "HAND_SECONDS", 0.2)
    first = used(hands, target)

    eventually(lambda: not names(embedded, first))
    assert used(hands, target) != first


def test_another_login_gets_a_connection_of_its_own(
    hands: connections.Hands, target: Target, embedded: Server, eventually: Callable[..., None]
) -> None:
    first = used(hands, target)
    other = logins.operator_address(target, "shop")

    assert used(hands, target, other) != first
    eventually(lambda: not names(embedded, first))


def test_one_that_died_meanwhile_is_replaced(
    hands: connections.Hands, target: Target, embedded: Server, eventually: Callable[..., None]
) -> None:
    first = used(hands, target)
    with embedded.connect() as eye:
        eye.execute("SELECT pg_terminate_backend(%s)", [first])
    eventually(lambda: not names(embedded, first))

    assert used(hands, target) != first


def test_one_that_failed_is_not_kept(
    hands: connections.Hands, target: Target, embedded: Server, eventually: Callable[..., None]
) -> None:
    address = logins.operator_address(target, target.dbname)
    pid = 0

    def fail() -> None:
        nonlocal pid
        with hands.signalling(address, Action(target=target), ACTION) as hand:
            pid = hand.info.backend_pid
            hand.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        fail()

    eventually(lambda: not names(embedded, pid))


def test_two_at_once_have_one_each_and_one_is_kept(
    hands: connections.Hands, target: Target, embedded: Server, eventually: Callable[..., None]
) -> None:
    address = logins.operator_address(target, target.dbname)
    with hands.signalling(address, Action(target=target), ACTION) as one:
        first = one.info.backend_pid
        second = used(hands, target)
        assert second != first

    eventually(lambda: len(names(embedded, first)) + len(names(embedded, second)) == 1)


def test_a_peer_that_hangs_is_given_up(hands: connections.Hands, target: Target) -> None:
    first = used(hands, target)
    os.kill(first, signal.SIGSTOP)  # the server's backend answers nothing any more
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections, "TAKE_SECONDS", 0.5)
            assert used(hands, target) != first
    finally:
        os.kill(first, signal.SIGCONT)


def test_who_can_not_be_reached_is_told(hands: connections.Hands, target: Target) -> None:
    address = logins.operator_address(target, target.dbname)

    with pytest.raises(Unreachable):
        used(hands, target, replace(address, port=1))
