"""Hours of weekdays, in the time zones of people."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from monitors.jobs.hours import Hours, next_opening, opening_at

DAILY = frozenset(range(7))
NIGHT = Hours(DAILY, time(22), 8 * 60, "UTC")


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-24 21:59", False),
        ("2026-11-24 22:00", True),
        ("2026-11-25 05:59", True),
        ("2026-11-25 06:00", False),
    ],
)
def test_hours_last_past_midnight_and_end(moment, is_open):
    assert (opening_at(NIGHT, at(moment)) is not None) is is_open


def test_only_its_weekdays_open():
    sundays = Hours(frozenset({6}), time(22), 8 * 60, "UTC")

    assert opening_at(sundays, at("2026-11-30 03:00"))  # Monday morning, of Sunday's hours
    assert not opening_at(sundays, at("2026-11-29 03:00"))
    following = next_opening(sundays, at("2026-11-24 12:00"))
    assert following is not None
    assert following.start == at("2026-11-29 22:00")


def test_no_weekday_never_opens():
    never = Hours(frozenset(), time(22), 60, "UTC")

    assert opening_at(never, at("2026-11-24 22:00")) is None
    assert next_opening(never, at("2026-11-24 22:00")) is None


def test_hours_are_those_of_the_people():
    paris = Hours(DAILY, time(22), 60, "Europe/Paris")

    assert opening_at(paris, at("2026-11-24 21:30"))  # 22:30 in Paris
    assert opening_at(paris, at("2026-07-24 20:30"))  # in summer an hour earlier


def test_an_hour_that_the_clock_skips_still_opens_once():
    skipped = Hours(DAILY, time(2, 30), 60, "Europe/Paris")  # 2026-03-29: 02:00 becomes 03:00

    opening = opening_at(skipped, at("2026-03-29 03:40", "Europe/Paris"))

    assert opening is not None
    assert opening.start == at("2026-03-29 03:30", "Europe/Paris")


def test_an_hour_that_comes_twice_opens_at_the_first():
    twice = Hours(DAILY, time(2, 30), 30, "Europe/Paris")  # 2026-10-25: 03:00 becomes 02:00

    following = next_opening(twice, at("2026-10-24 12:00"))

    assert following is not None
    assert following.start == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC)
)


@given(
    moments,
    st.frozensets(st.integers(0, 6), min_size=1),
    st.times(),
    st.integers(5, 24 * 60),
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Pacific/Apia"]),
)
def test_the_next_opening_lies_ahead_and_is_open_when_it_comes(now, days, opens, minutes, zone):
    hours = Hours(days, opens, minutes, zone)

    following = next_opening(hours, now)

    assert following is not None
    assert now < following.start <= now + timedelta(days=8, hours=1)
    assert opening_at(hours, following.start) is not None
    assert following.end - following.start == timedelta(minutes=minutes)
