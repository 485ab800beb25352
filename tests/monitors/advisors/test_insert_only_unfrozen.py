"""Big tables that only grow and were never vacuumed, and when that will hurt."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.advisor import Severity
from monitors.advisors.insert_only_unfrozen import ADVISOR
from tests.monitors.advisors.rows import NOW, SHOP, advise, ago, table

FOUND = {"tables": [table(n_tup_ins=9, relpages=200_000)]}
"""Facts in which it finds something."""

PAGES = 122_071  # a little over 1,000,000,000 bytes


def grown(**columns):
    return table(n_tup_ins=10**7, relpages=PAGES, reltuples=10_000_000.0) | columns


def of(row, **facts):
    return advise(ADVISOR, tables=[row], **facts)


@pytest.mark.parametrize(("pages", "found"), [(122_070, 0), (PAGES, 1)])
def test_it_leaves_small_tables_alone(pages, found):
    assert len(of(grown(relpages=pages))) == found


@pytest.mark.parametrize(
    ("visible", "found"), [(0, 1), (PAGES // 10, 1), (PAGES // 10 + 1, 0), (None, 1)]
)
def test_what_is_all_visible_was_looked_after(visible, found):
    assert len(of(grown(relallvisible=visible))) == found


@pytest.mark.parametrize(
    "columns",
    [
        {"n_tup_upd": 1},
        {"n_tup_del": 1},
        {"n_tup_ins": 0},
        {"n_tup_ins": None},  # the past has no counters
        {"last_vacuum": ago(10**6)},
        {"last_autovacuum": ago(10**6)},
        {"relkind": "t"},
    ],
)
def test_it_says_nothing_of_other_tables(columns):
    assert of(grown(**columns)) == []


def test_it_offers_to_freeze_it_and_says_no_date_that_it_does_not_know():
    [one] = of(grown())

    assert one.title == "public.orders in shop only grows and was never vacuumed."
    assert one.arguments == {"database": "shop", "table": "public.orders", "freeze": "true"}
    assert (one.severity, one.hurts_at, one.database_id) == (Severity.NOTICE, None, SHOP)
    assert "forced" not in one.why


# 200,000,000 transactions less the age of 100,000,000, at 10 a second: 115.7 days.


@pytest.mark.parametrize(
    ("rate", "days", "severity"),
    [
        (10, 115.74, Severity.NOTICE),
        (38.5, 30.06, Severity.NOTICE),
        (38.6, 29.98, Severity.WARNING),
    ],
)
def test_it_says_when_a_vacuum_is_forced(rate, days, severity):
    [one] = of(grown(relfrozenxid=1000), next_xid=100_001_000, xids_per_second=rate)

    assert one.severity == severity
    assert (one.hurts_at - NOW) / timedelta(days=1) == pytest.approx(days, abs=0.01)
    assert (
        f"It is forced on {one.hurts_at.day} {one.hurts_at:%B %Y} at the present rate." in one.why
    )
    assert ("Age in transactions", 100_000_000, "count") in one.evidence


def test_the_tables_own_age_counts_where_it_is_lower():
    own = grown(reloptions=["autovacuum_freeze_max_age=100000000"])

    [one] = of(own, next_xid=100_001_000, xids_per_second=10)

    assert one.hurts_at == NOW


@pytest.mark.parametrize("rate", [None, 0, -1, 0.001])
def test_without_a_rate_there_is_no_date(rate):
    [one] = of(grown(), next_xid=100_001_000, xids_per_second=rate)

    assert one.hurts_at is None


@pytest.mark.parametrize(
    ("next_xid", "rate", "why"),
    [
        (None, 10, "no date: its age is not known"),
        (100_001_000, None, "no date so far: needs ten minutes of history"),
        (100_001_000, 0, "no date: no transaction id was used in the last day"),
        (100_001_000, 0.1, "no date: not within 10 years at the present rate"),
    ],
)
def test_it_says_why_it_has_no_date(next_xid, rate, why):
    [one] = of(grown(), next_xid=next_xid, xids_per_second=rate)

    assert (one.hurts_at, one.hurts_already) == (None, False)
    assert one.hurts.endswith(f"; {why}")


def test_it_hurts_already_where_the_vacuum_is_due():
    [one] = of(grown(), next_xid=200_001_001, xids_per_second=10)

    assert one.hurts_already
    assert one.hurts_at is None
