"""No literal survives redaction, and no text stops a page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
    "SELECT U&'d!0061' UESCAPE '!', 'a'\n 'b', 0x1F, 1_000, .5, 1e3": (
        "SELECT ? UESCAPE ?, ?, ?, ?, ?, ?"
    ),
    'SELECT $1, "Odd ""Name" FROM x': 'SELECT $1, "Odd ""Name" FROM x',
    "SELECT 1 /* 'c' */ ; SELECT 2": "SELECT ? ; SELECT ?",
    "SELECT/* a /* b */ 'c' */1--d": "SELECT ?",
    "DO $do$ BEGIN PERFORM 'x'; END $do$": "DO ?",
    "SELECT a @'x', b@@@'x', c ~@ 'x', d@-1, e::int=1": "SELECT a @?, b@@@?, c ~@ ?, d@-?, e::int=?",
    "SELECT a FROM t WHERE b = 'cut o": "SELECT a FROM t WHERE b = ?…",
    "SELECT a FROM t WHERE b = E'a\\'cut": "SELECT a FROM t WHERE b = ?…",
    "SELECT 'ä', $$cut 'off": "SELECT ?, ?…",
    "SELECT a /* cut": "SELECT a …",
    'SELECT "cut': "SELECT …",
    'VACUUM (ANALYZE) "public"."x"': 'VACUUM (ANALYZE) "public"."x"',
    "VACUUM ANALYZE public.posts": "VACUUM ANALYZE public.posts",
    "REFRESH MATERIALIZED VIEW mv": "REFRESH MATERIALIZED VIEW mv",
    "CALL p('x', 1)": "CALL p(?, ?)",
    "REINDEX TABLE CONCURRENTLY t": "REINDEX TABLE CONCURRENTLY t",
    "LOCK TABLE t IN SHARE MODE": "LOCK TABLE t IN SHARE MODE",
    "EXPLAIN (ANALYZE) SELECT 'x'": "EXPLAIN (ANALYZE) SELECT ?",
    "EXECUTE p('x', 5)": "EXECUTE p(?, ?)",
    "FETCH 5 FROM c": "FETCH ? FROM c",
    "SELECT second(12345), string_agg(a, ',' ORDER BY b, 4711)": (
        "SELECT second(?), string_agg(a, ? ORDER BY b, ?)"
    ),
    "SELECT rank() OVER (ORDER BY 4711) FROM t WINDOW w AS (ORDER BY 3) ORDER BY 1": (
        "SELECT rank() OVER (ORDER BY ?) FROM t WINDOW w AS (ORDER BY ?) ORDER BY 1"
    ),
    "SELECT interval '1' second(3), a::interval day to second(2)": (
        "SELECT interval ? second(3), a::interval day to second(2)"
    ),
    "REPACK (CONCURRENTLY) t USING INDEX i": "REPACK (CONCURRENTLY) t USING INDEX i",
    "": "",
    "   ": "",
}


@pytest.mark.parametrize(("sql", "kept"), KEPT.items())
def test_literals_become_question_marks(sql: str, kept: str) -> None:
    assert text.redact(sql) == kept


NORMALISED = [
    "INSERT INTO t VALUES ($1,$2)",
    "SELECT a in ($1,$2) or b in ($1,$2) and c=$3",
    "SELECT a\n  FROM t\tWHERE b IN ($1 /*, ... */)",
    "SELECT a::numeric(10,2), b::character varying(20), c::timestamp(3), f(a, $1) FROM t"
    " GROUP BY 1, f(a, $2), 3 HAVING a ? $3 ORDER BY 1 DESC, 2 LIMIT $4",
    "SELECT a FROM (SELECT b FROM t ORDER BY 2) AS s ORDER BY 1",
]


@pytest.mark.parametrize("sql", NORMALISED)
def test_a_normalised_text_stays_as_it_is(sql: str) -> None:
    assert text.redact(sql) == sql


NOT_UNDERSTOOD = {
    "SELECT 'a\\'rest, 'secret'": "SELECT ?",
    "SELECT a LIKE 'x' ESCAPE '\\' AND secret": "SELECT a LIKE ? ESCAPE ?",
    "SELECT U&'a\\' || secret": "SELECT ?",
    "SELECT a, 12secret": "SELECT a,",
    "SELECT E'\\xff' || secret": "",
}


@pytest.mark.parametrize(("sql", "kept"), NOT_UNDERSTOOD.items())
def test_what_is_not_understood_is_kept_out_whole_and_that_is_said(sql: str, kept: str) -> None:
    """A plain literal may go on behind a backslash and a quote: the text has no setting."""
    assert text.redact(sql) == f"{kept} {text.NOT_READ}".lstrip()


@given(st.text(alphabet="abz'\"$\\; ()-/*\n", max_size=60))
def test_it_never_raises_and_keeps_no_literal(body: str) -> None:
    secret = "topsecret77"
    quoted = body.replace("'", "''").replace("\\", "")

    assert secret not in text.redact(f"SELECT '{secret}{quoted}' AS a, b")
    text.redact(body)


CANARY = "canary"
FILLING = st.text(alphabet="az'\"$\\/*-; \né?@1", max_size=12)


def plain(body: str) -> str:
    return "'{}'".format(f"{CANARY}{body.replace(chr(92), '')}{CANARY}".replace("'", "''"))


def escaped(body: str) -> str:
    quoted = body.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{CANARY}{quoted}{CANARY}'"


def dollar(body: str) -> str:
    return f"$ca$ {body} {CANARY} '$ca$"


LITERAL_FORMS = st.one_of(
    FILLING.map(plain),
    FILLING.map(lambda body: "E" + escaped(body)),
    FILLING.map(lambda body: "e" + escaped(body)),
    FILLING.map(lambda body: "N" + plain(body)),
    FILLING.map(lambda body: "U&" + plain(body)),
    FILLING.map(lambda body: plain(body) + "\n  " + plain("")),
    FILLING.map(lambda body: dollar(body.replace("$", ""))),
    FILLING.map(lambda body: f"$${CANARY} {body.replace('$', '')}$$"),
    st.sampled_from(["B'1011001110'", "x'c0ffee77'", "7007007", "7007.7e7", ".7007", "0x7007af"]),
)
LITERAL = LITERAL_FORMS.map(lambda written: (written, "?"))
COMMENT = st.one_of(
    FILLING.map(lambda body: f"--{CANARY}" + body.replace("\n", "") + "\n"),
    st.sampled_from([f"/*{CANARY}*/", f"/* ' /* {CANARY} */ $$ */", "/*7007007*/"]),
).map(lambda written: (f" {written} ", " "))
OPERATOR = st.sampled_from(
    [*"+*/<>=~^|", "@", "@@", "@@@", "~@", "<@", "@>", "?", "?|", "#>>", "||", "::text =", "->"]
).map(lambda written: (written, written))
OPERAND = st.sampled_from(
    ["a", 't."b c"', "$1", "$2::int", "f(x)", "(SELECT y FROM z)", "(c IN ($1,$2))", "now()"]
).map(lambda written: (written, written))
SPACE = st.sampled_from(["", " ", "\n"]).map(lambda written: (written, written))
Part = tuple[str, str]


@st.composite
def statements(draw: st.DrawFn) -> Part:
    """Draw a statement, and what must be left of it."""
    parts: list[Part] = [("SELECT ", "SELECT ")]
    for place in range(draw(st.integers(1, 6))):
        parts += [draw(SPACE), draw(OPERATOR), draw(SPACE)] if place else []
        parts += [draw(st.one_of(LITERAL, LITERAL, OPERAND))]
        parts += [draw(COMMENT)] if draw(st.booleans()) else []
    parts.append((" FROM t", " FROM t"))
    written, kept = zip(*parts, strict=True)
    return "".join(written), "".join(kept)


HELD = ("cana", "7007", "1011", "c0ff")
"""Of the literals and comments that are drawn; nothing else holds them."""


def without_space(sql: str) -> str:
    return "".join(sql.split())


@given(statements())
def test_no_drawn_literal_survives_and_all_else_does(drawn: Part) -> None:
    sql, kept = drawn

    left = text.redact(sql)

    assert not [one for one in HELD if one in left]
    assert without_space(left) == without_space(kept)


@given(statements(), st.data())
def test_of_a_text_that_is_cut_anywhere_nothing_survives(drawn: Part, data: st.DataObject) -> None:
    sql, _ = drawn
    end = data.draw(st.integers(0, len(sql)))

    left = text.redact(sql[:end])

    assert not [one for one in HELD if one in left]


@given(FILLING, FILLING)
def test_both_readings_of_a_backslash_are_kept_out(first: str, second: str) -> None:
    """As a server with `standard_conforming_strings = off` reads it."""
    sql = f"SELECT a, '{CANARY}{first.translate({39: None, 92: None})}\\'{CANARY}{second} 7007'"

    left = text.redact(sql)

    assert not [one for one in HELD if one in left]
    assert left.startswith("SELECT a, ?")


def test_many_threads_read_at_once_and_a_long_text_is_bounded() -> None:
    written = [f"SELECT a{number} FROM t WHERE b = 'x' -- {number}" for number in range(2000)]

    with ThreadPoolExecutor(8) as pool:
        left = list(pool.map(text.redacted, written))

    assert left == [f"SELECT a{number} FROM t WHERE b = ?" for number in range(2000)]
    long = "(" * (text.MAX_STATEMENT + 1)
    assert text.redact(long) == "(" * text.MAX_STATEMENT + text.CUT


COSTLY = {
    "SELECT 1 " + "+-" * 501 + "'secret'": f"SELECT ? {text.NOT_READ}",
    "SELECT 1 " + "/* " * 1_001 + "*/" * 1_001 + "'secret'": f"SELECT ? {text.NOT_READ}",
    "SELECT '" + "=" * 1_001 + "secret', 1": f"SELECT {text.NOT_READ}",
    "SELECT 1 --" + "=" * 900 + "\n, 'secret'": "SELECT ? , ?",
}


@pytest.mark.parametrize(("sql", "kept"), COSTLY.items(), ids=lambda one: one[:12])
def test_what_the_scanner_takes_long_for_is_left_out(sql: str, kept: str) -> None:
    """What is one more than the bound is not given to it."""
    assert text.redacted(sql) == kept


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
