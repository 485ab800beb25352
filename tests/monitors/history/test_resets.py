"""Since when counters had counted at a past moment, by what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitors.history import partitions, resets
from monitors.history.resets import NOT_KNOWN, Counting
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Mark, ProbeState, Snapshot
from monitors.models.history import Change
from tests.people import make_target

pytestmark = pytest.mark.django_db

START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=50)


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def until(number: float) -> Window:
    return Window(minute(number) - timedelta(hours=1), minute(number), is_live=False)


@pytest.fixture
def target():
    """A target whose statements and indexes are read each five minutes."""
    target = make_target()
    database = Database.objects.create(target=target, datid=5, datname="shop")
    for model in (Snapshot, HISTORY["databases"].samples):
        for day in (START, START + timedelta(days=1)):
            partitions.ensure_for(model, day)
    for probe, place in (("statements", 0), ("indexes", database.pk)):
        ProbeState.objects.create(
            target=target, database_id=place or None, probe=probe, reset_at=minute(31)
        )
        for number in range(0, 45, 5):
            Snapshot.objects.create(
                target_id=target.pk,
                database_id=place,
                probe=probe,
                taken_at=minute(number),
                target_at=minute(number),
                state="ok",
                interval_seconds=300,
            )
    return target


def mark(target, number, reset=None, before=None, kind=Mark.Kind.RESET) -> None:
    reset_at, before_at = (None if one is None else minute(one) for one in (reset, before))
    Mark.objects.create(
        target=target,
        at=minute(number),
        kind=kind,
        probe="statements",
        reset_at=reset_at,
        before_at=before_at,
    )


def test_what_is_in_force_now_was_so_since_it_was_read(target):
    for number, known in ((30, False), (34, False), (35, True), (60, True)):
        found = resets.counting_of(target, "statements", until(number))
        assert found == (Counting(minute(31)) if known else NOT_KNOWN)
    live = Window.last("1h", minute(50))
    assert resets.counting_of(target, "statements", live) == Counting(minute(31))


def test_a_mark_tells_what_it_ended_and_what_it_began(target):
    mark(target, 15, 11, -90)
    mark(target, 25, 21)
    mark(target, 35, 31, 21)

    expected = {3: -90, 14: -90, 16: 11, 24: 11, 26: 21, 34: 21, 36: 31}
    for number, since in expected.items():
        found = resets.counting_of(target, "statements", until(number))
        assert found == Counting(minute(since)), number


def test_after_a_crash_an_earlier_reset_is_not_what_holds(target):
    mark(target, 15, 11)
    mark(target, 20, kind=Mark.Kind.CRASH)
    mark(target, 35, 31, 19)

    assert resets.counting_of(target, "statements", until(16)) == Counting(minute(11))
    assert resets.counting_of(target, "statements", until(21)) == Counting(minute(19))
    Mark.objects.filter(at=minute(35)).update(before_at=None)
    assert resets.counting_of(target, "statements", until(21)) == NOT_KNOWN


def test_a_reset_of_a_database_counts_from_the_reading_that_saw_it(target):
    """`databases` is read between two readings of `indexes`, and saw it earlier."""
    for number, reset_at in ((0, None), (8, minute(7)), (12, minute(11)), (31.5, minute(31))):
        HISTORY["databases"].samples._default_manager.create(
            target_id=target.pk,
            database_id=0,
            datid=5,
            taken_at=minute(number),
            target_at=minute(number),
            change=int(Change.CHANGED),
            stats_reset=reset_at,
        )
    database_id = Database.objects.get(target=target).pk

    def found(number):
        return resets.counting_of(target, "indexes", until(number), database_id)

    assert found(9) == Counting(None)
    assert found(10) == Counting(minute(7))
    assert found(14) == Counting(minute(7))
    assert found(16) == Counting(minute(11))
    assert found(33) == Counting(minute(11))
    assert found(36) == Counting(minute(31))
    assert found(-1) == NOT_KNOWN
