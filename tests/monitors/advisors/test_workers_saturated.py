"""Busy autovacuum workers at each reading, and tables that wait for one."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.workers_saturated import ADVISOR
from tests.monitors.advisors.rows import DUE, advise, growing, later, near, table, vacuuming

FOUND = {"workers": [3] * 20, "tables": [DUE]}
"""Facts in which it finds something."""

DUE = table(n_dead_tup=20_051)  # 1 beyond its threshold


def of(workers, tables=(DUE,), **facts):
    return advise(ADVISOR, workers=workers, tables=tables, **facts)


@pytest.mark.parametrize(("busy", "found"), [(17, 0), (18, 1), (20, 1)])
def test_nine_of_ten_readings_must_show_all_of_them_busy(busy, found):
    assert len(of([3] * busy + [2] * (20 - busy))) == found


def test_it_says_nothing_by_few_readings():
    assert of([3] * 19) == []
    assert len(of([3] * 20)) == 1


def test_it_says_nothing_while_nobody_waits():
    assert of([3] * 20, tables=[table(n_dead_tup=20_050)]) == []
    assert of([3] * 20, progress=[vacuuming()]) == []  # it is the one that is worked on
    off = table(n_dead_tup=90_000, reloptions=["autovacuum_enabled=off"])
    assert of([3] * 20, tables=[off]) == []


def test_it_knows_how_many_there_may_be():
    assert of([3] * 20, settings={"autovacuum_max_workers": "5"}) == []
    assert len(of([5] * 20, settings={"autovacuum_max_workers": "5"})) == 1


@pytest.mark.parametrize(
    ("waiting", "severity"),
    [(1, Severity.WARNING), (49, Severity.WARNING), (50, Severity.CRITICAL)],
)
def test_it_is_critical_when_many_wait(waiting, severity):
    tables = [DUE | {"relid": 20_000 + number} for number in range(waiting)]

    [one] = of([3] * 20, tables=tables)

    assert one.severity == severity


@pytest.mark.parametrize(("version", "how"), [(170005, "restart"), (180000, "reload")])
def test_it_says_what_to_raise_first_and_what_it_takes(version, how):
    [one] = of([3] * 20, server_version=version)

    assert one.title == "All 3 autovacuum workers are busy and 1 table waits for one."
    assert "raise autovacuum_vacuum_cost_limit first" in one.why
    assert f"autovacuum_max_workers ({how})" in one.why
    assert ("Readings with all of them busy", 100.0, "pct") in one.evidence


def test_it_hurts_when_a_table_that_waits_is_at_twice_its_threshold():
    calm = table(relid=2, relname="calm", n_dead_tup=20_051)
    rates = growing("n_dead_tup", 20_049) | growing("n_dead_tup", 1, relid=2)

    [one] = of([3] * 20, tables=[calm, DUE], rates=rates)

    assert one.hurts_at == near(later(1))
    assert one.hurts.startswith("public.orders waits at 2 times its threshold, at 20,049 dead")


def test_it_hurts_already_where_one_is():
    [one] = of([3] * 20, tables=[DUE, table(relid=2, relname="late", n_dead_tup=40_101)])

    assert (one.hurts_already, one.hurts) == (True, "public.late waits at 2 times its threshold")
