"""No literal survives redaction, and no text stops a page."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from monitors.pg import text
from tests.servers import Server

KEPT = {
    "SELECT * FROM t WHERE a = 'x''y' AND b = 1.5 -- note": "SELECT * FROM t WHERE a = ? AND b = ?",
    "ALTER ROLE app PASSWORD 'abc'": "ALTER ROLE app PASSWORD ?",
    "SELECT E'a\\'b', U&'x', B'01', X'ff', N'n', $$body$$, $q$ 'b' $q$": (
        "SELECT ?, ?, ?, ?, ?, ?, ?"
    ),
    'SELECT $1, "Odd ""Name" FROM x': 'SELECT $1, "Odd ""Name" FROM x',
    "SELECT 1 /* 'c' */ ; SELECT 2": "SELECT ? ; SELECT ?",
    "DO $do$ BEGIN PERFORM 'x'; END $do$": "DO ?",
    "SELECT a FROM t WHERE b = 'cut o": "SELECT a FROM t WHERE b = ?…",
    "": "",
    "   ": "",
}


@pytest.mark.parametrize(("sql", "kept"), KEPT.items())
def test_literals_become_question_marks(sql: str, kept: str) -> None:
    assert text.redact(sql) == kept


@pytest.mark.parametrize("sql", ["SELECT $$cut 'off", "CALL E'a\\'cut", "(((('"])
def test_what_is_not_understood_is_reduced_to_its_first_word(sql: str) -> None:
    kept = text.redact(sql)

    assert "cut" not in kept
    assert len(kept) <= 24


@given(st.text(alphabet="abz'\"$\\; ()-/*\n", max_size=60))
def test_it_never_raises_and_keeps_no_literal(body: str) -> None:
    secret = "topsecret77"
    quoted = body.replace("'", "''").replace("\\", "")

    assert secret not in text.redact(f"SELECT '{secret}{quoted}' AS a, b")
    text.redact(body)


def test_foreign_bytes_do_not_hide_the_row(embedded: Server, plain_bytes: str) -> None:
    with embedded.connect(dbname=plain_bytes, client_encoding="SQL_ASCII") as connection:
        for name in ("text", "name"):
            connection.adapters.register_loader(name, text.TolerantText)
            connection.adapters.register_loader(name, text.TolerantBinaryText)
        for binary in (False, True):
            row = connection.execute(
                r"SELECT convert_from('\x41e942'::bytea, 'SQL_ASCII')", binary=binary
            ).fetchone()
            assert row == ("A\ufffdB",)
