"""What an action changed, in words."""

from __future__ import annotations

import pytest

from monitors.models import Action
from monitors.rows.effects import adds, changes_of, lock_words, statement_of


def test_it_pairs_what_was_measured_before_and_after():
    changes = changes_of(
        {"n_dead_tup": 200, "size_bytes": 10, "gone": 1}, {"n_dead_tup": 50, "size_bytes": 10}
    )

    assert [(one.label, one.unit, one.change_pct) for one in changes] == [
        ("Dead rows", "", -75.0),
        ("Size", "bytes", 0.0),
    ]
    assert [one.is_same for one in changes] == [False, True]


def test_nothing_is_compared_with_nothing():
    (from_zero, unknown) = changes_of(
        {"n_dead_tup": 0, "size_bytes": 5}, {"n_dead_tup": 9, "size_bytes": None}
    )

    assert from_zero.change_pct is None
    assert unknown.change_pct is None


@pytest.mark.parametrize(("name", "better"), [("n_dead_tup", True), ("n_live_tup", False)])
def test_fewer_live_rows_are_no_success(name, better):
    (change,) = changes_of({name: 10}, {name: 1})

    assert change.is_better is better


def test_lists_and_the_servers_own_counts_are_no_effect():
    assert changes_of({"pids": [1], "vacuum_count": 1}, {"pids": [], "vacuum_count": 2}) == []


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("AccessExclusiveLock", "Nobody can read or write"),
        ("SHARE UPDATE EXCLUSIVE", "Reads and writes go on"),
        ("", ""),
    ],
)
def test_a_lock_is_explained(mode, words):
    assert lock_words(mode).startswith(words)


def test_a_signal_is_told_by_its_function():
    action = Action(name="cancel_backend", arguments={"pid": "4711"}, sql="WITH target AS …")

    assert statement_of(action) == "pg_cancel_backend(4711)"


def test_an_effect_that_the_outcome_says_already_is_not_said_twice():
    said = Action(
        outcome="Cancelled; 3 sessions released.", effect="cancelled; 3 sessions released"
    )

    assert not adds(said)
    assert adds(Action(outcome="Done.", effect="dead rows 9 → 0"))
