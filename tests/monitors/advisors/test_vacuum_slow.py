"""The speed of running autovacuums against what the cost limit allows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.advisor import Severity
from monitors.advisors.vacuum_slow import ADVISOR, limit_of
from tests.monitors.advisors.rows import NOW, SHOP, advise, ago, table, vacuuming

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
