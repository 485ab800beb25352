"""What is measured of a relation, in words."""

from __future__ import annotations

import pytest

from monitors.pg import relations


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (9_200_000, 1_000_000, "size \N{MINUS SIGN}7.8 MB"),
        (1_000_000, 9_200_000, "size +7.8 MB"),
        (900, 308, "size \N{MINUS SIGN}592 bytes"),
        (900, 900, "size unchanged"),
    ],
)
def test_a_size_that_changed_has_one_sign(before: int, after: int, words: str) -> None:
    assert relations.effect({"size_bytes": before}, {"size_bytes": after}, rows=False) == words
