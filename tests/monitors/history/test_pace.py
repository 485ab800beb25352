"""How fast gauges grow, whatever a vacuum, a reset or another method takes away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.advisor import Rate
from monitors.history import pace
from monitors.history.pace import Gauge
from monitors.history.window import Window
from tests.monitors.history.conftest import START

pytestmark = pytest.mark.django_db
HOUR = 60
RELID = 16400
PLACE = (0, RELID)
DEAD = Gauge("n_dead_tup", taken_at=("last_vacuum", "last_autovacuum"))


@pytest.fixture
def read(keep):
    """read(minutes, dead rows, last_vacuum=…): a table as it was read then."""

    def put(minutes, dead, **columns):
        keep(minutes, {RELID: {"n_dead_tup": dead, **columns}}, probe="tables")

    return put


def rate_of(target, *, hours=6, until=None):
    """Return the rate of the hours before so many minutes after START."""
    end = START + timedelta(minutes=until or hours * HOUR)
    window = Window(end - timedelta(hours=hours), end, is_live=True)
    return pace.rates("tables", target.pk, [PLACE], window, DEAD).get(PLACE)


def test_it_grows_by_what_was_added_over_the_time_it_took(target, read):
    for minutes, dead in ((10, 100), (70, 400), (130, 700)):
        read(minutes, dead)

    assert rate_of(target) == Rate(600 / 7200, 7200.0)


def test_what_stood_when_the_window_began_counts_from_then(target, read):
    read(0, 100)
    read(2 * HOUR, 700)

    # From an hour after START on: 600 in the one hour of the window.
    assert rate_of(target, hours=1, until=2 * HOUR + 0.001).seconds == pytest.approx(3600, abs=1)
    assert rate_of(target, hours=1, until=2 * HOUR + 0.001).per_second == pytest.approx(
        600 / 3600, rel=0.001
    )


def test_time_without_a_change_counts_up_to_the_last_snapshot(target, read):
    read(0, 100)
    read(HOUR, 700)
    read(2 * HOUR, 700)  # nothing is written: it did not change

    assert rate_of(target) == Rate(600 / 7200, 7200.0)


def test_what_did_not_change_in_the_window_does_not_grow(target, read):
    read(0, 100)
    read(8 * HOUR, 100)

    assert rate_of(target, hours=6, until=8 * HOUR) == Rate(0.0, 6 * 3600.0)


def test_what_a_vacuum_takes_away_does_not_count_nor_its_time(target, read):
    vacuumed = START + timedelta(minutes=80)
    read(0, 100)
    read(HOUR, 400)
    read(2 * HOUR, 0, last_autovacuum=vacuumed)
    read(3 * HOUR, 300, last_autovacuum=vacuumed)

    assert rate_of(target) == Rate(600 / 7200, 7200.0)


def test_pruning_between_vacuums_does_count(target, read):
    for minutes, dead in ((0, 100), (HOUR, 500), (2 * HOUR, 300)):
        read(minutes, dead)

    assert rate_of(target) == Rate(200 / 7200, 7200.0)


def test_a_vacuum_at_every_step_leaves_nothing_to_judge_by(target, read):
    for number, dead in enumerate((100, 50, 20)):
        read(number * HOUR, dead, last_vacuum=START + timedelta(minutes=number))

    assert rate_of(target) == Rate(0.0, 0.0)


def test_counters_that_start_anew_do_not_count(target, keep):
    read = {RELID: {"n_dead_tup": 900, "n_tup_upd": 1000}}
    keep(0, read, probe="tables")
    keep(HOUR, {RELID: {"n_dead_tup": 0, "n_tup_upd": 0}}, probe="tables")
    keep(2 * HOUR, {RELID: {"n_dead_tup": 60, "n_tup_upd": 60}}, probe="tables")

    assert rate_of(target) == Rate(60 / 3600, 3600.0)


def test_a_table_that_came_within_the_window_counts_from_then(target, keep):
    keep(0, {1: {"n_dead_tup": 0}}, probe="tables")
    keep(HOUR, {1: {"n_dead_tup": 0}, RELID: {"n_dead_tup": 50}}, probe="tables")
    keep(2 * HOUR, {1: {"n_dead_tup": 0}, RELID: {"n_dead_tup": 80}}, probe="tables")

    assert rate_of(target) == Rate(30 / 3600, 3600.0)


def test_what_is_gone_or_was_never_read_has_no_rate(target, keep):
    assert rate_of(target) is None

    keep(0, {RELID: {"n_dead_tup": 0}}, probe="tables")
    keep(HOUR, {}, probe="tables")
    assert rate_of(target) is None


def test_it_asks_for_nothing_where_nothing_is_wanted(target):
    window = Window(START, START + timedelta(hours=1), is_live=True)

    assert pace.rates("tables", target.pk, [], window, DEAD) == {}


def test_a_vacuum_that_takes_away_less_than_came_is_growth(target, read):
    for number, dead in enumerate((100, 500, 900)):
        read(number * HOUR, dead, last_autovacuum=START + timedelta(minutes=number))

    assert rate_of(target) == Rate(800 / 7200, 7200.0)


def test_a_rewrite_is_no_growth(target, keep):
    known = ((0, 100, 7), (HOUR, 130, 7), (2 * HOUR, 900, 8), (3 * HOUR, 960, 8))
    for minutes, waste, relfilenode in known:
        row = {"estimate_bytes": waste, "relfilenode": relfilenode, "relkind": "r"}
        keep(minutes, {RELID: row | {"relpages_bytes": 8192, "reltuples": 1.0}}, probe="bloat")
    window = Window(START, START + timedelta(hours=4), is_live=True)

    gauge = Gauge("estimate_bytes", known_by=("relfilenode",))

    found = pace.rates("bloat", target.pk, [PLACE], window, gauge)

    assert found == {PLACE: Rate(90 / 7200, 7200.0)}
