"""Planted literals: run on every server in every form, and looked for in all that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Target
from monitors.pg import text
from tests.monitors.pg.test_text import statements
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

Watch = Callable[..., Target]
READS = ["databases", "settings", "statements", "activity", "sessions", "horizon", "progress"]

FORMS = [
    "'canary it''s'", "E'canary \\'x\\''", "U&'canary'", "N'canary'", "$$canary$$",
    "$q$canary 'x$q$", "'canary'\n  'canary'", "B'101100111000'", "X'c0ffee77'",
    "7007007", "7007.7007", "7007e3",
]  # fmt: skip

PLANTED = ("canary", "7007007", r"7007\.7", "7007e3", "7007af", "101100111", "c0ffee77")
"""Patterns of the literals here and of those that are drawn."""

UTILITIES = [
    "SET search_path = 'canary'",
    "SET application_name TO 'canary'; SET application_name TO 'app'",
    "DO $x$ BEGIN PERFORM 'canary', 7007007; END $x$",
    "COMMENT ON TABLE planted IS 'canary'",
    "ALTER TABLE planted ALTER COLUMN b SET DEFAULT 'canary'",
    "ALTER TABLE planted ADD CONSTRAINT c CHECK (b <> 'canary' AND a <> 7007007)",
    "CREATE ROLE planted PASSWORD 'canary'; DROP ROLE planted",
    "NOTIFY there, 'canary'",
    "PREPARE planted (text) AS SELECT $1, 'canary'",
    "EXECUTE planted('canary')",
    "EXPLAIN SELECT 'canary'",
    "BEGIN; DECLARE c CURSOR FOR SELECT * FROM planted WHERE b = 'canary'; FETCH 7007007 FROM c; COMMIT",
    "CREATE FUNCTION planted_f(text) RETURNS text LANGUAGE sql AS $f$ SELECT 'canary' || $1 $f$",
    "CREATE PROCEDURE planted_p(text) LANGUAGE sql AS 'SELECT ''canary'''",
    "CALL planted_p('canary')",
    "CREATE VIEW planted_v AS SELECT * FROM planted WHERE b = 'canary'",
    "CREATE TABLE planted_2 AS SELECT 'canary'::text AS x, 7007007 AS y",
    "COPY (SELECT 'canary') TO '/dev/null'",
    "SELECT planted_f('canary') /* 'canary' */ -- canary",
    "SET standard_conforming_strings = off; SELECT 'a\\'canary', 7007007",
    "SET standard_conforming_strings = off; COMMENT ON TABLE planted IS 'a\\'canary'' 7007'",
    "SELECT 'canary",
    "SELECT 12secret, 'canary'",
    "SELECT is_unknown('canary') FROM",
]


@pytest.fixture
def shop(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """A session in `shop` with a table that goes away, whose nested statements count too."""
    with server.connect(dbname="shop") as session:
        session.execute("SELECT pg_stat_statements_reset()")
        session.execute("SET pg_stat_statements.track = 'all'")
        session.execute("CREATE TABLE planted (a bigint, b text)")
        try:
            yield session
        finally:
            session.execute("DROP TABLE IF EXISTS planted, planted_2 CASCADE")
            session.execute("DROP FUNCTION IF EXISTS planted_f; DROP PROCEDURE IF EXISTS planted_p")
            session.execute("SELECT pg_stat_statements_reset()")


def kept_with(patterns: tuple[str, ...]) -> dict[str, list[str]]:
    """Return by table the rows of the whole history that hold one of some patterns, as text."""
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            quoted = connection.ops.quote_name(table)
            cursor.execute(
                f"SELECT t::text FROM {quoted} AS t WHERE t::text ~ %s",
                ["|".join(patterns)],
            )
            rows = [row[0] for row in cursor.fetchall()]
            if rows:
                found[table] = rows
    return found


def test_a_search_of_the_whole_history_finds_no_planted_literal(
    server: Server, shop: psycopg.Connection[Any], watch: Watch
) -> None:
    target = watch(server)
    take_now(target, READS)

    run_all(server, shop, target)

    assert kept_with(PLANTED) == {}
    texts = set(HISTORY["statements"].latest._default_manager.values_list("query", flat=True))
    assert "INSERT INTO planted VALUES ($1,$2)" in texts
    assert any(one.startswith("SELECT $1 AS x") for one in texts)
    assert any(one.startswith("COMMENT ON TABLE planted IS ") for one in texts)
    assert any(one.startswith("CALL planted_p(") for one in texts)


def run_all(server: Server, shop: psycopg.Connection[Any], target: Target) -> None:
    """Run each text, and read while a session of its own shows it as its last."""
    every = ["INSERT INTO planted VALUES (7007007,'canary')", *UTILITIES]
    every += [f"SELECT {form} AS x" for form in FORMS]
    every += [f"SELECT a FROM planted WHERE b::text = {form}::text" for form in FORMS]
    with ExitStack() as sessions:
        for sql in every:
            shop.pgconn.exec_(sql.encode())
            shop.pgconn.exec_(b"ROLLBACK")
            shop.pgconn.exec_(b"RESET ALL; SET pg_stat_statements.track = 'all'")
            seen = sessions.enter_context(server.connect(dbname="shop"))
            seen.pgconn.exec_(sql.encode())
        take_now(target, READS)


@pytest.fixture
def drawn(server: Server) -> list[str]:
    """Statements with literals in all forms, drawn at random anew in each run."""
    found: list[str] = []

    @settings(
        max_examples=60,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(statements(), min_size=1, max_size=3))
    def draw(some: list[tuple[str, str]]) -> None:
        found.extend(sql for sql, _ in some)

    draw()
    return found


def test_drawn_statements_leave_no_literal_on_a_server(
    server: Server, shop: psycopg.Connection[Any], watch: Watch, drawn: list[str]
) -> None:
    target = watch(server)
    with ExitStack() as sessions:
        for number, sql in enumerate(drawn):
            shop.pgconn.exec_(sql.encode())
            shop.pgconn.exec_(f"EXPLAIN {sql}".encode())
            if number % 5 == 0:
                seen = sessions.enter_context(server.connect(dbname="shop"))
                seen.pgconn.exec_(sql.encode())
        take_now(target, READS)

    assert kept_with(PLANTED) == {}


NORMALISED = [
    "SELECT a, count(*) FROM planted WHERE b IN ('x','y') AND a > 5 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3",
    "INSERT INTO planted VALUES (1,'x'),(2,'y')",
    "SELECT a::numeric(10,2),\n  b::varchar(20),\t'1'::interval day to second(3) FROM planted",
    "SELECT a FROM planted WHERE b LIKE 'x' ESCAPE '\\' OR b ~ E'\\\\d' OR a = ANY ('{1,2}')",
    "UPDATE planted SET a=a+1 WHERE b='x'",
    "SELECT '{\"a\": 1}'::jsonb ? 'a', '{}'::jsonb @> '{}', date '2020-01-01', interval '1 day'",
    "WITH w AS (SELECT 1 AS one) SELECT one, CASE WHEN one = 2 THEN 'x' ELSE 'y' END FROM w",
    "DELETE FROM planted WHERE (a, b) IN ((1, 'x'), (2, 'y')) RETURNING a",
    "SELECT extract(epoch FROM now()), substring('abc' FROM 2 FOR 1), 'x' COLLATE \"C\"",
]


def test_what_a_server_normalised_is_kept_as_it_is(
    server: Server, shop: psycopg.Connection[Any]
) -> None:
    shop.execute("SELECT pg_stat_statements_reset()")
    for sql in NORMALISED:
        shop.pgconn.exec_(sql.encode())

    rows = shop.execute("SELECT query FROM pg_stat_statements WHERE query ~ '\\$\\d'").fetchall()

    assert len(rows) >= len(NORMALISED)
    assert [text.redact(sql) for (sql,) in rows] == [sql for (sql,) in rows]
