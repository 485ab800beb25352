"""How many of something there were at once."""

from __future__ import annotations

from datetime import timedelta

from monitors.history.at_once import most_at_once
from monitors.history.window import Window
from tests.monitors.history.conftest import START


def running(*pids, autovacuum=True):
    """What the probe `progress` read: workers at a table."""
    values = {"datname": "shop", "relid": 1, "phase": "scanning heap", "autovacuum": autovacuum}
    return {(pid, "VACUUM"): values for pid in pids}


def drawn(target, *, minutes=60, points=60):
    window = Window(START, START + timedelta(minutes=minutes), is_live=False)
    return most_at_once("progress", target.pk, window, "autovacuum", points)


def test_the_most_at_once_counts_and_not_those_by_hand(target, keep):
    keep(0, {}, probe="progress")
    keep(1, running(1) | running(9, autovacuum=False), probe="progress")
    keep(2, running(1, 2, 3), probe="progress")
    keep(3, running(3), probe="progress")
    keep(4, {}, probe="progress")

    assert drawn(target).values["most"] == [0, 1, 3, 3, 1]


def test_who_takes_over_at_one_reading_is_not_one_more(target, keep):
    keep(0, running(1), probe="progress")
    keep(1, running(2), probe="progress")
    keep(2, running(3), probe="progress")

    assert drawn(target).values["most"] == [1, 1, 1]


def test_a_short_peak_inside_a_bucket_is_seen(target, keep):
    for minute, pids in enumerate([(), (1,), (1, 2), (), (), ()]):
        keep(minute, running(*pids), probe="progress")

    assert drawn(target, points=10).values["most"] == [2]


def test_one_that_began_before_the_window_counts_in_it(target, keep):
    keep(-30, running(1), probe="progress")
    keep(0.5, running(1), probe="progress")
    keep(1.5, running(1, 2), probe="progress")

    assert drawn(target).values["most"] == [1, 2]


def test_where_nothing_was_read_is_a_gap(target, keep):
    for minute in (0, 1, 10, 11):
        keep(minute, running(1), probe="progress")

    assert drawn(target).values["most"] == [1, 1, None, 1, 1]
