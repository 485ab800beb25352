"""Text from targets: decoding that never fails, and statements without their literals."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from postgast import pg_query_pb2 as pg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from monitors.pg import lexer
from monitors.pg.lexer import Scan, Token

MAX_STATEMENT = 64 * 1024
REMEMBERED = 4096
"""Characters of a text whose redaction is remembered: the same ones are read every second."""

CUT = "\N{HORIZONTAL ELLIPSIS}"
NOT_READ = "/* not shown: where its literals end can't be told */"
"""Stands for what was not understood, and all that comes after it."""

DOUBTFUL = re.compile(rb"(?<!\\)(?:\\\\)*\\'")
"""A quote after a backslash: with `standard_conforming_strings = off` the literal goes on."""

FOLDED = b"/*, ... */"
"""What pg_stat_statements puts in the place of a list from 18 on."""

WHITESPACE = b" \t\n\r\f\v"


def decoded(data: Buffer) -> str:
    """Return UTF-8 as text; bytes that are none become U+FFFD."""
    return bytes(data).decode("utf-8", "replace")


class TolerantText(Loader):
    """Decode text as UTF-8 and replace what is not.

    `pg_stat_activity` shows statements of other databases in their own
    encodings, and a SQL_ASCII database has none: one such row must not hide
    the others.
    """

    def load(self, data: Buffer) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        return decoded(data)


class TolerantBinaryText(TolerantText):
    """The same for the binary format, whose text is sent alike."""

    format = Format.BINARY


@functools.lru_cache(maxsize=REMEMBERED)
def remembered(sql: str) -> str:
    """Return what `redacted` does."""
    return redacted(sql)


def redact(sql: str) -> str:
    """Return a statement with `?` for each literal and without its comments, else as it is.

    Parameters stay, and what PostgreSQL leaves when it normalises a statement: such a text
    is returned unchanged. One that was cut off loses the literal or comment that the cut
    fell in. What is not understood is left out with all that comes after it, and
    `NOT_READ` stands in its place.
    """
    return remembered(sql) if len(sql) <= REMEMBERED else redacted(sql)


def redacted(sql: str) -> str:
    """Return a statement without literals and comments; see `redact`."""
    found = lexer.scan(sql[:MAX_STATEMENT])
    kept, is_understood = without_literals(found)
    text = kept.decode(errors="replace").strip()
    if not is_understood or (found.problem and not is_cut(found)):
        return f"{text} {NOT_READ}".lstrip()
    if found.problem:
        return f"{text} {'' if ends_in_no_literal(found) else '?'}{CUT}".lstrip()
    return f"{text}{CUT}" if len(sql) > MAX_STATEMENT else text


def is_cut(found: Scan) -> bool:
    """Tell whether a text ends inside of a literal, a quoted name or a comment."""
    return found.problem.startswith("unterminated")


def ends_in_no_literal(found: Scan) -> bool:
    """Tell whether what a text ends in is no literal."""
    return found.problem.startswith(("unterminated /*", "unterminated quoted identifier"))


def without_literals(found: Scan) -> tuple[bytes, bool]:
    """Return a text without literals and comments, and whether all of it was understood."""
    kept = bytearray()
    fixed = set(fixed_numbers(found))
    end, after_comment = 0, False
    for place, token in enumerate(found.tokens):
        gap, word = found.text[end : token.start], found.word(token)
        if gap.strip(WHITESPACE):
            return bytes(kept), False
        if after_comment:
            gap = b"" if not kept or kept[-1:].isspace() else b" "
        kept += gap
        end, after_comment = token.end, token.token in lexer.COMMENTS and word != FOLDED
        if after_comment or is_prefix(token):
            continue
        is_literal = token.token in lexer.LITERALS and place not in fixed
        kept += b"?" if is_literal else word
        if is_literal and word[:1] in b"'uU" and DOUBTFUL.search(word):
            return bytes(kept), False
    return bytes(kept), not found.text[end : found.end].strip(WHITESPACE)


def is_prefix(token: Token) -> bool:
    """Tell whether a token is the N of N'…'."""
    return bool(token.token == pg.NCHAR and token.end - token.start == 1)


OPENS, CLOSES, COMMA, MINUS, SEMICOLON = (
    pg.ASCII_40, pg.ASCII_41, pg.ASCII_44, pg.ASCII_45, pg.ASCII_59
)  # fmt: skip
SIZED = frozenset(
    {pg.NUMERIC, pg.DECIMAL_P, pg.DEC, pg.VARCHAR, pg.CHAR_P, pg.CHARACTER, pg.NCHAR, pg.BIT}
    | {pg.FLOAT_P, pg.TIME, pg.TIMESTAMP, pg.INTERVAL}
)
"""Types that no function may be called by: a number in their parentheses is a size."""
BEFORE_SECOND = frozenset({pg.INTERVAL, pg.TO, pg.SCONST})
"""After which SECOND is a part of an interval's type: a function may have that name."""
ENDING = frozenset({pg.SELECT, pg.VALUES, pg.LIMIT, pg.OFFSET, pg.FETCH, pg.RETURNING, pg.SET})
"""Words after which no list of ORDER BY or GROUP BY goes on."""
FOLLOWING = frozenset(
    {0, COMMA, CLOSES, SEMICOLON, pg.ASC, pg.DESC, pg.NULLS_LA, pg.LIMIT, pg.OFFSET, pg.FETCH}
    | {pg.HAVING, pg.ORDER, pg.FOR, pg.UNION, pg.EXCEPT, pg.INTERSECT, pg.WINDOW}
)
"""What may follow the place of a column in such a list; 0 is the end."""
DIGITS = 5
"""Of such numbers, at most."""


def fixed_numbers(found: Scan) -> Iterator[int]:
    """Yield which tokens are numbers that PostgreSQL takes for syntax and never normalises.

    They are sizes of types, as in numeric(10, 2), and places of results, as in ORDER BY 1.
    """
    tokens = [(i, t) for i, t in enumerate(found.tokens) if t.token not in lexer.COMMENTS]
    if all(token.token != pg.ICONST for _, token in tokens):
        return
    kinds = [0, 0, *(token.token for _, token in tokens), 0]
    outer: list[tuple[bool, bool]] = []
    # In the parentheses of a function or a window ORDER BY 1 is no place, but a value.
    in_query, listed, sized = True, False, False
    for (place, token), (far, before, kind, after) in zip(tokens, quadruples(kinds), strict=True):
        if kind == pg.ICONST and token.end - token.start <= DIGITS:
            if sized or (listed and before in {pg.BY, COMMA} and after in FOLLOWING):
                yield place
        elif kind == OPENS:
            outer.append((in_query, listed))
            sized = before in SIZED or (before == pg.VARYING and far in SIZED)
            sized = sized or (before == pg.SECOND_P and far in BEFORE_SECOND)
            in_query = listed = False
        elif kind == CLOSES:
            in_query, listed = outer.pop() if outer else (True, False)
            sized = False
        elif kind == pg.BY:
            listed = in_query and before in {pg.ORDER, pg.GROUP_P}
        else:
            listed, sized = listed and kind not in ENDING, sized and kind in {COMMA, MINUS}
            in_query = in_query or kind == pg.SELECT


def quadruples(kinds: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Return each kind between the two before it and the one after it."""
    return zip(kinds, kinds[1:], kinds[2:], kinds[3:], strict=False)
