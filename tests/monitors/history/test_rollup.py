"""Hours and days hold what samples hold, however late upkeep comes and whatever came late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import models
from django.db.models import Sum
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies as st

from monitors.history import partitions, rollup, store
from monitors.history.counters import read_sums, read_totals
from monitors.history.window import Window
from monitors.models import HISTORY, Coverage, ProbeState, Snapshot, Target

pytestmark = pytest.mark.django_db

Keep = Callable[..., None]
DATABASES = HISTORY["databases"]
HOUR = timedelta(hours=1)


def three_days_ago() -> datetime:
    """A moment whose samples are still kept, early in a day of UTC."""
    return rollup.day_of(datetime.now(UTC) - timedelta(days=3)) + timedelta(hours=1)


def sums_in(model: Any) -> dict[int, int]:
    """Return what a table says of each database: by datid."""
    rows = model._default_manager.values_list("datid").annotate(total=Sum("xact_commit"))
    return {datid: int(total) for datid, total in rows.order_by() if total}


def agree() -> dict[int, int]:
    """See that samples, hours and days say the same of each object; returns it."""
    samples, hours, days = (
        sums_in(model) for model in (DATABASES.samples, DATABASES.hours, DATABASES.days)
    )
    assert samples == hours == days
    return samples


def grow(keep: Keep, start: datetime, minutes: range, by: int = 7) -> None:
    for minute in minutes:
        keep(minute, {1: {"xact_commit": minute * by}, 2: {"xact_commit": minute}}, start=start)


def shown(target: Target, start: datetime, end: datetime) -> int:
    """Return the commits of database 1 that every way of adding up agrees on."""
    window = Window(start, end, is_live=False)
    fields = ["xact_commit"]
    found = {
        sum(row["xact_commit"] for row in rows if row["datid"] == 1)
        for rows in (
            read_totals("databases", target.pk, window),
            read_sums("databases", target.pk, window, fields),
        )
    }
    [commits] = found
    return int(commits)


def test_hours_and_days_are_made_up_after_upkeep_was_away(target: Target, keep: Keep) -> None:
    start = three_days_ago()
    grow(keep, start, range(0, 60, 5))
    rollup.roll_up(start + HOUR)
    grow(keep, start, range(60, 210, 5))

    rollup.roll_up(start + timedelta(minutes=211))

    assert agree()[1] == 205 * 7
    hours = DATABASES.hours
    assert hours is not None
    assert hours._default_manager.filter(datid=1).count() == 4
    assert Coverage.objects.filter(probe="databases").count() == 4
    assert not ProbeState.objects.filter(unrolled_at__isnull=False).exists()


@pytest.mark.parametrize("days", [1, 2.5, 10, 100])
def test_no_window_loses_what_nobody_has_summed_up(target: Target, keep: Keep, days: float) -> None:
    start = three_days_ago()
    grow(keep, start, range(0, 60, 5))
    rollup.roll_up(start + HOUR)
    grow(keep, start, range(60, 1500, 5))  # … and upkeep is away

    end = start + timedelta(minutes=1500)

    assert shown(target, end - timedelta(days=days), end) == (1495 * 7 if days > 1 else 1440 * 7)


def test_a_stop_of_everything_loses_no_minute(target: Target, keep: Keep) -> None:
    start = three_days_ago()
    grow(keep, start, range(0, 50, 5))
    rollup.roll_up(start + timedelta(minutes=31))
    back = start + timedelta(hours=30)
    grow(keep, start, range(1800, 1830, 5))

    rollup.roll_up(back + timedelta(minutes=31))

    assert agree()[1] == 1825 * 7


def test_a_snapshot_that_came_hours_late_is_summed_up_too(target: Target, keep: Keep) -> None:
    start = three_days_ago()
    grow(keep, start, range(0, 50, 5))
    rollup.roll_up(start + timedelta(hours=20))
    keep(50, {1: {"xact_commit": 5000}}, start=start)  # its worker slept for a night

    rollup.roll_up(start + timedelta(hours=20, minutes=5))

    assert agree()[1] == 5000


def test_what_is_being_stored_while_hours_are_made_is_in_them_the_next_time(
    target: Target, keep: Keep
) -> None:
    start = three_days_ago()
    grow(keep, start, range(0, 50, 5))
    made = rollup.roll_from

    def roll_from(*arguments: Any) -> None:
        made(*arguments)
        keep(50, {1: {"xact_commit": 5000}}, start=start)

    try:
        rollup.roll_from = roll_from  # type: ignore[assignment]
        rollup.roll_up(start + HOUR)
    finally:
        rollup.roll_from = made
    rollup.roll_up(start + HOUR)

    assert agree()[1] == 5000


def test_summing_up_twice_changes_nothing(target: Target, keep: Keep) -> None:
    start = three_days_ago()
    grow(keep, start, range(0, 300, 5))
    rollup.roll_up(start + 5 * HOUR)
    first = [list(model._default_manager.order_by("pk").values()) for model in rolled()]
    ProbeState.objects.update(unrolled_at=start)

    rollup.roll_up(start + 5 * HOUR)

    assert [list(model._default_manager.order_by("pk").values()) for model in rolled()] == first


def rolled() -> list[type[models.Model]]:
    assert DATABASES.hours is not None
    assert DATABASES.days is not None
    return [DATABASES.hours, DATABASES.days]


def test_a_damaged_history_is_repaired_as_far_as_there_are_samples(
    target: Target, keep: Keep
) -> None:
    from importlib import import_module  # noqa: PLC0415 - its name begins with a digit

    from django.apps import apps  # noqa: PLC0415

    start = three_days_ago()
    grow(keep, start, range(0, 600, 5))
    rollup.roll_up(start + 10 * HOUR)
    hours, days = rolled()
    for model in (hours, days):
        model._default_manager.filter(datid=1).update(xact_commit=1)
    hours._default_manager.filter(
        start_at__gte=start + 3 * HOUR, start_at__lt=start + 5 * HOUR
    ).delete()
    kept = timezone.now() - timedelta(days=40)
    partitions.ensure_for(hours, kept)
    hours._default_manager.filter(start_at=start, datid=1).update(start_at=rollup.hour_of(kept))

    import_module("monitors.migrations.0015_unrolled").make_again(apps, None)
    rollup.roll_up(datetime.now(UTC))

    older = hours._default_manager.filter(start_at=rollup.hour_of(kept), datid=1)
    assert older.values_list("xact_commit", flat=True).get() == 1  # nothing knows better
    older.delete()
    assert agree()[1] == 595 * 7


def test_a_statement_that_was_away_within_an_hour_lacks_counts_in_every_window(
    target: Target, keep: Keep
) -> None:
    start = three_days_ago()
    for minute, calls in enumerate([{1: 5, 2: 5}, {1: 9, 2: 6}, {2: 7}, {1: 2, 2: 8}]):
        read = {(queryid, 10, 100, True): {"calls": count} for queryid, count in calls.items()}
        keep(10 + minute, read, probe="statements", start=start)

    rollup.roll_up(start + timedelta(days=2))

    truth = {1: (6, False), 2: (3, True)}
    for back, days in ((timedelta(), 0.1), (timedelta(days=3), 6), (timedelta(days=100), 103)):
        window = Window(start - back, start - back + timedelta(days=days), is_live=False)
        rows = read_sums("statements", target.pk, window, ["calls"])
        assert {row["queryid"]: (row["calls"], row["complete"]) for row in rows} == truth


def test_an_unchanged_object_has_its_row_of_each_day_that_upkeep_missed(
    target: Target, keep: Keep
) -> None:
    start = three_days_ago()
    keep(0, {1: {"numbackends": 4}, 2: {"numbackends": 1}, 3: {"numbackends": 8}}, start=start)
    keep(24 * 60, {1: {"numbackends": 4}, 2: {"numbackends": 2}}, start=start)
    keep(48 * 60, {1: {"numbackends": 5}, 2: {"numbackends": 2}}, start=start)

    rollup.roll_up(start + timedelta(days=2))

    days = DATABASES.days
    assert days is not None
    rows = days._default_manager.order_by("start_at", "datid").values_list("datid", "numbackends")
    assert list(rows.filter(gone=False)) == [(1, 4), (2, 1), (3, 8), (1, 4), (2, 2), (1, 5), (2, 2)]


def test_no_sample_is_dropped_before_it_was_summed_up(target: Target, keep: Keep) -> None:
    from django.core.cache import cache  # noqa: PLC0415

    from monitors import maintenance  # noqa: PLC0415

    start = three_days_ago() - timedelta(days=30)
    grow(keep, start, range(0, 50, 5))
    cache.clear()
    maintenance.first_in("roll-up", maintenance.ROLL_UP_EVERY)  # another worker was at it

    maintenance.maintain(timezone.now())

    assert not DATABASES.samples._default_manager.exists()
    assert sums_in(DATABASES.hours)[1] == sums_in(DATABASES.days)[1] == 45 * 7


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("read"),
            st.integers(1, 400),
            st.dictionaries(st.integers(1, 3), st.integers(0, 9)),
        ),
        st.tuples(st.just("roll"), st.just(0), st.just({})),
    ),
    min_size=3,
    max_size=14,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_samples_hours_and_days_agree_and_so_does_every_window(
    target: Target, keep: Keep, steps: list[tuple[str, int, dict[int, int]]]
) -> None:
    """Objects that come, grow, start anew and go, read at any time, summed up now and then."""
    forget()
    start = three_days_ago() - timedelta(days=2)
    end = start
    minute = 0
    for what, later, counters in steps:
        if what == "roll":
            rollup.roll_up(end)
            continue
        minute += later
        end = start + timedelta(minutes=minute)
        keep(minute, {datid: {"xact_commit": n} for datid, n in counters.items()}, start=start)

    truth = sums_in(DATABASES.samples)
    for days in (1, 3, 30, 100):
        window = Window(end - timedelta(days=days), end + timedelta(seconds=1), is_live=False)
        rows = DATABASES.samples._default_manager.filter(taken_at__gte=window.start)
        samples = {
            datid: int(total)
            for datid, total in rows.values_list("datid")
            .annotate(total=Sum("xact_commit"))
            .order_by()
            if total
        }
        for found in (
            read_totals("databases", target.pk, window),
            read_sums("databases", target.pk, window, ["xact_commit"]),
        ):
            assert {
                row["datid"]: row["xact_commit"] for row in found if row["xact_commit"]
            } == samples
    rollup.roll_up(end)
    assert agree() == truth


def forget() -> None:
    """Leave nothing of another example."""
    every: list[type[models.Model]] = [DATABASES.samples, DATABASES.latest, *rolled(), Snapshot]
    for model in every:
        model._default_manager.all().delete()
    store.MEMORY._kept.clear()
    ProbeState.objects.all().delete()
    Coverage.objects.all().delete()
    partitions._KNOWN.clear()
