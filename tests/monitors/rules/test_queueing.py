"""Erlang C against sums of exact fractions, and at both of its ends."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from monitors.rules.queueing import (
    LATE,
    LONGEST,
    RARE,
    sizes_to_draw,
    smallest_size,
    wait_of,
    waits,
)


def exact_chance(load: Fraction, size: int) -> Fraction:
    """Return Erlang C by its definition, term by term."""
    term, total = Fraction(1), Fraction(0)
    for k in range(size):
        total += term
        term = term * load / (k + 1)
    last = term * size / (size - load)
    return last / (total + last)


@pytest.mark.parametrize(
    ("load", "size"),
    [
        ("8", 10),
        ("1/2", 1),
        ("9/10", 1),
        ("5", 6),
        ("3", 12),
        ("20", 21),
        ("59/3", 20),
        ("90", 100),
    ],
)
def test_the_chance_to_wait_is_that_of_the_definition(load, size):
    exact = exact_chance(Fraction(load), size)

    found = wait_of(float(Fraction(load)), 0.25, size)

    assert found.chance == pytest.approx(float(exact), rel=1e-9)
    assert found.mean_seconds == pytest.approx(
        float(exact * Fraction(1, 4) / (size - Fraction(load))), rel=1e-9
    )


def test_values_that_are_published():
    """One connection waits by its load (M/M/1); 8 of 10 is in every table of Erlang C."""
    assert wait_of(0.75, 2.0, 1).chance == pytest.approx(0.75)
    assert wait_of(0.75, 2.0, 1).mean_seconds == pytest.approx(6.0)  # 2 s times a / (1 - a)
    assert wait_of(8, 1.0, 10).chance == pytest.approx(0.409, abs=5e-4)
    assert wait_of(2, 1.0, 3).chance == pytest.approx(4 / 9)


@pytest.mark.parametrize("load", [10, 10.0001, 4000])
def test_a_pool_that_can_not_keep_up_has_no_wait_that_could_be_told(load):
    found = wait_of(load, 1.0, 10)

    assert (found.chance, found.mean_seconds, found.late_seconds) == (1.0, None, None)


def test_thousands_of_connections_neither_overflow_nor_vanish():
    tight, wide = waits(4990, 0.01, [5000, 9000])

    assert 0.8 < tight.chance < 0.9
    assert tight.mean_seconds == pytest.approx(tight.chance * 0.01 / 10)
    assert wide.chance < 1e-12
    assert all(math.isfinite(one.mean_seconds or 0) for one in (tight, wide))


def test_without_a_load_nobody_waits():
    assert wait_of(0, 1.0, 1).chance == 0
    assert wait_of(3, 0.0, 5).mean_seconds == 0


def test_one_in_twenty_waits_longer_than_the_late_wait():
    found = wait_of(8, 1.0, 10)
    assert found.late_seconds is not None

    assert found.chance * math.exp(-(10 - 8) * found.late_seconds) == pytest.approx(LATE)
    assert wait_of(1, 1.0, 10).late_seconds == 0  # so few wait at all


def test_more_connections_never_make_one_wait_longer():
    found = waits(17.3, 0.1, range(18, 60))

    means = [one.mean_seconds for one in found]
    assert means == sorted(means, key=lambda value: -(value or 0))
    assert [one.size for one in found] == list(range(18, 60))


def test_the_smallest_size_is_the_first_at_which_next_to_nobody_waits():
    size = smallest_size(8)

    assert size is not None
    assert wait_of(8, 1.0, size).chance <= RARE < wait_of(8, 1.0, size - 1).chance
    assert smallest_size(LONGEST * 2) is None


def test_a_curve_begins_where_it_keeps_up_and_has_what_is_marked():
    sizes = sizes_to_draw(8.4, marked=[8, 9, 35, 140, LONGEST + 1])

    assert sizes[0] == 9
    assert max(sizes) == 35  # 140 would make a corner of it
    assert len(sizes) <= 45
    assert sizes_to_draw(LONGEST * 2) == []


@pytest.mark.parametrize(("load", "seconds", "size"), [(-1, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_what_has_no_meaning_is_refused(load, seconds, size):
    with pytest.raises(ValueError, match="at least"):
        wait_of(load, seconds, size)
