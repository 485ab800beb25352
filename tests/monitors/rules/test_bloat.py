"""The arithmetic of bloat, and which of several figures is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitors.rules import bloat

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
MB = 1024**2
UNKNOWN = {
    "size_bytes": None,
    "bloat_bytes": None,
    "bloat_pct": None,
    "method": None,
    "measured_at": None,
    "seen_bytes": None,
    "seen_tuples": None,
    "fresh_bytes_per_row": None,
    "fresh_at": None,
}


def now(**columns):
    row = {
        "relpages_bytes": 100 * MB,
        "reltuples": 1_000_000.0,
        "estimate_bytes": 10 * MB,
        "relfilenode": 1,
        "fillfactor": 100,
        "relkind": "r",
        "stats_at": NOW,
        "vacuumed_at": None,
    }
    return row | columns


def measured(**columns):
    at = columns.pop("at", NOW)
    return bloat.measured(now(), UNKNOWN, size=100 * MB, waste=40 * MB, method="approx", at=at)


@pytest.mark.parametrize(
    ("pages", "rows", "width", "fillfactor", "kept"),
    [
        (100, 12_100, 63.5, 100, 100),  # 121 rows of 67.5 bytes fill a page: none is wasted
        (100, 6_050, 63.5, 100, 50),
        (100, 5_700, 96.0, 70, 100),  # 57 rows of 100 bytes beside a reserve of 30 %
        (100, 0, 0.0, 100, 0),
        (100, 400, 1700.0, 100, 100),  # four to a page: the tail of each is no waste
    ],
)
def test_what_a_rewrite_would_not_give_back_is_not_wasted(pages, rows, width, fillfactor, kept):
    size = pages * 8192
    used = rows * (width + 4) + pages * 24

    waste = bloat.heap_waste(size=size, dead=0, free=size - used, rows=rows, fillfactor=fillfactor)

    assert waste == size - kept * 8192


def test_dead_rows_are_wasted_as_free_space_is():
    figures: dict[str, Any] = {"size": 100 * 8192, "rows": 6_050, "fillfactor": 100}

    dead = bloat.heap_waste(**figures, dead=408_375, free=0)
    free = bloat.heap_waste(**figures, dead=0, free=408_375)

    assert dead == free == pytest.approx(50 * 8192, abs=8192)


def test_long_chunks_of_toast_count_as_four_to_a_page():
    figures: dict[str, Any] = {
        "size": 100 * 8192,
        "dead": 0,
        "free": 180_000,
        "rows": 400,
        "fillfactor": 100,
    }

    assert bloat.heap_waste(**figures, toast=True) == 0
    assert bloat.heap_waste(**figures, toast=False) > 0


def test_deleted_pages_of_an_index_are_wasted_though_the_others_are_full():
    figures: dict[str, Any] = {"leaf_pages": 137, "density": 89.1, "empty": 0, "fillfactor": 90}

    assert bloat.btree_waste(size=1371 * 8192, deleted=1233, **figures) == pytest.approx(
        1234.4 * 8192, abs=8192
    )


def test_an_index_without_leaf_pages_has_no_density():
    nothing = bloat.btree_waste(
        size=8192, leaf_pages=0, density=float("nan"), empty=0, deleted=0, fillfactor=90
    )

    assert nothing == 0


def test_a_measurement_comes_before_calibration_and_estimate():
    known = measured() | {"fresh_bytes_per_row": 50.0, "fresh_at": NOW - timedelta(days=3)}

    found = bloat.settled(now(), now(estimate_bytes=11 * MB), known, NOW + timedelta(hours=1))

    assert (found["method"], found["bloat_bytes"], found["measured_at"]) == ("approx", 40 * MB, NOW)


@pytest.mark.parametrize(
    ("changed", "hours", "method"),
    [
        ({}, 1, "approx"),
        ({"reltuples": 1_090_000.0}, 1, "approx"),
        ({"reltuples": 1_110_000.0}, 1, "estimate"),
        ({"relpages_bytes": 111 * MB}, 1, "estimate"),
        ({"relpages_bytes": 89 * MB}, 1, "estimate"),
        ({}, 7 * 24 + 1, "estimate"),
        ({"relfilenode": 2}, 1, "after-rewrite"),
        ({"estimate_bytes": None, "reltuples": 1_200_000.0}, 1, None),
    ],
)
def test_a_measurement_holds_while_it_is_young_and_its_object_the_same(changed, hours, method):
    found = bloat.settled(now(), now(**changed), measured(), NOW + timedelta(hours=hours))

    assert found["method"] == method


def test_after_a_rewrite_bloat_is_what_comes_on_top():
    fresh = bloat.settled(now(relfilenode=1), now(relfilenode=2), UNKNOWN, NOW)
    grown = now(relfilenode=2, relpages_bytes=150 * MB, reltuples=750_000.0)

    later = bloat.settled(now(relfilenode=2), grown, fresh, NOW + timedelta(days=1))

    assert (fresh["method"], fresh["bloat_bytes"]) == ("after-rewrite", 0)
    assert later["bloat_bytes"] == 75 * MB
    assert later["bloat_pct"] == 50
    assert later["fresh_at"] == NOW


@pytest.mark.parametrize(
    "emptied", [{"reltuples": -1.0, "relpages_bytes": None}, {"reltuples": 0.0}]
)
def test_truncate_is_no_calibration(emptied):
    found = bloat.settled(now(), now(relfilenode=2, estimate_bytes=None, **emptied), UNKNOWN, NOW)

    assert found["fresh_bytes_per_row"] is None
    assert found["method"] is None


def test_another_fillfactor_ends_a_calibration():
    fresh = bloat.settled(now(), now(relfilenode=2), UNKNOWN, NOW)

    found = bloat.settled(now(relfilenode=2), now(relfilenode=2, fillfactor=70), fresh, NOW)

    assert (found["fresh_bytes_per_row"], found["method"]) == (None, "estimate")


def test_an_estimate_is_as_old_as_the_figure():
    first = bloat.settled(None, now(), UNKNOWN, NOW)
    same = bloat.settled(now(), now(reltuples=1_000_001.0), first, NOW + timedelta(hours=1))
    other = bloat.settled(now(), now(estimate_bytes=12 * MB), same, NOW + timedelta(hours=2))

    assert [one["measured_at"] for one in (first, same, other)] == [
        NOW,
        NOW,
        NOW + timedelta(hours=2),
    ]


def test_what_was_never_measured_is_more_urgent_than_what_was_and_waste_than_order():
    much, little = measured(), measured() | {"bloat_bytes": MB}
    later = NOW + timedelta(hours=1)

    assert bloat.urgency(UNKNOWN, now(), later) > bloat.urgency(much, now(), later)
    assert bloat.urgency(much, now(), later) > bloat.urgency(little, now(), later)
    assert bloat.urgency(much, now(), later + timedelta(hours=2)) > bloat.urgency(
        much, now(), later
    )


@pytest.mark.parametrize(
    ("columns", "doubtful"),
    [
        ({}, False),
        ({"vacuumed_at": NOW - timedelta(seconds=1)}, False),
        ({"vacuumed_at": NOW + timedelta(seconds=1)}, True),
        ({"vacuumed_at": NOW, "stats_at": None}, True),
        ({"vacuumed_at": NOW + timedelta(seconds=1), "relkind": "i"}, False),
    ],
)
def test_an_estimate_is_doubtful_where_vacuum_counted_after_analyze(columns, doubtful):
    row, known = now(**columns), {**UNKNOWN, "method": "estimate", "bloat_bytes": 10 * MB}

    assert bloat.is_doubtful(row | known) == doubtful
    assert not bloat.is_doubtful(row | known | {"method": "approx"})
    sure = bloat.urgency(known, now(), NOW)
    assert bloat.urgency(known, row, NOW) == (bloat.DOUBTED if doubtful else 1) * sure
