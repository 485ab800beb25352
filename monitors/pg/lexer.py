"""PostgreSQL's own scanner and parser, as libpg_query brings them: tokens, and the tables they name.

The only module that knows which library reads SQL. The scanner takes any text of any
length. The parser does not: it recurses as deep as a text nests, so it sees short ones only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import postgast
from google.protobuf.message import DecodeError
from postgast import pg_query_pb2 as pg

MAX_PARSED = 1000
"""Tokens of a statement that is parsed: each may cost a level of the C stack, all less than 1 MB."""

LONG_RUN = re.compile(r"[-+*/<>=~!@#%^&|`?]{1000}")
OPENING = re.compile(r"/\*")
MAX_COMMENTS = 1000

DOT = pg.ASCII_46
NAMES = frozenset({pg.IDENT, pg.UIDENT})
NAMING = frozenset({pg.UNRESERVED_KEYWORD, pg.COL_NAME_KEYWORD})
"""Keywords that may be names as well."""
COMMENTS = frozenset({pg.SQL_COMMENT, pg.C_COMMENT})
LITERALS = frozenset({pg.SCONST, pg.USCONST, pg.BCONST, pg.XCONST, pg.FCONST, pg.ICONST})


class Token(Protocol):
    """A part of a statement, from `start` to `end` in bytes; `token` is its kind (pg.SCONST …)."""

    token: int
    keyword_kind: int
    start: int
    end: int


@dataclass(frozen=True)
class Scan:
    """A statement's UTF-8, its tokens, and where what was not understood begins (bytes)."""

    text: bytes
    tokens: Sequence[Token]
    end: int
    problem: str = ""
    """What the scanner said to the rest, '' where it read all."""

    def word(self, token: Token) -> bytes:
        """Return a token as it is written."""
        return self.text[token.start : token.end]


def scan(sql: str) -> Scan:
    """Return the tokens of a statement; of one that breaks off, those before the break."""
    text = sql.encode(errors="replace")
    sql = text.decode()
    cheap = sql[: end_of_cheap(sql)]
    problem = "" if cheap == sql else "too costly to read"
    sql = cheap
    while sql:
        try:
            found = postgast.scan(sql)
        except postgast.PgQueryError as error:
            # Left of the place all was read, unless it stands inside of a literal: then the
            # next attempt ends where that begins. Place 0 is "somewhere"; it counts characters.
            problem = problem or error.message
            sql = sql[: min(error.cursorpos - 1, len(sql) - 1)] if error.cursorpos else ""
        else:
            return Scan(text, found.tokens, len(sql.encode()), problem)
    return Scan(text, [], 0, problem)


def end_of_cheap(sql: str) -> int:
    """Return where a text begins to take the scanner long, its length where it does nowhere.

    Long runs of operators and comments in comments cost it the square of their length.
    """
    run = LONG_RUN.search(sql)
    comments = islice(OPENING.finditer(sql), MAX_COMMENTS, None)
    ends = [found.start() for found in (run, next(comments, None)) if found]
    return min(ends, default=len(sql))


class Table(NamedTuple):
    """A table as a statement names it; the schema is '' where none is named."""

    schemaname: str
    relname: str


def tables(sql: str) -> set[Table]:
    """Return the tables that a statement names, with `?` where a literal stood or not.

    One that the parser does not know, or that is too long for it, is read by its words:
    what follows FROM, JOIN and their like.
    """
    found = scan(sql)
    if len(found.tokens) <= MAX_PARSED and found.end == len(found.text):
        for text in (found.text, with_literals(found)):
            try:
                tree = postgast.parse(text.decode())
            except (postgast.PgQueryError, DecodeError):
                continue
            return of_tree(tree)
    return of_words(found)


def with_literals(found: Scan) -> bytes:
    """Return a redacted statement with '' for each `?` that can be no operator."""
    pieces: list[bytes] = []
    end = 0
    for token in found.tokens:
        pieces.append(found.text[end : token.start])
        word = found.word(token)
        pieces.append(b"''" if word == b"?" else word)
        end = token.end
    return b"".join(pieces)


def of_tree(tree: Any) -> set[Table]:
    """Return the tables of a parse tree; the names that WITH gives to subqueries are none."""
    found: set[Table] = set()
    subqueries: set[str] = set()
    for node in walk(tree):
        if isinstance(node, pg.RangeVar):
            found.add(Table(node.schemaname, node.relname))
        elif isinstance(node, pg.CommonTableExpr):
            subqueries.add(node.ctename)
        elif isinstance(node, pg.DropStmt) and node.remove_type == pg.OBJECT_TABLE:
            for one in node.objects:
                parts = ["", *(item.string.sval for item in one.list.items)]
                found.add(Table(parts[-2], parts[-1]))
        elif isinstance(node, pg.CommentStmt) and node.objtype == pg.OBJECT_TABLE:
            parts = ["", *(item.string.sval for item in node.object.list.items)]
            found.add(Table(parts[-2], parts[-1]))
    return {table for table in found if table.schemaname or table.relname not in subqueries}


def walk(node: Any) -> Iterator[Any]:
    """Yield a node and what it holds; what FOR UPDATE OF names is an alias and left out."""
    yield node
    for field, value in node.ListFields():
        if field.message_type is None or field.name == "locked_rels":
            continue
        for one in value if field.is_repeated else (value,):
            yield from walk(one)


LEADING = frozenset(
    {pg.FROM, pg.JOIN, pg.INTO, pg.UPDATE, pg.TABLE, pg.ONLY, pg.USING, pg.TRUNCATE, pg.COPY}
    | {pg.REFERENCES, pg.VACUUM, pg.ANALYZE, pg.LOCK_P, pg.CLUSTER, pg.VIEW}
)
"""Words that a table follows."""
BETWEEN = frozenset({pg.IF_P, pg.NOT, pg.EXISTS, pg.ONLY, pg.LATERAL_P, pg.CONCURRENTLY})
"""What may stand between such a word and the table."""


def of_words(found: Scan) -> set[Table]:
    """Return the names that follow a word that a table follows."""
    first = found.word(found.tokens[0]).upper() if found.tokens else b""
    if first in {b"FETCH", b"MOVE"}:  # FROM a cursor
        return set()
    if first == b"REPACK":  # a word of 19, which the parser does not know
        return of_repack(found)
    tables: set[Table] = set()
    expects = False
    for place, token in enumerate(found.tokens):
        between = token.token in BETWEEN
        if expects and not between and is_name(token):
            tables.add(name_at(found, place))
        expects = token.token in LEADING or (expects and between)
    return tables


def of_repack(found: Scan) -> set[Table]:
    """Return the table of a REPACK, which may follow options in parentheses."""
    closes = [place for place, token in enumerate(found.tokens) if found.word(token) == b")"]
    has_options = found.tokens[1:2] and found.word(found.tokens[1]) == b"("
    place = closes[0] + 1 if has_options and closes else 1
    if place < len(found.tokens) and is_name(found.tokens[place]):
        return {name_at(found, place)}
    return set()


def is_name(token: Token) -> bool:
    """Tell whether a token may be the name of a table."""
    return token.token in NAMES or token.keyword_kind in NAMING


def name_at(found: Scan, place: int) -> Table:
    """Return the name that begins with a token."""
    parts = ["", unquoted(found.word(found.tokens[place]))]
    while place + 2 < len(found.tokens) and found.tokens[place + 1].token == DOT:
        place += 2
        parts.append(unquoted(found.word(found.tokens[place])))
    return Table(parts[-2], parts[-1])


def unquoted(word: bytes) -> str:
    """Return an identifier as the catalog has it."""
    name = word.decode()
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
