"""Changed rows against autovacuum's analyze threshold, on both sides of each limit."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.stale_statistics import ADVISOR
from tests.monitors.advisors.rows import DUE, advise, ago, growing, later, near, table, vacuuming

FOUND = {"tables": [DUE]}
"""Facts in which it finds something."""

# 100,000 rows: autovacuum analyzes beyond 50 + 0.1 * 100,000 = 10,050 changed rows.


@pytest.mark.parametrize(
    ("changed", "severity"),
    [
        (30_150, None),
        (30_151, Severity.NOTICE),
        (100_500, Severity.NOTICE),
        (100_501, Severity.WARNING),
    ],
)
def test_it_is_worse_the_further_past(changed, severity):
    found = advise(ADVISOR, tables=[table(n_mod_since_analyze=changed, last_analyze=ago(60))])

    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("changed", "found"), [(10_000, 0), (10_001, 1)])
def test_it_leaves_few_changed_rows_alone(changed, found):
    small = table(reltuples=-1.0, n_mod_since_analyze=changed)

    assert len(advise(ADVISOR, tables=[small])) == found


def test_it_says_that_a_table_was_never_analyzed_and_offers_to():
    [one] = advise(ADVISOR, tables=[table(reltuples=-1.0, n_mod_since_analyze=50_000)])

    assert one.title == (
        "public.orders in shop has 50,000 changed rows and was never analyzed; "
        "autovacuum analyzes beyond 50."
    )
    assert (one.action, one.arguments) == (
        "analyze",
        {"database": "shop", "table": "public.orders"},
    )


def test_its_evidence_says_when_it_was_analyzed_last():
    [one] = advise(
        ADVISOR, tables=[table(n_mod_since_analyze=50_000, last_autoanalyze=ago(86_400))]
    )

    assert "since it was last analyzed" in one.title
    assert one.evidence == (
        ("Changed rows", 50_000, "rows"),
        ("Rows", 100_000, "rows"),
        ("Autovacuum analyzes beyond", 10_050.0, "rows"),
        ("Last autoanalyze", ago(86_400), "at"),
    )


def test_it_says_nothing_of_toast_tables_and_of_what_is_analyzed_now():
    stale = table(n_mod_since_analyze=50_000)

    assert advise(ADVISOR, tables=[stale | {"relkind": "t"}]) == []
    assert advise(ADVISOR, tables=[stale], progress=[vacuuming(command="ANALYZE")]) == []
    assert len(advise(ADVISOR, tables=[stale], progress=[vacuuming()])) == 1


def test_it_leaves_tables_without_autovacuum_to_the_advisor_that_names_that():
    stale = table(n_mod_since_analyze=50_000)

    assert advise(ADVISOR, tables=[stale | {"reloptions": ["autovacuum_enabled=off"]}]) == []
    assert advise(ADVISOR, tables=[stale], settings={"autovacuum": "off"}) == []


def test_it_judges_by_the_tables_own_options():
    tuned = table(n_mod_since_analyze=50_000, reloptions=["autovacuum_analyze_scale_factor=0.5"])

    assert advise(ADVISOR, tables=[tuned]) == []


@pytest.mark.parametrize(
    ("live", "per_hour", "then"),
    [
        (100_000, 4975, "as many changed rows as it has rows"),
        (200_000, 5025, "past 10 times autovacuum's threshold"),
    ],
)
def test_it_says_when_it_is_worse(live, per_hour, then):
    row = table(n_mod_since_analyze=50_250, n_live_tup=live)

    [one] = advise(ADVISOR, tables=[row], rates=growing("n_mod_since_analyze", per_hour))

    assert one.hurts_at == near(later(10))
    assert one.hurts.startswith(f"{then}, at {per_hour:,} changed rows an hour")


def test_a_warning_hurts_already_and_what_does_not_change_has_no_date():
    [warning] = advise(ADVISOR, tables=[table(n_mod_since_analyze=100_501)])
    row = table(n_mod_since_analyze=50_250)
    [level] = advise(ADVISOR, tables=[row], rates=growing("n_dead_tup", 100))

    assert warning.hurts_already
    assert (level.hurts_at, level.hurts_already) == (None, False)
