"""The share of HOT updates of a day, and its cause as far as the server tells."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.hot_ratio_low import ADVISOR
from tests.monitors.advisors.rows import SHOP, advise, table

FOUND = {
    "updated": [table(n_tup_upd=20_000, n_tup_hot_upd=0, n_tup_newpage_upd=0, indexes=["i"])],
}
"""Facts in which it finds something."""


def updated(updates=20_000, hot=0, newpage=0, **columns):
    row = table(
        n_tup_upd=updates,
        n_tup_hot_upd=hot,
        n_tup_newpage_upd=newpage,
        indexes=["orders_pkey", "orders_state"],
    )
    return row | columns


def of(row, **facts):
    return advise(ADVISOR, updated=[row], **facts)


@pytest.mark.parametrize(("updates", "found"), [(10_000, 0), (10_001, 1)])
def test_it_leaves_few_updates_alone(updates, found):
    assert len(of(updated(updates))) == found


@pytest.mark.parametrize(("hot", "found"), [(9_999, 1), (10_000, 0), (10_001, 0)])
def test_half_of_them_is_enough(hot, found):
    assert len(of(updated(20_000, hot))) == found


@pytest.mark.parametrize(
    ("updates", "hot", "severity"),
    [
        (1_000_000, 0, Severity.NOTICE),
        (1_000_010, 99_999, Severity.WARNING),
        (1_000_010, 100_001, Severity.NOTICE),
    ],
)
def test_it_is_a_warning_where_a_million_write_to_every_index(updates, hot, severity):
    [one] = of(updated(updates, hot))

    assert one.severity == severity


def test_a_table_without_an_index_has_nothing_to_gain():
    assert of(updated(indexes=[])) == []


def test_full_pages_ask_for_a_lower_fillfactor():
    [one] = of(updated(20_000, 4_000, 8_000))  # half of the 16,000 others

    assert one.title == "Of 20,000 updates of public.orders in shop in the last day 20 % were HOT."
    assert "ALTER TABLE public.orders SET (fillfactor = 90)" in one.why
    assert ("Of the others to another page", 50.0, "pct") in one.evidence
    assert one.database_id == SHOP


@pytest.mark.parametrize(
    ("now", "words"),
    [("100", "= 90)"), ("90", "= 80)"), ("80", "= 70)"), ("70", "its fillfactor is 70")],
)
def test_the_fillfactor_goes_down_step_by_step_and_not_below_seventy(now, words):
    [one] = of(updated(newpage=20_000, reloptions=[f"fillfactor={now}"]))

    assert words in one.why


def test_pages_with_room_point_at_the_indexes():
    [one] = of(updated(20_000, 4_000, 7_999))

    assert "changes a column of an index (orders_pkey, orders_state)" in one.why
    many = [f"i{number}" for number in range(11)]
    [one] = of(updated(indexes=many))
    assert "i7 and 3 more" in one.why


def test_before_16_the_server_does_not_tell_which():
    [one] = of(updated(newpage=20_000), server_version=150000)

    assert one.why.startswith("Either pages are full (")
    assert "the server tells which from 16 on" in one.why


def test_it_hurts_already_with_each_update():
    [one] = of(updated(24_000, 2_400))

    assert (one.hurts_already, one.hurts_at) == (True, None)
    assert one.hurts == "21,600 updates in the last day wrote to its 2 indexes too"
