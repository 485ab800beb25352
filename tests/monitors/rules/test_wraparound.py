"""Formulas by numbers worked out by hand, and dates against histories whose burn is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from monitors.rules import wraparound
from monitors.rules.wraparound import Burn, backtests, burn_of, forecast, freezing_of, limits_of

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR, DAY = 3600.0, 86400.0
LIMITS = limits_of({})


def hourly(burns, *, start=0.0):
    """Points an hour apart; `burns` says how many ids each hour uses up."""
    points = [(start, 1_000.0)]
    for burn in burns:
        points.append((points[-1][0] + HOUR, points[-1][1] + burn))
    return points


def test_a_percentage_is_that_of_the_age_at_which_the_server_stops():
    assert wraparound.STOP_AGE == 2_144_483_647
    assert wraparound.pct(2_144_483_647) == 100
    assert wraparound.pct(1_072_241_823.5) == 50
    assert wraparound.pct(None) is None


@pytest.mark.parametrize(
    ("settings", "options", "kind", "forced", "failsafe"),
    [
        ({}, None, "xid", 200_000_000, 1_600_000_000),
        ({}, None, "mxid", 400_000_000, 1_600_000_000),
        # The failsafe never comes before 1.05 times the freeze age.
        ({"autovacuum_freeze_max_age": "2000000000"}, None, "xid", 2_000_000_000, 2_100_000_000),
        # A table's option counts where it is less ...
        ({}, ["autovacuum_freeze_max_age=100000"], "xid", 100_000, 1_600_000_000),
        # ... and not where it is more.
        ({}, ["autovacuum_freeze_max_age=900000000"], "xid", 200_000_000, 1_600_000_000),
        ({}, ["autovacuum_multixact_freeze_max_age=7"], "mxid", 7, 1_600_000_000),
        ({}, ["autovacuum_multixact_freeze_max_age=7"], "xid", 200_000_000, 1_600_000_000),
    ],
)  # fmt: skip
def test_limits_are_the_servers_or_a_tables_where_those_are_less(
    settings, options, kind, forced, failsafe
):
    limits = limits_of(settings, kind, options)

    assert (limits.forced, limits.failsafe, limits.stop) == (forced, failsafe, 2_144_483_647)


def test_a_multixact_id_that_wrapped_has_an_age():
    assert wraparound.mxid_age(10, 2**32 - 5) == 15
    assert wraparound.mxid_age(10, 11) == 0  # read a moment later
    assert wraparound.mxid_age(10, 0) is None
    assert wraparound.mxid_age(None, 5) is None


def test_ids_that_wrapped_grow_on():
    points = [(0.0, 2**32 - 10), (1.0, 5), (2.0, 20)]

    assert wraparound.unwrapped(points) == [(0.0, 2**32 - 10), (1.0, 2**32 + 5), (2.0, 2**32 + 20)]


def test_the_burn_is_the_mean_of_the_last_day_and_its_busiest_hour():
    points = hourly([9_999] * 48 + [3_600] * 23 + [7_200])

    burn = burn_of(points)

    assert burn.mean == pytest.approx((23 * 3_600 + 7_200) / DAY)
    assert burn.busiest == 2.0
    assert burn.seconds == DAY


@given(
    st.lists(st.tuples(st.floats(20.0, 5_000.0), st.integers(0, 10**6)), min_size=2, max_size=60)
)
def test_the_busiest_hour_never_burns_less_than_the_mean(steps):
    moment, value, points = 0.0, 0.0, [(0.0, 0.0)]
    for seconds, ids in steps:
        moment, value = moment + seconds, value + ids
        points.append((moment, value))

    burn = burn_of(points)

    assert (burn.busiest is None) == (burn.seconds < 0.95 * HOUR)
    assert burn.busiest is None or burn.busiest >= (burn.mean or 0)


def test_the_busiest_hour_is_an_hour_wherever_snapshots_lie():
    # 3,600 ids in one hour between points that are 54 minutes and more apart.
    points = [(0.0, 0.0), (3_240.0, 0.0), (6_840.0, 3_600.0), (10_080.0, 3_600.0)]

    assert burn_of(points).busiest == 1.0


def test_the_burn_of_a_past_moment_knows_nothing_of_what_came_later():
    points = hourly([3_600] * 48 + [360_000] * 5)

    assert burn_of(points, 48 * HOUR).mean == 1.0


def test_without_two_snapshots_there_is_no_burn_and_it_says_so():
    for points in ([], [(0.0, 5.0)]):
        burn = burn_of(points)
        assert burn.mean is None
        assert "No history yet" in burn.why


def test_a_date_is_what_is_left_divided_by_the_burn():
    # 200,000,000 - 113,600,000 = 86,400,000 ids at 100 a second: 864,000 s are 10 days.
    found = forecast(113_600_000, 200_000_000, Burn(100.0, seconds=DAY), (), NOW)

    assert found.at == NOW + timedelta(days=10)
    assert (found.earliest, found.latest) == (None, None)
    assert "Not tested yet" in found.why


@pytest.mark.parametrize(
    ("age", "burn", "why"),
    [
        (None, Burn(1.0, seconds=DAY), "Its age is not known."),
        (200_000_001, Burn(1.0, seconds=DAY), "Passed."),
        (5, Burn(None, why="No history yet."), "No history yet."),
        (5, Burn(0.0, seconds=DAY), "No id was used up in this history."),
        (5, Burn(9.0, seconds=600), "Needs an hour of history."),
        (5, Burn(0.1, seconds=DAY), "Not within 10 years."),
    ],
)
def test_where_there_is_no_date_it_says_why(age, burn, why):
    found = forecast(age, 200_000_000, burn, (), NOW)

    assert (found.at, found.why, found.passed) == (None, why, why == "Passed.")


def test_the_age_must_exceed_the_limit_as_the_server_has_it():
    burn = Burn(1.0, seconds=DAY)

    assert forecast(200_000_000, 200_000_000, burn, (), NOW).passed is False
    assert forecast(200_000_001, 200_000_000, burn, (), NOW).passed is True


def test_replays_of_a_constant_burn_never_miss():
    [week, *_rest] = backtests(hourly([5_000] * 24 * 14))

    assert (week.ahead, week.median_pct, week.low, week.high) == (7 * DAY, 0, 1, 1)
    assert week.replays == 7 * 24  # from the first hour on, until a week before the end


def test_replays_see_a_burn_that_doubles():
    """A hundred hours at one rate, then at twice it: of what was forecast before, twice came."""
    points = hourly([1_000] * 100 + [2_000] * 60)

    found = {errors.ahead: errors for errors in backtests(points)}

    # Eight replays of 159 lie beyond: the burn known at the eighth held 7 of the new hours.
    assert found[HOUR].high == pytest.approx(2 / (1 + 7 / 24))
    # A day ahead the 7th of 135: four hours before the change, so 20 of 24 hours were new.
    assert found[DAY].high == pytest.approx(1 + 20 / 24)
    assert found[DAY].low == 1


def test_a_short_history_is_not_replayed():
    assert backtests(hourly([10] * 12)) == []
    [hour] = backtests(hourly([10] * 14))
    assert hour.ahead == HOUR


def crossing(burns, age, limit):
    """Return after how many seconds an age passes a limit, if it goes on in these hours."""
    left, seconds = limit - age, 0.0
    while True:
        for burn in burns:
            if burn >= left and burn:
                return seconds + HOUR * left / burn
            left -= burn
            seconds += HOUR


def is_within(found, seconds):
    moment = NOW + timedelta(seconds=seconds)
    slack = timedelta(seconds=1)  # of floats
    return (
        found.earliest is not None
        and found.earliest - slack <= moment
        and (found.latest is None or moment <= found.latest + slack)
    )


@given(
    rate=st.integers(1, 10_000_000),
    days=st.floats(0.1, 3000),
)
def test_with_a_constant_burn_the_date_comes_true(rate, days):
    points = hourly([rate] * 24 * 8)
    left = rate * 24 * days

    found = forecast(0, left, burn_of(points), backtests(points), NOW)

    assert is_within(found, crossing([rate], 0, left))
    assert found.earliest is not None and found.latest is not None  # noqa: PT018 - for the types
    assert found.latest - found.earliest <= timedelta(hours=2, days=0.03 * days)


@given(
    rhythm=st.lists(st.integers(0, 1_000_000), min_size=24, max_size=24).filter(any),
    days=st.floats(1.2, 200),
)
def test_with_a_daily_rhythm_the_date_comes_true(rhythm, days):
    points = hourly(rhythm * 14)
    left = sum(rhythm) * days

    found = forecast(0, left, burn_of(points), backtests(points), NOW)

    assert is_within(found, crossing(rhythm, 0, left))


@pytest.mark.parametrize("factor", [4, 20])
@pytest.mark.parametrize(("hours", "every"), [(4, 4), (1, 2), (6, 3)])
def test_with_bursts_every_few_days_nine_dates_of_ten_come_true(factor, hours, every):
    """Made at every fifth hour of the cycle, so in the middle of a burst and long after one."""
    cycle = [100 * factor] * hours + [100] * (24 * every - hours)
    left = sum(cycle) * 30 / every
    came_true = []
    for phase in range(0, len(cycle), 5):
        ahead = cycle[phase:] + cycle[:phase]
        points = hourly((ahead * 30)[-24 * 30 :])
        found = forecast(0, left, burn_of(points), backtests(points), NOW)
        assert found.at is not None
        came_true.append(is_within(found, crossing(ahead, 0, left)))

    assert sum(came_true) / len(came_true) >= 0.85


def sawtooth(rise, floors):
    """Ages that climb for two days from each floor, then fall to the next."""
    points, moment = [], 0.0
    for floor in floors:
        for hour in range(48):
            points.append((moment, floor + rise * hour))
            moment += HOUR
    return points


def test_the_floor_of_an_age_is_what_it_fell_to():
    points = sawtooth(1_000, [0, 5_000, 2_000])

    assert wraparound.minima(points) == [(48 * HOUR, 5_000), (96 * HOUR, 2_000)]


def test_floors_that_stay_level_mean_that_freezing_keeps_up():
    ages = sawtooth(1_000_000, [50e6] * 6)

    told = freezing_of(ages, Burn(1_000_000 / HOUR, seconds=DAY), LIMITS)

    assert told.keeps_up is True
    assert told.text == (
        "Freezing keeps up: its age fell 5 times in 12.0 days, last to 50 M, and the line "
        "through the lows does not rise."
    )


def test_floors_that_rise_mean_that_it_does_not():
    # 4 M higher every two days, 2 M a day: (2,144.48 - 20) M / 2 M are 1,062 days.
    ages = sawtooth(1_000_000, [0, 4e6, 8e6, 12e6, 16e6, 20e6])

    told = freezing_of(ages, Burn(700_000 / HOUR, seconds=DAY), LIMITS)

    assert told.keeps_up is False
    assert "rises by 2 M a day" in told.text
    assert "reach the stop in 1,062 days" in told.text


@pytest.mark.parametrize(
    ("ages", "words"),
    [
        ([], "No history yet"),
        (hourly([10] * 20), "from less than a day"),
        (hourly([10] * 48), "Nothing was frozen far enough to make its age fall in 2.0 days"),
        (sawtooth(10, [0, 5]), "Its age fell once in 4.0 days of history, to 5: too few"),
    ],
)
def test_where_it_can_not_tell_it_says_so(ages, words):
    told = freezing_of(ages, Burn(1.0, seconds=DAY), LIMITS)

    assert told.keeps_up is None
    assert words in told.text
