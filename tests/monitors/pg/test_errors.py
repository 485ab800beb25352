"""What a server's own errors become: its message and DETAIL, and no value of a row."""

from __future__ import annotations

import psycopg
import pytest

from monitors.pg.errors import reason_of
from tests.servers import Server


def reason(server: Server, *statements: str) -> str:
    """Return the reason of the last statement's error; nothing is kept."""
    with server.connect(dbname="shop", autocommit=False) as session:
        for statement in statements[:-1]:
            session.execute(statement)
        with pytest.raises(psycopg.Error) as raised:
            session.execute(statements[-1])
        session.rollback()
    return reason_of(raised.value)


def test_the_detail_is_told_where_it_is_the_reason(server: Server) -> None:
    said = reason(
        server,
        "CREATE TABLE base (id int)",
        "CREATE VIEW upon AS SELECT id FROM base",
        "DROP TABLE base",
    )

    assert said == (
        "Cannot drop table base because other objects depend on it."
        " View upon depends on table base."
    )


def test_values_of_a_key_are_not_told(server: Server) -> None:
    said = reason(
        server,
        "CREATE TABLE keyed (mail text, city text)",
        "INSERT INTO keyed VALUES ('jane)=(secret', 'Rome'), ('jane)=(secret', 'Rome')",
        "CREATE UNIQUE INDEX once ON keyed (mail, city)",
    )

    assert said == 'Could not create unique index "once". Key (mail, city)=(…) is duplicated.'


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO checked VALUES (4711, 'secret', null)",
        "INSERT INTO checked VALUES (1, 'secret', '{\"secret\": tru}')",
    ],
)
def test_a_row_that_fails_is_not_told(server: Server, statement: str) -> None:
    said = reason(
        server,
        "CREATE TABLE checked (id int CHECK (id < 10), word text, body json)",
        statement,
    )

    assert "secret" not in said
    assert "4711" not in said
