"""Dead chunks of TOAST tables that autovacuum does not come for."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.toast_trouble import ADVISOR
from tests.monitors.advisors.rows import SHOP, TOAST, advise, growing, later, near, table

FOUND = {"tables": [table(toastrelid=16403), TOAST]}
"""Facts in which it finds something."""

MAIN = table(toastrelid=16403)


def toast(dead, live=1_000_000, pages=20_000, **columns):
    row = table(
        relid=16403,
        relkind="t",
        schemaname="pg_toast",
        relname="pg_toast_16400",
        reltuples=10_000_000.0,  # autovacuum comes beyond 2,000,050
        relpages=pages,
        n_dead_tup=dead,
        n_live_tup=live,
    )
    return row | columns


def of(row, main=MAIN, **facts):
    return advise(ADVISOR, tables=[main, row], **facts)


@pytest.mark.parametrize(
    ("dead", "severity"),
    [
        (100_000, None),  # 9.1 %
        (112_000, Severity.NOTICE),  # 10.07 %
        (428_000, Severity.NOTICE),  # 29.97 %
        (430_000, Severity.WARNING),
    ],
)
def test_it_goes_by_the_dead_share(dead, severity):
    assert [one.severity for one in of(toast(dead))] == ([severity] if severity else [])


@pytest.mark.parametrize(("pages", "found"), [(12_207, 0), (12_208, 1)])
def test_it_leaves_small_ones_alone(pages, found):
    assert len(of(toast(500_000, pages=pages))) == found


@pytest.mark.parametrize(("dead", "found"), [(12_000, 1), (13_000, 0)])
def test_it_says_nothing_where_the_table_is_no_better(dead, found):
    """33.3 % against 10.7 and 11.5 %."""
    assert len(of(toast(500_000), MAIN | {"n_dead_tup": dead})) == found


def test_past_autovacuums_threshold_it_leaves_it_to_dead_tuples():
    assert len(of(toast(2_000_050))) == 1
    assert of(toast(2_000_051)) == []


def test_it_speaks_where_autovacuum_is_off():
    [one] = of(toast(3_000_000), MAIN | {"reloptions": ["autovacuum_enabled=off"]})

    assert "autovacuum is off for it" in one.title


def test_it_names_the_main_table_and_offers_to_vacuum_it():
    [one] = of(toast(500_000))

    assert one.title == (
        "33 % of the TOAST table of public.orders in shop is dead: "
        "500,000 chunks, and autovacuum comes beyond 2,000,050."
    )
    assert (one.action, one.arguments) == ("vacuum", {"database": "shop", "table": "public.orders"})
    assert (one.database_id, one.relid, one.part) == (SHOP, 16400, "toast")


# When it hurts: 428,571 of 1,428,571 chunks are 30 %.


def test_it_says_when_it_is_a_warning():
    rates = growing("n_dead_tup", 22_857.1428571, relid=16403)

    [one] = of(toast(200_000), rates=rates)

    assert one.hurts_at == near(later(10))
    assert one.hurts.startswith("30 % of its chunks are dead, at 22,857 dead chunks an hour")


def test_it_has_no_date_where_autovacuum_comes_before():
    rates = growing("n_dead_tup", 50_050, relid=16403)

    [one] = of(toast(200_000, reltuples=1_250_000.0), rates=rates)  # beyond 250,050

    assert one.hurts_at is None
    assert one.hurts == "no date: autovacuum comes before, about 24 Nov 11:42 UTC"


def test_a_warning_hurts_already_and_what_does_not_grow_has_no_date():
    [warning] = of(toast(430_000))
    [level] = of(toast(200_000), rates=growing("n_dead_tup", 0, relid=16403))

    assert warning.hurts_already
    assert (level.hurts_at, level.hurts_already) == (None, False)
    assert "no date: no dead chunk was added" in level.hurts
