"""Reaching a server, and what refuses us."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from monitors.pg import connect, dial
from monitors.pg.errors import Unreachable
from tests.servers import Server


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which psycopg's libpq is not where it usually is."""
    dial.libpq.cache_clear()
    monkeypatch.setattr(dial, "LIBRARIES", ())
    yield
    dial.libpq.cache_clear()


def address(server: Server) -> connect.Address:
    return connect.Address(
        server.host, server.port, "collector", "shop", "disable", "", server.password
    )


def attempt(where: connect.Address) -> None:
    connect.open_target(
        where, purpose="test", statement_timeout_ms=1000, lock_timeout_ms=500, read_only=True
    ).close()


def test_without_its_library_it_connects_and_refusals_have_the_servers_words(
    embedded: Server, no_library: None
) -> None:
    attempt(address(embedded))

    with pytest.raises(Unreachable) as told:
        attempt(replace(address(embedded), password="wrong"))

    assert "password authentication failed" in str(told.value).lower()
    assert dial.libpq() is None


def test_with_it_the_sqlstate_decides(embedded: Server) -> None:
    with pytest.raises(Unreachable, match="check user and password"):
        attempt(replace(address(embedded), password="wrong"))
