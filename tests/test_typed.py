"""What `assert_typed` lets pass, and what it does not."""

from __future__ import annotations

from typing import TypedDict

import pytest

from tests.typed import assert_typed


class Part(TypedDict):
    name: str


class Kept(TypedDict):
    count: int
    share: float | None
    pair: tuple[float, float] | None
    names: list[str]
    seconds: dict[str, float]
    parts: list[Part]


ROW: Kept = {
    "count": 1,
    "share": 2,
    "pair": (1.0, 2),
    "names": ["a"],
    "seconds": {"scan": 1.5},
    "parts": [{"name": "a"}],
}


@pytest.mark.parametrize("other", [{}, {"share": None, "pair": None}, {"names": [], "parts": []}])
def test_a_row_passes_that_is_what_its_type_says(other):
    assert_typed({**ROW, **other}, Kept)


@pytest.mark.parametrize(
    "other",
    [
        {"more": 1},
        {"count": None},
        {"count": True},
        {"count": 1.5},
        {"share": "2"},
        {"pair": (1.0,)},
        {"names": [1]},
        {"seconds": {"scan": "1"}},
        {"parts": [{"name": "a", "more": 1}]},
    ],
)
def test_a_row_with_another_key_or_value_fails(other):
    with pytest.raises(AssertionError):
        assert_typed({**ROW, **other}, Kept)


def test_a_row_without_a_key_fails():
    with pytest.raises(AssertionError):
        assert_typed({name: value for name, value in ROW.items() if name != "count"}, Kept)
