"""Differences: exact through resets, restarts, gaps and objects that come and go."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import models
from hypothesis import given, strategies as st

from monitors.history import store
from monitors.history.compare import Verdict, compare, differences
from monitors.history.reading import Comparison, Key
from monitors.models.history import Change
from monitors.probe import Sample


class CounterSample(Sample):
    """Two counters and a gauge of one object."""

    name = models.TextField()
    calls = models.BigIntegerField()
    rows = models.BigIntegerField()
    size = models.BigIntegerField()

    key = ("name",)
    counters = ("calls", "rows")
    gauges = ("size",)

    class Meta:
        abstract = True


FIRST = Verdict(first=True, new_epoch=False, reset=False, whole_reset=False)
LATER = Verdict(first=False, new_epoch=False, reset=False, whole_reset=False)
NEW_EPOCH = Verdict(first=False, new_epoch=True, reset=False, whole_reset=False)
RESET_OF_ONE = Verdict(first=False, new_epoch=False, reset=True, whole_reset=False)
RESET_OF_ALL = Verdict(first=False, new_epoch=False, reset=True, whole_reset=True)

Rows = dict[Key, tuple[Any, ...]]


def compared(before: Rows, rows: list[tuple[Any, ...]], verdict: Verdict) -> Comparison:
    known = {key: (row, ()) for key, row in before.items()}
    return compare(CounterSample, known, rows, verdict)


def grown(comparison: Comparison) -> dict[str, tuple[Change, tuple[Any, ...]]]:
    return {
        row[0]: (change, differences(change, before[1:3] if before else None, row[1:3]))
        for change, before, row in comparison.changed
    }


def test_the_first_snapshot_is_a_baseline() -> None:
    found = compared({}, [("a", 5, 7, 1)], FIRST)

    assert grown(found) == {"a": (Change.BASELINE, (None, None))}


def test_a_counter_that_was_not_read_before_tells_of_no_growth_at_first() -> None:
    before, now = (5, None, None), (7, 900, 3)

    assert differences(Change.CHANGED, before, now) == (2, 900, 3)
    assert differences(Change.CHANGED, before, now, {1}) == (2, None, 3)
    assert differences(Change.CHANGED, (7, 900, 3), (8, 901, 3), {1}) == (1, 1, 0)
    assert differences(Change.APPEARED, None, now, {1}) == now


def test_what_did_not_change_writes_nothing() -> None:
    found = compared({("a",): ("a", 5, 7, 1)}, [("a", 5, 7, 1)], LATER)

    assert not found.changed
    assert not found.gone


def test_what_appears_later_counts_from_zero() -> None:
    found = compared({("a",): ("a", 5, 7, 1)}, [("a", 5, 7, 1), ("b", 2, 3, 1)], LATER)

    assert grown(found) == {"b": (Change.APPEARED, (2, 3))}


def test_what_is_missing_from_a_complete_snapshot_is_gone() -> None:
    found = compared({("a",): ("a", 5, 7, 1), ("b",): ("b", 1, 1, 1)}, [("a", 5, 7, 1)], LATER)

    assert found.gone == [("b",)]


def test_a_counter_that_fell_starts_its_object_anew_and_no_other() -> None:
    before = {("a",): ("a", 5, 7, 1), ("b",): ("b", 1, 1, 1)}

    found = compared(before, [("a", 3, 9, 1), ("b", 4, 1, 1)], LATER)

    assert grown(found) == {"a": (Change.RESTARTED, (3, 9)), "b": (Change.CHANGED, (3, 0))}


def test_a_new_epoch_counts_everything_from_zero_even_what_looks_unchanged() -> None:
    before = {("a",): ("a", 5, 7, 1), ("b",): ("b", 0, 0, 1)}

    found = compared(before, [("a", 5, 7, 1), ("b", 0, 0, 1)], NEW_EPOCH)

    assert grown(found) == {"a": (Change.RESTARTED, (5, 7))}


def test_a_reset_of_something_else_gives_no_difference_that_may_be_false() -> None:
    before = {("a",): ("a", 5, 7, 1), ("b",): ("b", 9, 9, 1)}

    found = compared(before, [("a", 6, 8, 1), ("b", 1, 1, 1)], RESET_OF_ONE)

    assert grown(found) == {"a": (Change.UNKNOWN, (None, None)), "b": (Change.RESTARTED, (1, 1))}


def test_a_reset_of_all_counts_from_zero_although_a_counter_grew_past_its_old_value() -> None:
    found = compared({("a",): ("a", 5, 7, 1)}, [("a", 6, 8, 1)], RESET_OF_ALL)

    assert grown(found) == {"a": (Change.RESTARTED, (6, 8))}


def test_a_gauge_alone_writes_a_row_with_differences_of_zero() -> None:
    found = compared({("a",): ("a", 5, 7, 1)}, [("a", 5, 7, 2)], LATER)

    assert grown(found) == {"a": (Change.CHANGED, (0, 0))}


def test_an_object_that_a_view_says_twice_is_kept_once() -> None:
    found = compared({}, [("a", 5, 7, 1), ("a", 6, 7, 1)], FIRST)

    assert len(found.changed) == 1


THREE = {(name,): (name, 1, 1, 1) for name in "abc"}


@pytest.mark.parametrize(
    ("names", "appeared", "gone"),
    [
        ("abc", [], []),
        ("cab", [], []),
        ("abd", ["d"], [("c",)]),
        ("dab", ["d"], [("c",)]),
        ("aab", [], [("c",)]),
        ("a", [], [("b",), ("c",)]),
        ("", [], [("a",), ("b",), ("c",)]),
    ],
)
def test_objects_are_found_by_their_names_in_whatever_order_they_come(
    names: str, appeared: list[str], gone: list[Key]
) -> None:
    rows = [(name, 1 + (name == "b"), 1, 1) for name in names]

    found = compared(dict(THREE), rows, LATER)

    changed = {name: change for name, (change, _) in grown(found).items()}
    grew = {"b": Change.CHANGED} if "b" in names else {}
    assert changed == {**grew, **dict.fromkeys(appeared, Change.APPEARED)}
    assert found.gone == gone
    assert {key: row for key, (row, _) in found.rows.items()} == {(row[0],): row for row in rows}
    again = compare(CounterSample, found.rows, rows, LATER)
    assert not again.changed
    assert not again.gone


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.sampled_from("abc"), st.integers(0, 50)),
        st.tuples(st.just("snapshot"), st.just(""), st.just(0)),
        st.tuples(st.just("crash"), st.just(""), st.just(0)),
        st.tuples(st.just("reset"), st.just(""), st.just(0)),
        st.tuples(st.just("drop"), st.sampled_from("abc"), st.just(0)),
    ),
    max_size=40,
)


@given(EVENTS)
def test_the_differences_add_up_to_what_the_snapshots_could_see(
    events: list[tuple[str, str, int]],
) -> None:
    """A server that counts, is reset, crashes and drops objects, with a snapshot before each.

    Taking a last snapshot before counters vanish, all calls are accounted for.
    What is made again after a drop has another key, as PostgreSQL's oids are.
    """
    made = dict.fromkeys("abc", 0)
    counters: dict[str, int] = {}
    before: Rows = {}
    state = {"first": True, "epoch": False, "reset": False}
    truth = total = 0

    def snapshot() -> int:
        nonlocal before
        verdict = Verdict(
            first=state["first"],
            new_epoch=state["epoch"],
            reset=state["reset"],
            whole_reset=state["reset"],
        )
        found = compared(before, [(name, n, 0, 0) for name, n in counters.items()], verdict)
        before = {key: row for key, (row, _) in found.rows.items()}
        state.update(first=False, epoch=False, reset=False)
        return sum(change[1][0] or 0 for change in grown(found).values())

    snapshot()
    for what, name, amount in events:
        if what == "calls":
            key = f"{name}{made[name]}"
            counters[key] = counters.get(key, 0) + amount
            truth += amount
            continue
        total += snapshot()
        if what == "crash":
            counters.clear()
            state["epoch"] = True
        elif what == "reset":
            counters = dict.fromkeys(counters, 0)
            state["reset"] = True
        elif what == "drop":
            counters.pop(f"{name}{made[name]}", None)
            made[name] += 1
    total += snapshot()

    assert total == truth


@pytest.mark.parametrize("wanted", [0, 1, 450])
def test_refining_asks_for_what_changed_first_and_for_no_more_than_its_limit(wanted: int) -> None:
    from monitors.probes.tables import PROBE, TablesSample  # noqa: PLC0415

    width = len(TablesSample.columns())
    rows = [(relid, *[0] * (width - 1)) for relid in range(wanted)]
    found = compare(TablesSample, {}, rows, FIRST)
    asked: list[Key] = []

    def refine(keys: list[Key]) -> dict[Key, Any]:
        asked.extend(keys)
        return dict.fromkeys(keys, (1, 8192))

    store.apply_refined(PROBE, found, refine)

    assert len(asked) == min(wanted, PROBE.refine_at_once)
    assert sum(refined == (1, 8192) for _, refined in found.rows.values()) == len(asked)


REFINED = (7, False, False, "CREATE INDEX")


def test_refining_asks_again_where_a_name_changed_and_when_an_hour_began() -> None:
    from monitors.probes.indexes import PROBE, IndexesSample  # noqa: PLC0415

    names = IndexesSample.columns()
    name, scans = names.index("indexrelname"), names.index("idx_scan")
    rows: list[list[Any]] = [[oid, *[0] * (len(names) - 1)] for oid in (1, 2)]
    known = {(row[0],): (tuple(row), REFINED) for row in rows}
    used, renamed = rows
    used[scans], renamed[name] = 1, "new"
    found = compare(IndexesSample, known, [tuple(used), tuple(renamed)], LATER)
    asked: list[list[Key]] = []

    def refine(keys: list[Key]) -> dict[Key, Any]:
        asked.append(keys)
        return {(2,): (7, False, True, None)}

    store.apply_refined(PROBE, found, refine)
    store.apply_refined(PROBE, found, refine, hour_began=True)

    assert asked == [[(2,)], [(2,), (1,)]]
    # What could not be read now stays as it was.
    assert found.rows[2,][1] == (7, False, True, "CREATE INDEX")
    assert found.changed[-1][2][-2:] == (True, "CREATE INDEX")
