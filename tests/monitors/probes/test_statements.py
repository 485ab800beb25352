"""Statements: totals exact to the call, texts without literals, wherever the extension is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.history.counters import read_totals
from monitors.history.window import Window
from monitors.models import HISTORY, Mark, Snapshot, Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

Watch = Callable[..., Target]


@pytest.fixture
def shop(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """A session whose own statements are counted from here on, without a trace of earlier tests."""
    with server.connect(dbname="shop") as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        yield connection


def snap(target: Target) -> Snapshot:
    [result] = take_now(target, ["statements"])
    assert result.state == "ok", result.error
    return Snapshot.objects.filter(target_id=target.pk).latest("taken_at")


def calls_of(target: Target, text: str) -> tuple[int, int]:
    """Return (calls, rows) of a statement over the last hour."""
    now = timezone.now()
    window = Window(now - timedelta(hours=1), now + timedelta(seconds=1), is_live=True)
    latest = HISTORY["statements"].latest._default_manager.filter(target_id=target.pk, query=text)
    ids = set(latest.values_list("queryid", "toplevel"))
    rows = [
        row
        for row in read_totals("statements", target.pk, window)
        if (row["queryid"], row["toplevel"]) in ids
    ]
    return sum(row["calls"] for row in rows), sum(row["rows"] for row in rows)


def run(session: psycopg.Connection[Any], times: int) -> None:
    for number in range(times):
        session.execute(f"SELECT g AS counted_here FROM generate_series(1, {number % 3 + 1}) AS g")


TEXT = "SELECT g AS counted_here FROM generate_series($1, $2) AS g"


def test_totals_are_exact_through_a_reset_and_an_eviction(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    snap(target)
    run(shop, 9)
    snap(target)
    assert calls_of(target, TEXT) == (9, 18)

    shop.execute("SELECT pg_stat_statements_reset()")
    run(shop, 12)
    snap(target)
    assert calls_of(target, TEXT) == (21, 42)
    assert Mark.objects.filter(target=target, kind=Mark.Kind.RESET).count() == 1

    for number in range(5200):  # more than pg_stat_statements.max: the least used leave
        shop.execute("SELECT 1" + "".join("+-"[number >> bit & 1] + "1" for bit in range(13)))
    run(shop, 3)
    evicted = snap(target)
    assert evicted.evicted > 0
    assert calls_of(target, TEXT) == (24, 48)


def test_texts_are_kept_without_literals(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    shop.execute("DROP ROLE IF EXISTS keyring")
    shop.execute("CREATE ROLE keyring PASSWORD 'canary-password'")
    shop.execute("DROP ROLE keyring")

    snap(target)

    texts = "\n".join(HISTORY["statements"].latest._default_manager.values_list("query", flat=True))
    assert "CREATE ROLE keyring PASSWORD ?" in texts
    assert "canary" not in texts


def test_it_is_found_in_another_schema_and_database(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    with server.connect() as entry:
        entry.execute("DROP EXTENSION pg_stat_statements")
        shop.execute("DROP EXTENSION pg_stat_statements")
        shop.execute('CREATE SCHEMA IF NOT EXISTS "Odd ""stats"')
        shop.execute('GRANT USAGE ON SCHEMA "Odd ""stats" TO collector')
        shop.execute('CREATE EXTENSION pg_stat_statements SCHEMA "Odd ""stats"')
        try:
            take_now(target, ["databases"])
            run(shop, 2)
            snap(target)
            run(shop, 2)
            snap(target)
            assert calls_of(target, TEXT)[0] >= 2
        finally:
            shop.execute("DROP EXTENSION pg_stat_statements")
            shop.execute("CREATE EXTENSION pg_stat_statements")
            entry.execute("CREATE EXTENSION pg_stat_statements")


def test_an_extension_that_is_missing_or_too_old_says_what_to_do(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server, include=["nothing"])
    with server.connect() as entry:
        entry.execute("DROP EXTENSION pg_stat_statements")
        try:
            [missing] = take_now(target, ["statements"])
            entry.execute("CREATE EXTENSION pg_stat_statements VERSION '1.8'")
            [old] = take_now(target, ["statements"])
            entry.execute("ALTER EXTENSION pg_stat_statements UPDATE TO '1.9'")
            [older] = take_now(target, ["statements"])
        finally:
            entry.execute("DROP EXTENSION pg_stat_statements")
            entry.execute("CREATE EXTENSION pg_stat_statements")

    assert (missing.state, old.state, older.state) == ("unsupported", "unsupported", "ok")
    assert "installed in no database" in missing.error
    assert old.error == (
        "pg_stat_statements 1.8 is too old here: ALTER EXTENSION pg_stat_statements UPDATE;"
    )


def test_unchanged_statements_write_nothing(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    run(shop, 5)
    snap(target)

    second = snap(target)

    assert second.rows > 1
    assert second.stored < second.rows
    samples = HISTORY["statements"].samples._default_manager
    latest = HISTORY["statements"].latest._default_manager.filter(query=TEXT).values("queryid")
    assert samples.filter(queryid=latest.get()["queryid"]).count() == 1


@pytest.fixture
def plain(server: Server) -> Iterator[str]:
    """A database without an encoding, in which a statement with bytes that are no UTF-8 ran."""
    name = "plain_statements"
    with server.connect() as setup:
        setup.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        setup.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with server.connect(dbname=name, client_encoding="SQL_ASCII") as session:
        session.pgconn.exec_(b'SELECT 1 AS "caf\xe9"')
    yield name
    with server.connect(dbname="shop") as cleanup:
        cleanup.execute("SELECT pg_stat_statements_reset()")
        cleanup.execute(f"DROP DATABASE {name} WITH (FORCE)")


def names_of(target: Target, shown: str) -> list[tuple[str, str]]:
    """Return user and database of the statements whose text holds some words."""
    latest = HISTORY["statements"].latest._default_manager.filter(target_id=target.pk)
    return list(latest.filter(query__contains=shown).values_list("usename", "datname"))


def test_a_text_in_no_encoding_costs_no_names_and_that_is_said(
    server: Server, shop: psycopg.Connection[Any], watch: Watch, plain: str
) -> None:
    target = watch(server, dbname="shop", include=["shop", plain])
    shop.execute("SELECT 1 AS known_before")
    take_now(target, ["databases"])

    snap(target)

    unread = names_of(target, "PostgreSQL gives out no text in shop while one of them holds")
    assert ("postgres", "shop") in unread
    assert ("postgres", plain) in unread
    assert names_of(target, f"CREATE EXTENSION pg_stat_statements in {plain} makes all readable")
    assert names_of(target, "known_before") == []


def test_where_a_database_without_an_encoding_has_the_extension_every_text_is_read(
    server: Server, shop: psycopg.Connection[Any], watch: Watch, plain: str
) -> None:
    target = watch(server, dbname="shop", include=["shop", plain])
    shop.execute("SELECT 1 AS known_before")
    take_now(target, ["databases"])
    snap(target)
    with server.connect(dbname=plain) as entry:
        entry.execute("CREATE EXTENSION pg_stat_statements")

    snap(target)

    assert names_of(target, "AS known_before") == [("postgres", "shop")]
    assert names_of(target, 'AS "caf\ufffd"') == [("postgres", plain)]
    assert names_of(target, "not shown") == []
    run(shop, 4)
    snap(target)
    assert calls_of(target, TEXT)[0] == 4


def test_a_text_that_the_entry_database_can_not_hold_costs_no_snapshot(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    with server.connect() as setup:
        setup.execute("DROP DATABASE IF EXISTS latin_statements WITH (FORCE)")
        setup.execute(
            "CREATE DATABASE latin_statements ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        )
    try:
        with server.connect(dbname="latin_statements") as entry:
            entry.execute("CREATE EXTENSION pg_stat_statements")
        shop.execute('SELECT 1 AS "\u20ac"')
        target = watch(server, dbname="latin_statements")

        snap(target)

        assert ("postgres", "shop") in names_of(target, "gives out no text in latin_statements")
    finally:
        with server.connect() as cleanup:
            cleanup.execute("DROP DATABASE latin_statements WITH (FORCE)")
