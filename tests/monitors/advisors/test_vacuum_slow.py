"""The speed of running autovacuums against what the cost limit allows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.advisor import Severity
from monitors.advisors.vacuum_slow import ADVISOR, limit_of
from tests.monitors.advisors.rows import (
    DUE,
    NOW,
    SHOP,
    advise,
    ago,
    burning,
    growing,
    later,
    near,
    table,
    vacuuming,
)

FOUND = {
    "tables": [DUE],
    "progress": [vacuuming(done=16_363_636, total=10**9, started_at=ago(3600))],
}
"""Facts in which it finds something."""

# 200 of cost each 2 ms, 22 for a page that is read and dirtied: 4,545 pages a second.
LIMIT = 200 * 500 / 22


TABLES = (table(),)


def of(done, *, total=10**9, seconds=3600, tables=TABLES, **columns):
    work = vacuuming(done=done, total=total, started_at=ago(seconds), **columns)
    return advise(ADVISOR, progress=[work], tables=tables)


@pytest.mark.parametrize(("pct", "found"), [(79.9, 0), (80.1, 1), (100, 1), (129.9, 1), (130.1, 0)])
def test_only_a_speed_near_the_limit_is_the_limits(pct, found):
    assert len(of(round(LIMIT * 3600 * pct / 100))) == found


def test_it_leaves_young_vacuums_alone():
    assert of(round(LIMIT * 599), seconds=599) == []
    assert len(of(round(LIMIT * 600), seconds=600)) == 1


@pytest.mark.parametrize(("left", "severity"), [(7100, Severity.NOTICE), (7300, Severity.WARNING)])
def test_it_is_a_warning_where_hours_are_left(left, severity):
    done = round(LIMIT * 3600)

    [one] = of(done, total=done + round(LIMIT * left))

    assert one.severity == severity
    moment = next(value for label, value, _ in one.evidence if label == "First scan done")
    assert abs(moment - (NOW + timedelta(seconds=left))) < timedelta(seconds=1)


def test_it_names_the_table():
    [one] = of(round(LIMIT * 3600))

    assert one.title.startswith("Autovacuum of public.orders in shop goes as slowly")
    assert (one.database_id, one.relid) == (SHOP, 16400)
    [nameless] = of(round(LIMIT * 3600), tables=())
    assert nameless.title.startswith("Autovacuum of relation 16400 in shop")


@pytest.mark.parametrize(
    "columns",
    [
        {"autovacuum": False},  # not throttled by default
        {"phase": "vacuuming indexes"},
        {"index_vacuum_count": 1},
        {"command": "ANALYZE"},
        {"done": None},
    ],
)
def test_it_judges_first_scans_of_autovacuums_alone(columns):
    work = vacuuming(done=round(LIMIT * 3600), total=10**9) | columns

    assert advise(ADVISOR, progress=[work], tables=[table()]) == []


@pytest.mark.parametrize(("slept_pct", "found"), [(79, 0), (81, 1)])
def test_measured_sleep_says_more_than_speed(slept_pct, found):
    """From 18 on the server may tell how long a vacuum slept."""
    assert len(of(1000, delay_time=3600 * 1000 * slept_pct / 100)) == found


def test_workers_share_the_limit_except_those_with_their_own():
    assert limit_of(None, 1, {}) == pytest.approx(LIMIT)
    assert limit_of(table(), 3, {}) == pytest.approx(LIMIT / 3)
    own = table(reloptions=["autovacuum_vacuum_cost_limit=400"])
    assert limit_of(own, 3, {}) == pytest.approx(LIMIT * 2)
    settings = {"autovacuum_vacuum_cost_limit": "1000", "autovacuum_vacuum_cost_delay": "4"}
    assert limit_of(None, 1, settings) == pytest.approx(LIMIT * 2.5)
    assert limit_of(None, 1, {"autovacuum_vacuum_cost_delay": "0"}) is None


# When it hurts: it has run for an hour and has two to go; 20,050 dead rows make it due again.


def slow(**facts):
    done = round(LIMIT * 3600)
    work = vacuuming(done=done, total=round(LIMIT * 3 * 3600), started_at=ago(3600))
    [one] = advise(ADVISOR, progress=[work], **{"tables": [table()], **facts})
    return one


def test_it_hurts_when_the_table_is_due_again_before_it_is_done():
    one = slow(rates=growing("n_dead_tup", 10_025))

    assert one.hurts_at == near(later(1))
    assert one.hurts.startswith("as many rows have died since it began as make the table due")


def test_it_hurts_already_where_the_table_is_due_again():
    assert slow(rates=growing("n_dead_tup", 20_051)).hurts_already


def test_it_hurts_when_a_vacuum_is_forced_before_it_is_done():
    rates = growing("n_dead_tup", 10)

    one = slow(rates=rates, burn=burning(1000), next_xid=1000 + 199_999_000)

    assert one.hurts_at == near(later(1))
    assert one.hurts.startswith("a vacuum to prevent wraparound is forced")


def test_it_has_no_date_where_it_is_done_before():
    one = slow(rates=growing("n_dead_tup", 5000))

    assert one.hurts_at is None
    assert one.hurts == (
        "no date: its first scan is done about 24 Nov 12:42 UTC, before the table is due again"
    )


def test_it_has_no_date_of_a_table_that_was_not_read():
    one = slow(tables=[], rates=growing("n_dead_tup", 5000))

    assert (one.hurts, one.hurts_at) == ("no date so far: its table was not read yet", None)
