"""Texts of targets as one line, and as a cell that no spreadsheet runs."""

from __future__ import annotations

import re
import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode: controls, what turns the direction, halves of pairs, ends of lines."""

# A spreadsheet runs a cell that begins so. Full-width and small forms count as the plain ones in
# some languages; blanks and what nobody sees before them are skipped.
FORMULA = re.compile(
    r"[\s\x00-\x1f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*"
    r"[=+@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b-]"
    r"|[\t\r\n]"
)


def one_line(text: str) -> str:
    """Return a text without what would end its line, move the cursor or turn its direction."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in UNSEEN
        else character
        for character in text
    )


def harmless(text: str) -> str:
    """Return a text as a cell, behind an apostrophe where it begins like a formula."""
    return f"'{text}" if FORMULA.match(text) else text
