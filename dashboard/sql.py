"""Statements for reading: escaped, with keywords, numbers, strings and comments marked."""

from __future__ import annotations

import re
from html import escape

from django.utils.safestring import SafeString, mark_safe

WORDS = """
    ADD ALL ALTER ANALYZE AND ANY AS ASC BEGIN BETWEEN BY CASCADE CASE CHECK CLUSTER COALESCE
    COMMIT CONCURRENTLY CONFLICT CONSTRAINT COPY CREATE CROSS CURRENT DATABASE DEFAULT DELETE DESC
    DISTINCT DO DROP ELSE END EXCEPT EXCLUSIVE EXECUTE EXISTS EXPLAIN FALSE FETCH FILTER FIRST FOR
    FOREIGN FREEZE FROM FULL FUNCTION GRANT GROUP HAVING IF ILIKE IN INDEX INNER INSERT INTERSECT
    INTO IS JOIN KEY LAST LATERAL LEFT LIKE LIMIT LOCK MATERIALIZED MERGE MODE NATURAL NOT NOTHING
    NOWAIT NULL NULLS OF OFFSET ON ONLY OR ORDER OUTER OVER PARTITION PRIMARY PROCEDURE REFRESH
    REINDEX RENAME RESET RETURNING REVOKE RIGHT ROLE ROLLBACK ROW ROWS SAVEPOINT SCHEMA SELECT
    SEQUENCE SESSION SET SHARE SHOW SKIP SKIP_LOCKED LOCKED SOME TABLE TEMPORARY THEN TO
    TRANSACTION TRIGGER TRUE TRUNCATE UNION UNIQUE UPDATE USING VACUUM VALUES VIEW WHEN WHERE
    WINDOW WITH WITHIN
"""
KEYWORDS = frozenset(WORDS.split())

TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
      |(?P<string>[eE]?'(?:[^']|'')*(?:'|\Z)|\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z))
      |(?P<quoted>"(?:[^"]|"")*(?:"|\Z))
      |(?P<number>\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b)
      |(?P<word>[A-Za-z_][A-Za-z0-9_$]*)
      |(?P<other>[^\w'"$/-]+|.)""",
    re.VERBOSE | re.DOTALL,
)

MARKS = {"comment": "s", "string": "em", "number": "i"}
"""The style sheet's short elements inside `.sql`."""

LONGEST = 20_000
"""Characters; pg_stat_activity's texts are shorter by default."""


def mark(kind: str, text: str) -> str:
    """Return one token escaped, in its element."""
    if kind == "word" and text.upper() in KEYWORDS:
        return f"<b>{escape(text)}</b>"
    element = MARKS.get(kind)
    return f"<{element}>{escape(text)}</{element}>" if element else escape(text)


def highlight(text: str) -> SafeString:
    """Return a statement as HTML; every character of it is escaped first."""
    tokens = TOKEN.finditer(text[:LONGEST])
    html = "".join(mark(found.lastgroup or "other", found.group()) for found in tokens)
    html += "\N{HORIZONTAL ELLIPSIS}" if len(text) > LONGEST else ""
    return mark_safe(html)  # noqa: S308 - mark() escapes every token
