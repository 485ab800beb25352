"""Whether a statement names a table, by its stored text: literals and comments are gone from it.

A name counts where PostgreSQL expects a table. What reads it through a function or a
view is not found, nor what is kept by its first word alone (VACUUM, LOCK, EXPLAIN).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence

SCHEMA, BARE = "schema", "bare"
"""How a table is named: with its schema, or without."""

TOKEN = re.compile(r'"(?:[^"]|"")*"|[\w$]+|[(),.]|[^\s\w]')
BEFORE = frozenset(
    {"from", "join", "into", "update", "table", "only", "using", "truncate", "references", "copy"}
    | {"of"}
)
"""Words that a table follows."""
LISTS = frozenset({"from", "table", "using", "truncate", "of"})
"""Those that several tables follow, with commas between."""
BETWEEN = frozenset({"if", "not", "exists", "only", "lateral", "concurrently"})
"""What may stand between such a word and the table."""
AFTER = frozenset(
    {"where", "group", "order", "having", "limit", "offset", "set", "values", "returning", "select"}
    | {"union", "except", "intersect", "window", "for", "when"}
)
"""Words that end a list of tables."""
SPECIAL = frozenset({"extract", "substring", "trim", "overlay"})
"""Functions whose arguments have a FROM of their own."""


def named(text: str, schemas: Collection[str], relname: str) -> str:
    """Return SCHEMA or BARE for a statement that names a table of some schemas, else ''."""
    if not pattern_of(relname).search(text):
        return ""
    tokens = TOKEN.findall(text)
    names = [unquoted(token) for token in tokens]
    found = ""
    for parts in tables_of(tokens, names):
        if parts[-1] != relname:
            continue
        if len(parts) > 1 and parts[-2] in schemas:
            return SCHEMA
        if len(parts) == 1 and relname not in subqueries_of(tokens, names):
            found = BARE
    return found


@functools.lru_cache(maxsize=64)
def pattern_of(relname: str) -> re.Pattern[str]:
    """Return what finds a name that is not part of a longer word, in any case."""
    return re.compile(rf"(?<![\w$]){re.escape(sought(relname))}(?![\w$])", re.IGNORECASE)


def sought(relname: str) -> str:
    """Return what every text that names a table contains, in any case."""
    return relname.replace('"', '""')


def unquoted(token: str) -> str:
    """Return an identifier as the catalog has it; other tokens in lower case."""
    if token.startswith('"'):
        return token[1:-1].replace('""', '"')
    return token.lower()


def is_name(token: str) -> bool:
    """Tell whether a token is an identifier or a word."""
    return token.startswith('"') or token[0].isalpha() or token[0] == "_"


def tables_of(tokens: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """Return the names that stand where a table is expected, each as its parts."""
    found: list[list[str]] = []
    expects = listed = False
    outer: list[bool] = []
    for place in range(len(tokens)):
        kind = kind_of(tokens, names, place)
        if kind == "name" and expects:
            found.append(name_at(tokens, names, place))
        elif kind == "(":
            outer.append(listed)
            listed = expects  # FROM (a JOIN b …): else an expression or a subquery
        elif kind == ")":
            listed = bool(outer) and outer.pop()
        elif kind == "before":
            listed = listed or names[place] in LISTS
        elif kind == "after":
            listed = False
        expects = (
            kind == "before"
            or (kind == "," and listed)
            or (expects and kind in {"(", "between"})
        )  # fmt: skip
    return found


def kind_of(tokens: Sequence[str], names: Sequence[str], place: int) -> str:
    """Return what a token is to a list of tables: a sign, before, between, after, name or ''."""
    word = tokens[place]
    if word in {"(", ")", ","}:
        return word
    if not is_name(word):
        return ""
    if not word.startswith('"'):
        if begins(names, place):
            return "before"
        for kind, words in (("between", BETWEEN), ("after", AFTER)):
            if names[place] in words:
                return kind
    return "name"


def begins(names: Sequence[str], place: int) -> bool:
    """Tell whether a table follows a word."""
    word = names[place]
    if word == "on":
        return names[0] == "create"
    if word != "from":
        return word in BEFORE
    return not (place and names[place - 1] == "distinct") and not in_special(names, place)


def in_special(names: Sequence[str], place: int) -> bool:
    """Tell whether a FROM belongs to the function whose parenthesis it stands in."""
    depth = 0
    for before in range(place - 1, 0, -1):
        if names[before] == ")":
            depth += 1
        elif names[before] == "(" and depth:
            depth -= 1
        elif names[before] == "(":
            return names[before - 1] in SPECIAL
    return False


def name_at(tokens: Sequence[str], names: Sequence[str], place: int) -> list[str]:
    """Return the parts of the name that begins at a place."""
    parts = [names[place]]
    while place + 2 < len(tokens) and tokens[place + 1] == "." and is_name(tokens[place + 2]):
        place += 2
        parts.append(names[place])
    return parts


def subqueries_of(tokens: Sequence[str], names: Sequence[str]) -> set[str]:
    """Return the names that WITH gives to subqueries: they hide tables of the same name."""
    found = set()
    for place in range(1, len(tokens) - 1):
        before, after = names[place - 1], names[place + 1]
        opens = before in {"with", "recursive"} and after in {"as", "("}
        follows = before == "," and after == "as" and set(names[place + 2 : place + 5]) & {"("}
        if is_name(tokens[place]) and (opens or follows):
            found.add(names[place])
    return found
