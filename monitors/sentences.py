"""Words of servers and of Howdah put together as sentences."""

from __future__ import annotations

import re

ENDS = (".", "!", "?", "…", ";")
"""What needs no full stop: `;` ends a quoted statement, which must stay one that can be run."""
NAME = re.compile(r"\S*[_\d]|\S+\.\S")
"""How pg_stat_statements or public.orders begin, and no word of a language."""


def capital(text: str) -> str:
    """Return text with a capital first letter; a name that it begins with is left as it is."""
    return text if NAME.match(text) else f"{text[:1].upper()}{text[1:]}"


def ended(text: str) -> str:
    """Return text with a full stop, where neither a sentence nor a statement ends it; '' stays ''."""
    return text if not text or text.endswith(ENDS) else f"{text}."


def sentence(text: str) -> str:
    """Return text that begins and ends as a sentence; '' stays ''."""
    return ended(capital(text.strip()))


def second_half(text: str) -> str:
    """Return a sentence as it goes on after a colon: its first word is small, a name stays."""
    is_word = len(text) > 1 and (text[1].islower() or text[1] == " ")
    return f"{text[:1].lower()}{text[1:]}" if is_word else text
