"""Text from targets: decoding that never fails, and statements without their literals."""

from __future__ import annotations

import functools

from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

MAX_STATEMENT = 64 * 1024

LITERALS = frozenset(
    {
        TokenType.NUMBER,
        TokenType.STRING,
        TokenType.NATIONAL_STRING,
        TokenType.BYTE_STRING,
        TokenType.HEX_STRING,
        TokenType.BIT_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.UNICODE_STRING,
        TokenType.RAW_STRING,
    }
)


class TolerantText(Loader):
    """Decode text as UTF-8 and replace what is not.

    `pg_stat_activity` shows statements of other databases in their own
    encodings, and a SQL_ASCII database has none: one such row must not hide
    the others.
    """

    def load(self, data: Buffer) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        return bytes(data).decode("utf-8", "replace")


class TolerantBinaryText(TolerantText):
    """The same for the binary format, whose text is sent alike."""

    format = Format.BINARY


@functools.lru_cache(maxsize=4096)
def redact(sql: str) -> str:
    """Return a statement with every literal replaced by `?` and no comments, on one line.

    A text that was cut off inside a literal loses that literal and what
    follows. One that the tokenizer does not understand is reduced to its first
    keyword: what is not understood is not kept.
    """
    sql = sql[:MAX_STATEMENT]
    if not sql.strip():
        return ""
    tokens = tokenize(sql)
    if tokens is not None:
        return without_literals(sql, tokens) or first_keyword(sql)
    head = sql.rpartition("'")[0]
    tokens = tokenize(head)
    if tokens is None or not head:
        return first_keyword(sql)
    return f"{without_literals(head, tokens)} ?…"


def tokenize(sql: str) -> list[Token] | None:
    """Return the tokens of a statement, None if it can't be read."""
    try:
        return Postgres.Tokenizer().tokenize(sql)
    except (SqlglotError, RecursionError, ValueError):
        return None


def without_literals(sql: str, tokens: list[Token]) -> str:
    """Return the statement that the tokens were read from, each literal as `?`."""
    pieces: list[str] = []
    end = 0
    previous: TokenType | None = None
    for token in tokens:
        if pieces and token.start > end:
            pieces.append(" ")
        # $1 is a parameter, not a literal.
        literal = token.token_type in LITERALS and previous is not TokenType.PARAMETER
        pieces.append("?" if literal else sql[token.start : token.end + 1])
        end = token.end + 1
        previous = token.token_type
    return "".join(pieces).strip()


def first_keyword(sql: str) -> str:
    """Return the first word of a statement and an ellipsis, letters only."""
    word = next(iter(sql.split()), "")
    letters = "".join(c for c in word if c.isalpha())
    return f"{letters[:20].upper()} …" if letters else "…"
