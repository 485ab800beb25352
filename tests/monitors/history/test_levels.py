"""How many snapshots found how many sessions in a transaction: as they were, not as they changed."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime

import pytest
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.history.levels import Levels, percentile, read_levels
from monitors.history.window import Window


@pytest.mark.django_db
def test_every_snapshot_counts_with_the_level_that_it_found(embedded, watch):
    target = watch(embedded)
    moments: list[datetime] = []

    def look() -> None:
        moments.append(timezone.now())
        take_now(target, ["sessions"])

    def levels(since: int, until: int | None = None) -> Levels:
        end = timezone.now() if until is None else moments[until]
        window = Window(moments[since], end, is_live=True)
        key = {"state": ["idle in transaction"]}
        return read_levels("sessions", target.pk, window, "backends", key)

    with ExitStack() as stack:
        sessions = [
            stack.enter_context(embedded.connect(dbname="shop", autocommit=False)) for _ in range(5)
        ]
        look()
        for session in sessions[:3]:
            session.execute("SELECT 1")
        look()
        look()
        for session in sessions[3:]:
            session.execute("SELECT 1")
        look()
        for session in sessions[:4]:
            session.commit()
        look()
        base = levels(0, 1)[0][0]  # the test's own session of our database

        assert levels(0) == [(base, 1), (base + 1, 1), (base + 3, 2), (base + 5, 1)]
        assert levels(1, 3) == [(base + 3, 2)]
        assert levels(2, 3) == [(base + 3, 1)]  # nothing changed in it
        assert levels(3) == [(base + 1, 1), (base + 5, 1)]


@pytest.mark.parametrize(
    ("levels", "pct", "found"),
    [
        ([], 99, None),
        ([(7.0, 1)], 99, 7),
        ([(1.0, 99), (9.0, 1)], 99, 1),
        ([(1.0, 98), (9.0, 2)], 99, 9),
        ([(1.0, 50), (2.0, 50)], 50, 1),
        ([(1.0, 50), (2.0, 50)], 51, 2),
    ],
)
def test_a_percentile_is_a_level_that_was_there(levels, pct, found):
    assert percentile(levels, pct) == found
