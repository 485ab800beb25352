"""When an id was given out, from samples and hours, and how fast ids are used up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from monitors.history import rollup, xids
from monitors.models import HISTORY, Target
from monitors.rules import wraparound
from monitors.rules.horizon import Held
from tests.monitors.history.conftest import START

pytestmark = pytest.mark.django_db

Keep = Callable[..., None]
HOUR = timedelta(hours=1)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def ids(next_xid: int, next_mxid: int = 1) -> dict[int, Any]:
    """Both databases of a server say the same next ids."""
    values = {"next_xid": next_xid, "next_mxid": next_mxid, "xid_age": next_xid - 3}
    return {16384: values, 16385: values}


def forget_samples(before: datetime) -> None:
    HISTORY["databases"].samples._default_manager.filter(taken_at__lt=before).delete()


def test_an_id_was_given_out_between_two_snapshots(target: Target, keep: Keep) -> None:
    for minute, xid in ((0, 100), (1, 200), (2, 200), (3, 300)):
        keep(minute, ids(xid))

    found = xids.dated([(target.pk, 150), (target.pk, 200), (target.pk, 299)], at(9))

    assert found == {
        (target.pk, 150): Held(at(0), at(1)),
        # The next id was 200 until the third minute, when it had been given out.
        (target.pk, 200): Held(at(1), at(3)),
        (target.pk, 299): Held(at(1), at(3)),
    }


def test_an_id_older_than_the_history_is_at_least_as_old_as_it(target: Target, keep: Keep) -> None:
    keep(0, ids(100))

    assert xids.dated([(target.pk, 50)], at(9)) == {(target.pk, 50): Held(None, at(0))}


def test_an_id_that_is_still_to_come_holds_nothing_back(target: Target, keep: Keep) -> None:
    keep(0, ids(100))

    assert xids.dated([(target.pk, 100)], at(9)) == {}


def test_without_history_nothing_is_dated(target: Target) -> None:
    assert xids.dated([(target.pk, 100)], at(0)) == {}
    assert xids.dated([], at(0)) == {}


def test_a_past_moment_knows_nothing_of_what_came_later(target: Target, keep: Keep) -> None:
    for minute, xid in ((0, 100), (1, 200)):
        keep(minute, ids(xid))

    assert xids.dated([(target.pk, 150)], at(0.5)) == {}


def test_beyond_the_samples_hours_date_it(target: Target, keep: Keep) -> None:
    for hour in range(4):
        keep(60 * hour + 30, ids(100 + 100 * hour))
        rollup.roll_hour(HISTORY["databases"], START + hour * HOUR)
    forget_samples(at(180))

    found = xids.dated([(target.pk, 50), (target.pk, 150), (target.pk, 350)], at(240))

    assert found[target.pk, 50] == Held(None, START + HOUR)
    assert found[target.pk, 150] == Held(START, START + 2 * HOUR)
    assert found[target.pk, 350] == Held(START + 2 * HOUR, at(210))


def test_ids_of_two_targets_are_looked_up_apart(target: Target, keep: Keep) -> None:
    keep(0, ids(100))
    other = Target.objects.create(
        name="other", host="127.0.0.1", user="collector", environment=target.environment
    )

    assert xids.dated([(target.pk, 50), (other.pk, 50)], at(9)).keys() == {(target.pk, 50)}


def test_points_are_hours_and_the_last_ones_samples(target: Target, keep: Keep) -> None:
    for hour in range(4):
        for minute in (15, 45):
            keep(60 * hour + minute, ids(1000 * hour + minute))
        rollup.roll_hour(HISTORY["databases"], START + hour * HOUR)

    found = xids.points(target.pk, "next_xid", START, at(239))

    assert found == [
        ((START + HOUR).timestamp(), 45),
        ((START + 2 * HOUR).timestamp(), 1045),
        (at(135).timestamp(), 2015),
        (at(165).timestamp(), 2045),
        (at(195).timestamp(), 3015),
        (at(225).timestamp(), 3045),
    ]


def test_before_hours_are_rolled_up_samples_stand_in(target: Target, keep: Keep) -> None:
    for hour in range(6):
        keep(60 * hour, ids(1000 * hour))

    found = xids.points(target.pk, "next_xid", START, at(301))

    assert [value for _, value in found] == [0, 1000, 2000, 3000, 4000, 5000]


def test_a_value_that_did_not_change_holds_until_the_last_snapshot(
    target: Target, keep: Keep
) -> None:
    for minute, xid in ((0, 100), (1, 160), (2, 160)):
        keep(minute, ids(xid))

    found = xids.points(target.pk, "next_xid", START, at(9))

    assert found == [(at(0).timestamp(), 100), (at(1).timestamp(), 160), (at(2).timestamp(), 160)]
    assert wraparound.burn_of(found).mean == 0.5


def test_at_a_past_moment_it_holds_until_the_snapshot_before_that(
    target: Target, keep: Keep
) -> None:
    """Else the same moment would burn fewer ids each time that it is asked for later."""
    for minute, xid in ((0, 100), (1, 160), (2, 160)):
        keep(minute, ids(xid))
    found = xids.points(target.pk, "next_xid", START, at(5))

    keep(9, ids(900))

    assert xids.points(target.pk, "next_xid", START, at(5)) == found
    assert found[-1] == (at(2).timestamp(), 160)


def test_multixact_ids_that_wrap_go_on(target: Target, keep: Keep) -> None:
    keep(0, ids(100, 2**32 - 5))
    keep(1, ids(200, 55))

    assert [value for _, value in xids.points(target.pk, "next_mxid", START, at(9))] == [
        2**32 - 5,
        2**32 + 55,
    ]


def test_the_burn_of_many_targets_is_one_query(
    target: Target, keep: Keep, django_assert_num_queries: Any
) -> None:
    for minute, xid in ((0, 100), (1, 130), (2, 340)):
        keep(minute, ids(xid, 10 * xid))

    with django_assert_num_queries(1):
        found = xids.burns([target.pk, target.pk + 1], at(3))

    assert found.keys() == {target.pk}
    assert found[target.pk]["xid"].mean == 2  # 240 in two minutes
    assert found[target.pk]["mxid"].mean == 20


def test_a_day_after_the_last_snapshot_no_burn_is_known(target: Target, keep: Keep) -> None:
    for minute, xid in ((0, 100), (1, 130)):
        keep(minute, ids(xid))

    assert xids.burns([target.pk], at(25 * 60)) == {}
