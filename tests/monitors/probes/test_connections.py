"""Connections by origin: folded names, TLS, those that rest, and of very many the rest as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from psycopg.rows import dict_row

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from monitors.probes.connections import SQL_14
from monitors.rules.connections import OTHERS, folded
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

NAMES = (
    "app-12345",
    "app-99999",
    "job 550e8400-e29b-41d4-a716-446655440000",
    "web-7d9f8b6c4d",
    "PostgreSQL JDBC Driver",
    "worker 7",
)


def read(target: Target) -> list[dict[str, Any]]:
    [result] = take_now(target, ["connections"])
    assert result.error == ""
    return read_latest("connections", target.pk)


def test_it_counts_by_origin_with_the_changing_parts_of_names_folded(
    server: Server, watch: Callable[..., Target], live: Callable[..., Any]
) -> None:
    target = watch(server)
    for name in NAMES:
        live(server, user="owner", dbname="shop", application_name=name)

    rows = [row for row in read(target) if row["usename"] == "owner"]

    assert {row["application_name"] for row in rows} == {folded(name) for name in NAMES}
    [app] = [row for row in rows if row["application_name"] == "app-*"]
    assert (app["datname"], app["client_addr"], app["state"]) == ("shop", "127.0.0.1", "idle")
    assert (app["backends"], app["long_idle"], app["ssl"]) == (2, 0, "")
    assert app["oldest_backend_start"] <= app["idle_since"]
    assert app["oldest_backend_start"] <= app["youngest_backend_start"]
    # the server's own minute: a machine that needs longer to get here may see them older
    assert app["young"] in {0, 2}


def test_of_very_many_groups_the_smallest_are_one_and_the_sum_stays_true(
    server: Server, live: Callable[..., Any]
) -> None:
    few = SQL_14.replace("place <= 100", "place <= 2")
    for number in range(5):
        live(server, user="owner", dbname="shop", application_name=f"n{number}")

    with server.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        every = cursor.execute(SQL_14).fetchall()
        rows = cursor.execute(few).fetchall()

    others = [row for row in rows if row["application_name"] == OTHERS]
    assert len(rows) - len(others) == 2
    assert {row["state"] for row in others} == {"idle"}
    assert {row["usename"] for row in others} == {row["datname"] for row in others} == {OTHERS}
    assert sum(row["backends"] for row in rows) == sum(row["backends"] for row in every) >= 5
