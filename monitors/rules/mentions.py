"""Whether a statement names a table, by its stored text: literals and comments are gone from it.

What reads a table through a function or a view is not found.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

from monitors.pg import lexer

SCHEMA, BARE = "schema", "bare"
"""How a table is named: with its schema, or without."""


def named(text: str, schemas: Collection[str], relname: str) -> str:
    """Return SCHEMA or BARE for a statement that names a table of some schemas, else ''."""
    if not pattern_of(relname).search(text):
        return ""
    found = {table.schemaname for table in lexer.tables(text) if table.relname == relname}
    if found.intersection(schemas):
        return SCHEMA
    return BARE if "" in found else ""


@functools.lru_cache(maxsize=64)
def pattern_of(relname: str) -> re.Pattern[str]:
    """Return what finds a name that is not part of a longer word, in any case."""
    return re.compile(rf"(?<![\w$]){re.escape(sought(relname))}(?![\w$])", re.IGNORECASE)


def sought(relname: str) -> str:
    """Return what every text that names a table contains, in any case."""
    return relname.replace('"', '""')
