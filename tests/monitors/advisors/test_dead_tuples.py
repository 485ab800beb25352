"""Dead rows against the threshold of autovacuum, on both sides of each limit."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.dead_tuples import ADVISOR
from tests.monitors.advisors.rows import DUE, SHOP, advise, ago, growing, later, near, table

FOUND = {"tables": [DUE]}
"""Facts in which it finds something."""

# 100,000 rows: autovacuum starts beyond 50 + 0.2 * 100,000 = 20,050 dead rows.


def test_it_says_nothing_at_the_threshold():
    assert advise(ADVISOR, tables=[table(n_dead_tup=20_050)]) == []


def test_it_notices_the_first_row_past_the_threshold():
    [finding] = advise(ADVISOR, tables=[table(n_dead_tup=20_051)])

    assert finding.severity == Severity.NOTICE
    assert finding.title == (
        "public.orders in shop has 20,051 dead rows; autovacuum starts beyond 20,050."
    )
    assert finding.action == "vacuum"
    assert finding.arguments == {"database": "shop", "table": "public.orders", "analyze": "true"}
    assert finding.database_id == SHOP


@pytest.mark.parametrize(("dead", "found"), [(1000, 0), (1001, 1)])
def test_it_leaves_a_thousand_dead_rows_alone(dead, found):
    small = table(reltuples=0.0, n_dead_tup=dead)

    assert len(advise(ADVISOR, tables=[small])) == found


@pytest.mark.parametrize(
    ("dead", "rows", "severity"),
    [
        (40_100, 100_000, Severity.NOTICE),  # 2 times
        (40_101, 100_000, Severity.WARNING),
        (200_501, 100_000, Severity.WARNING),  # past 10 times, yet under a million
        (1_000_001, 100_000, Severity.CRITICAL),
        (1_000_001, 500_000, Severity.WARNING),  # 9.995 times
    ],
)
def test_it_is_worse_the_further_past(dead, rows, severity):
    [finding] = advise(ADVISOR, tables=[table(n_dead_tup=dead, reltuples=float(rows))])

    assert finding.severity == severity


def test_it_judges_by_the_tables_own_options():
    tuned = table(n_dead_tup=2_100, reloptions=["autovacuum_vacuum_scale_factor=0.02"])

    assert len(advise(ADVISOR, tables=[tuned])) == 1


def test_it_leaves_tables_without_autovacuum_to_the_advisor_that_names_that():
    off = table(n_dead_tup=90_000, reloptions=["autovacuum_enabled=off"])

    assert advise(ADVISOR, tables=[off]) == []
    assert advise(ADVISOR, tables=[table(n_dead_tup=90_000)], settings={"autovacuum": "off"}) == []


def test_it_says_that_a_vacuum_runs_already_and_offers_no_second_one():
    work = {"datname": "shop", "relid": 16400, "command": "VACUUM", "phase": "scanning heap"}

    [finding] = advise(ADVISOR, tables=[table(n_dead_tup=90_000)], progress=[work])

    assert finding.severity == Severity.NOTICE
    assert finding.why == "VACUUM works on it now (scanning heap)."
    assert finding.action == ""


def test_it_does_not_take_another_databases_table_for_the_one_being_vacuumed():
    work = {"datname": "shop", "relid": 16400, "command": "VACUUM", "phase": "scanning heap"}
    names = {SHOP: "archive"}

    [finding] = advise(
        ADVISOR, tables=[table(n_dead_tup=90_000)], progress=[work], database_names=names
    )

    assert finding.action == "vacuum"


def test_it_names_the_main_table_of_a_toast_table():
    main = table(toastrelid=16403)
    toast = table(relid=16403, relkind="t", schemaname="pg_toast", relname="pg_toast_16400")

    [finding] = advise(ADVISOR, tables=[main, toast | {"n_dead_tup": 30_000}])

    assert finding.title.startswith("The TOAST table of public.orders in shop has 30,000")
    assert finding.arguments["table"] == "public.orders"
    assert finding.relid == 16400


def test_a_toast_table_without_options_follows_its_main_table():
    toast = table(relid=16403, relkind="t", schemaname="pg_toast", relname="pg_toast_16400")
    dead = toast | {"n_dead_tup": 30_000}
    off = table(toastrelid=16403, reloptions=["autovacuum_enabled=false"])

    assert advise(ADVISOR, tables=[off, dead]) == []
    own = dead | {"reloptions": ["autovacuum_vacuum_threshold=10"]}
    assert len(advise(ADVISOR, tables=[off, own])) == 1


def test_it_quotes_names_as_regclass_reads_them():
    odd = table(schemaname="Sales", relname='Odd "Name"', n_dead_tup=30_000)

    [finding] = advise(ADVISOR, tables=[odd])

    assert finding.arguments["table"] == '"Sales"."Odd ""Name"""'


def test_its_evidence_has_numbers_and_times_but_none_that_the_server_did_not_say():
    row = table(n_dead_tup=25_000, n_live_tup=75_000, last_autovacuum=ago(60))

    [finding] = advise(ADVISOR, tables=[row])

    assert finding.evidence == (
        ("Dead rows", 25_000, "rows"),
        ("Share of all rows", 25.0, "pct"),
        ("Autovacuum starts beyond", 20_050.0, "rows"),
        ("Last autovacuum", ago(60), "at"),
    )


def test_its_thresholds_can_be_overridden():
    tables = [table(n_dead_tup=30_000)]

    assert advise(ADVISOR, tables=tables, thresholds={"notice_ratio": 1.5}) == []
    assert advise(ADVISOR, tables=tables, thresholds={"min_rows": 50_000}) == []


# When it hurts


@pytest.mark.parametrize(
    ("dead", "live", "per_hour", "hours", "then"),
    [
        (30_050, 100_000, 1005, 10, "past 2.0 times autovacuum's threshold"),  # 40,100
        (30_050, 35_000, 990, 5, "as many dead rows as live ones"),
        (50_000, 100_000, 1000, 50, "as many dead rows as live ones"),  # before the million
        (50_000, 2_000_000, 1000, 950, "past 49.9 times autovacuum's threshold"),
    ],
)
def test_it_says_when_it_is_worse_or_half_of_the_table_dead(dead, live, per_hour, hours, then):
    row = table(n_dead_tup=dead, n_live_tup=live)

    [one] = advise(ADVISOR, tables=[row], rates=growing("n_dead_tup", per_hour))

    assert (one.hurts_at, one.hurts_already) == (near(later(hours)), False)
    assert one.hurts == f"{then}, at {per_hour:,} dead rows an hour over the last 6 h"


@pytest.mark.parametrize(
    ("dead", "live", "then"),
    [
        (100_001, 100_000, "as many dead rows as live ones"),
        (1_000_001, 2_000_000, "49.9 times autovacuum's threshold"),
    ],
)
def test_it_says_that_it_hurts_already(dead, live, then):
    row = table(n_dead_tup=dead, n_live_tup=live)

    [one] = advise(ADVISOR, tables=[row], rates=growing("n_dead_tup", 1000))

    assert (one.hurts, one.hurts_at, one.hurts_already) == (then, None, True)


@pytest.mark.parametrize(
    ("rates", "why"),
    [
        ({}, "no date so far: its growth is not measured yet"),
        (growing("n_dead_tup", 1000, hours=0.9), "no date so far: needs an hour of history"),
        (growing("n_dead_tup", 0), "no date: no dead row was added in the last 6 h"),
        (growing("n_dead_tup", -10), "no date: no dead row was added in the last 6 h"),
        (growing("n_dead_tup", 0.1), "no date: not within 10 years at the present rate"),
        (growing("n_dead_tup", 10, relid=9), "no date so far: its growth is not measured yet"),
    ],
)
def test_without_growth_it_has_no_date_and_says_why(rates, why):
    [one] = advise(ADVISOR, tables=[table(n_dead_tup=30_050)], rates=rates)

    assert (one.hurts_at, one.hurts_already) == (None, False)
    assert one.hurts == f"as many dead rows as live ones; {why}"


def test_there_is_no_date_while_a_vacuum_works_on_it():
    work = {"datname": "shop", "relid": 16400, "command": "VACUUM", "phase": "scanning heap"}
    rates = growing("n_dead_tup", 1000)

    [one] = advise(ADVISOR, tables=[table(n_dead_tup=90_000)], progress=[work], rates=rates)

    assert (one.hurts, one.hurts_at) == ("no date while VACUUM works on it", None)
