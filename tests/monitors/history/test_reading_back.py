"""Lines and lists read back from history: gaps are gaps, rates are exact."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies as st

from monitors.history import partitions, rollup, store
from monitors.history.counters import read_growth, read_rates, read_sums, read_totals
from monitors.history.gauges import read_gauges, read_gauges_by
from monitors.history.latest import read_as_of
from monitors.history.marks import read_marks
from monitors.history.reading import Place, Reading
from monitors.history.source import Series
from monitors.history.sparks import draw_rate_sparks, draw_sparks
from monitors.history.window import Window
from monitors.models import HISTORY, Action, Mark, Target
from tests.monitors.history.conftest import EPOCH, START

Keep = Callable[..., None]


def window(minutes: float = 60) -> Window:
    return Window(START, START + timedelta(minutes=minutes), is_live=False)


def minutes_of(found: Series) -> list[float]:
    return [(time - START.timestamp()) / 60 for time in found.times]


def test_a_gauge_holds_until_it_changes(target: Target, keep: Keep) -> None:
    for minute, backends in enumerate([3, 3, 5, 5]):
        keep(minute, {1: {"numbackends": backends}})

    found = read_gauges("databases", target.pk, window(), ["numbackends"])

    assert minutes_of(found) == [0, 1, 2, 3]
    assert found.values["numbackends"] == [3, 3, 5, 5]


def test_a_value_from_before_the_window_holds_inside_it(target: Target, keep: Keep) -> None:
    keep(-120, {1: {"numbackends": 7}})
    keep(1, {1: {"numbackends": 7}})
    keep(2, {1: {"numbackends": 8}})

    found = read_gauges("databases", target.pk, window(), ["numbackends"], key={"datid": 1})

    assert found.values["numbackends"] == [7, 8]


def test_missing_snapshots_are_a_gap(target: Target, keep: Keep) -> None:
    for minute in (0, 1, 2, 10, 11):
        keep(minute, {1: {"numbackends": 1}})

    found = read_gauges("databases", target.pk, window(), ["numbackends"])

    assert found.values["numbackends"] == [1, 1, 1, None, 1, 1]
    assert 2 < minutes_of(found)[3] < 10


def test_a_sum_follows_objects_that_come_change_and_go(target: Target, keep: Keep) -> None:
    keep(-5, {1: {"numbackends": 1}, 2: {"numbackends": 10}})
    keep(0, {1: {"numbackends": 2}, 2: {"numbackends": 10}})
    keep(1, {1: {"numbackends": 2}, 2: {"numbackends": 10}, 3: {"numbackends": 100}})
    keep(2, {1: {"numbackends": 2}, 3: {"numbackends": 100}})
    keep(3, {1: {"numbackends": 3}})

    found = read_gauges("databases", target.pk, window(), ["numbackends"])

    assert found.values["numbackends"] == [12, 112, 102, 3]


def test_a_sum_remembers_what_came_again_inside_the_window(target: Target, keep: Keep) -> None:
    """Two was there before the window, left and came back: it appeared, but not first."""
    keep(-5, {1: {"numbackends": 1}, 2: {"numbackends": 10}})
    keep(0, {1: {"numbackends": 2}, 2: {"numbackends": 10}})
    keep(1, {1: {"numbackends": 2}})
    keep(2, {1: {"numbackends": 2}, 2: {"numbackends": 30}})

    found = read_gauges("databases", target.pk, window(), ["numbackends"])

    assert found.values["numbackends"] == [12, 2, 32]


def test_an_object_that_is_gone_has_no_value(target: Target, keep: Keep) -> None:
    keep(0, {1: {"numbackends": 2}, 2: {"numbackends": 1}})
    keep(1, {1: {"numbackends": 2}})

    found = read_gauges("databases", target.pk, window(), ["numbackends"], key={"datid": 2})

    assert found.values["numbackends"] == [1, None]


def test_a_rate_is_what_grew_over_the_time_between_two_snapshots(
    target: Target, keep: Keep
) -> None:
    for minute, commits in [(0, 1000), (1, 1060), (2, 1060), (3, 1180)]:
        keep(minute, {1: {"xact_commit": commits}})

    found = read_rates("databases", target.pk, window(), ["xact_commit"])

    assert found.values["xact_commit"] == [None, 1.0, 0.0, 2.0]


def test_no_rate_spans_a_missed_snapshot_or_a_restart(target: Target, keep: Keep) -> None:
    crashed = "2026-11-24T08:10:30+00:00|2026-11-24T08:10:30+00:00"
    keep(0, {1: {"xact_commit": 1000}})
    keep(1, {1: {"xact_commit": 1060}})
    keep(10, {1: {"xact_commit": 9000}})
    keep(11, {1: {"xact_commit": 30}}, epoch=crashed)
    keep(12, {1: {"xact_commit": 90}}, epoch=crashed)

    found = read_rates("databases", target.pk, window(), ["xact_commit"])

    assert found.values["xact_commit"] == [None, 1.0, None, None, None, 1.0]


def test_a_total_counts_what_was_seen_and_says_when_a_part_was_not(
    target: Target, keep: Keep
) -> None:
    keep(0, {1: {"xact_commit": 1000}, 2: {"xact_commit": 5}})
    keep(1, {1: {"xact_commit": 1060}, 2: {"xact_commit": 6}})
    keep(2, {1: {"xact_commit": 10}, 2: {"xact_commit": 6}})

    found = {row["datid"]: row for row in read_totals("databases", target.pk, window())}

    assert (found[1]["xact_commit"], found[1]["complete"]) == (70, False)
    assert (found[2]["xact_commit"], found[2]["complete"]) == (1, True)


def test_all_objects_together_grew_by_the_sum_of_each(target: Target, keep: Keep) -> None:
    keep(0, {1: {"xact_commit": 1000, "deadlocks": 0}, 2: {"xact_commit": 5}})
    keep(1, {1: {"xact_commit": 1060, "deadlocks": 1}, 2: {"xact_commit": 6}})

    found = read_growth("databases", target.pk, window(), ["xact_commit", "deadlocks"])
    assert found == {"xact_commit": 61, "deadlocks": 1}
    nothing = read_growth("tables", target.pk, window(), ["vacuum_count"])
    assert nothing == {"vacuum_count": 0}


def test_the_past_shows_what_was_there(target: Target, keep: Keep) -> None:
    keep(0, {1: {"numbackends": 1, "datname": "one"}, 2: {"numbackends": 2, "datname": "two"}})
    keep(10, {1: {"numbackends": 9, "datname": "one"}})
    keep(20, {1: {"numbackends": 9, "datname": "one"}, 3: {"numbackends": 3, "datname": "three"}})

    def names(minutes: float) -> dict[str, int]:
        rows = read_as_of("databases", target.pk, START + timedelta(minutes=minutes))
        return {row["datname"]: row["numbackends"] for row in rows}

    assert names(5) == {"one": 1, "two": 2}
    assert names(15) == {"one": 9}
    assert names(25) == {"one": 9, "three": 3}
    assert names(-5) == {}


def test_a_line_by_value_has_one_column_each(target: Target, keep: Keep) -> None:
    keep(0, {("active", ""): {"backends": 2}, ("idle", ""): {"backends": 5}}, probe="sessions")
    keep(1, {("active", "Lock"): {"backends": 3}, ("idle", ""): {"backends": 5}}, probe="sessions")

    states = read_gauges_by("sessions", target.pk, window(), "backends", "state")
    waits = read_gauges_by("sessions", target.pk, window(), "backends", "wait_event_type")

    assert states.values == {"active": [2, 3], "idle": [5, 5]}
    assert waits.values == {"": [2, 0], "Lock": [0, 3]}


def test_short_lines_are_read_for_many_at_once(
    target: Target, keep: Keep, django_assert_max_num_queries: Any
) -> None:
    keep(-30, {1: {"numbackends": 4, "xact_commit": 10}, 2: {"numbackends": 6, "xact_commit": 0}})
    keep(0, {1: {"numbackends": 4, "xact_commit": 70}, 2: {"numbackends": 7, "xact_commit": 0}})
    keep(2, {1: {"numbackends": 5, "xact_commit": 90}})
    keys = [{"datid": datid, "database_id": 0} for datid in (2, 1, 3)]

    with django_assert_max_num_queries(6):
        lines = draw_sparks("databases", target.pk, window(4), "numbackends", keys)
        grown = draw_rate_sparks("databases", target.pk, window(4), "xact_commit", keys)

    assert lines == [[7, None], [4, 5], [None, None]]
    assert grown == [[0, 0], [60, 20], [0, 0]]


def test_marks_are_events_and_finished_actions_in_the_order_of_time(target: Target) -> None:
    at = START + timedelta(minutes=5)
    Mark.objects.create(target=target, at=at, kind=Mark.Kind.RESTART, text="Restarted.")
    action = Action.objects.create(
        name="vacuum",
        target=target,
        target_name=target.name,
        object_name="public.orders",
        state=Action.State.SUCCEEDED,
        started_at=START,
        finished_at=START + timedelta(minutes=1),
    )

    found = read_marks(target.pk, window())

    assert [mark["kind"] for mark in found] == ["action", "restart"]
    assert found[0]["url_id"] == str(action.pk)


def test_hours_and_days_hold_the_sum_the_last_and_the_greatest(target: Target, keep: Keep) -> None:
    for minute, (commits, backends) in enumerate([(100, 1), (160, 9), (200, 4)]):
        keep(minute * 10, {1: {"xact_commit": commits, "numbackends": backends}})
    keep(70, {1: {"xact_commit": 260, "numbackends": 5}})

    rollup.roll_up(START + timedelta(minutes=65))
    rollup.roll_up(START + timedelta(minutes=90))

    history = HISTORY["databases"]
    assert history.hours is not None
    assert history.days is not None
    hours = list(history.hours._default_manager.order_by("start_at").values())
    assert [row["xact_commit"] for row in hours] == [100, 60]
    assert [row["numbackends"] for row in hours] == [4, 5]
    assert [row["numbackends_max"] for row in hours] == [9, 5]
    [day] = history.days._default_manager.values()
    assert (day["xact_commit"], day["numbackends"], day["numbackends_max"]) == (160, 5, 9)


def test_an_unchanged_object_has_its_row_each_day(target: Target, keep: Keep) -> None:
    keep(0, {1: {"numbackends": 4}})

    for days in (1, 2):
        rollup.roll_up(START + timedelta(days=days))

    history = HISTORY["databases"]
    assert history.days is not None
    days_kept = history.days._default_manager.order_by("start_at").values_list(
        "numbackends", flat=True
    )
    assert list(days_kept) == [4, 4, 4]  # that of its only snapshot, and two more


def test_a_long_window_is_drawn_from_hours_with_its_gaps(target: Target, keep: Keep) -> None:
    for hour in (0, 1, 5, 6):
        for minute in (0, 30):
            keep(hour * 60 + minute, {1: {"xact_commit": (hour * 60 + minute) * 60}})
        rollup.roll_up(START + timedelta(hours=hour, minutes=45))
    week = Window(START - timedelta(days=1), START + timedelta(hours=8), is_live=False)

    found = read_rates("databases", target.pk, week, ["xact_commit"])

    column = found.values["xact_commit"]
    assert len(column) == 5
    assert column[2] is None


def test_an_hour_that_was_watched_in_part_has_the_rate_of_that_part(
    target: Target, keep: Keep
) -> None:
    for minute in range(50, 60):
        keep(minute, {1: {"xact_commit": minute * 120}})
    rollup.roll_up(START + timedelta(minutes=59))
    week = Window(START - timedelta(days=1), START + timedelta(hours=8), is_live=False)

    found = read_rates("databases", target.pk, week, ["xact_commit"])

    assert found.values["xact_commit"] == [2.0]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.dictionaries(st.integers(1, 4), st.integers(0, 50), max_size=4), min_size=2, max_size=8
    )
)
def test_a_sum_is_what_adding_every_snapshot_up_gives(
    target: Target, readings: list[dict[int, int]]
) -> None:
    """Whatever came, changed and went, the line equals the sums of the plain snapshots."""
    history = HISTORY["databases"]
    for table in (history.samples, history.latest):
        table._default_manager.all().delete()
    store.MEMORY._kept.clear()
    target.probestate_set.all().delete()
    from monitors.models import Snapshot  # noqa: PLC0415

    Snapshot.objects.all().delete()
    columns = history.sample.columns()
    for minute, reading in enumerate(readings):
        moment = START + timedelta(minutes=minute)
        rows = [
            tuple({"datid": k, "numbackends": v}.get(name) for name in columns)
            for k, v in reading.items()
        ]
        store.store(
            Place(history, target.pk, 0),
            Reading(rows, target_at=moment),
            taken_at=moment,
            interval_seconds=60,
            next_due=moment,
            epoch=EPOCH,
        )
    half = len(readings) // 2
    late = Window(START + timedelta(minutes=half), START + timedelta(hours=1), is_live=False)

    found: Any = read_gauges("databases", target.pk, late, ["numbackends"])

    assert found.values["numbackends"] == [sum(reading.values()) for reading in readings[half:]]


def counted(found: list[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    return {row["datid"]: (row["xact_commit"], row["xact_commit_late"]) for row in found}


def test_sums_of_a_long_window_are_those_of_its_samples(target: Target, keep: Keep) -> None:
    end = datetime.now(UTC).replace(minute=20, second=30, microsecond=0) - timedelta(hours=1)
    start = end - timedelta(hours=6)
    for step in range(80):  # a round of five minutes each; one hour is left out
        if not 24 <= step < 36:
            grown = {1: {"xact_commit": step * 3}, 2: {"xact_commit": step // 10}}
            keep(step * 5, grown, start=start)
    for hour in range(8):
        rollup.roll_up(start + timedelta(hours=hour))
    shown = Window(start + timedelta(minutes=7), end, is_live=False)
    plain = {row["datid"]: row["xact_commit"] for row in read_totals("databases", target.pk, shown)}

    found = read_sums("databases", target.pk, shown, ["xact_commit"], halves=["xact_commit"])

    assert {datid: whole for datid, (whole, _) in counted(found).items()} == plain
    assert 0 < counted(found)[1][1] < counted(found)[1][0]
    whole_hour = (start + timedelta(hours=1)).replace(minute=0, second=0)
    HISTORY["databases"].samples._default_manager.filter(
        taken_at__gte=whole_hour, taken_at__lt=whole_hour + timedelta(hours=1)
    ).delete()
    again = read_sums("databases", target.pk, shown, ["xact_commit"], halves=["xact_commit"])
    assert counted(again) == counted(found)  # that hour was read as a whole


def test_sums_do_not_trust_an_hour_that_was_not_summed_to_its_end(
    target: Target, keep: Keep
) -> None:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    for step in range(48):
        keep(step * 5, {1: {"xact_commit": step}}, start=start)
        if step == 18:  # in the middle of the second hour the summing stopped
            rollup.roll_hour(HISTORY["databases"], start + timedelta(hours=1))
            rollup.cover_hour(start + timedelta(hours=1))
    shown = Window(start, start + timedelta(hours=4), is_live=False)

    [row] = read_sums("databases", target.pk, shown, ["xact_commit"])

    assert row["xact_commit"] == 47
    assert row["complete"]


def test_sums_pick_objects_by_a_list_of_keys(target: Target, keep: Keep) -> None:
    for minute in range(3):
        keep(minute, {datid: {"xact_commit": datid * minute} for datid in (1, 2, 3)})

    found = read_sums("databases", target.pk, window(), ["xact_commit"], key={"datid": [2, 3]})

    assert {row["datid"]: row["xact_commit"] for row in found} == {2: 4, 3: 6}


def test_what_watching_costs_is_its_share_of_a_core(target: Target) -> None:
    from monitors.history import freshness  # noqa: PLC0415
    from monitors.models import Snapshot  # noqa: PLC0415

    now = timezone.now()
    for minute in range(11):
        at = now - timedelta(minutes=minute)
        partitions.ensure_for(Snapshot, at)
        Snapshot.objects.create(
            target_id=target.pk,
            database_id=0,
            probe="databases",
            taken_at=at,
            state="ok",
            interval_seconds=60,
            target_ms=60,
        )

    freshness.measure_cost()

    target.refresh_from_db()
    assert target.watching_pct == pytest.approx(100 * 11 * 0.06 / 600, rel=0.01)
