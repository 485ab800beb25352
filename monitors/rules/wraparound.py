"""When ids run out: ages, limits, the measured burn, and dates with an interval that was tested.

A forecast is a straight line from the age of today at the mean burn of the last day. How
far such lines miss is not assumed but measured: the same rule is replayed at every past
hour of the history and compared with what came, and a date's interval is the spread of
those replays.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND,
`SetTransactionIdLimit()` in src/backend/access/transam/varsup.c (stop),
`vacuum_xid_failsafe_check()` in src/backend/commands/vacuum.c (failsafe) and
`relation_needs_vacanalyze()` in src/backend/postmaster/autovacuum.c (forced vacuum).

Long, since one rule, from ages over dates to sentences.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from monitors import words
from monitors.rules import autovacuum

STOP_AGE = 2**31 - 1 - 3_000_000  # of both kinds of id: no new one is given out
FAILSAFE_FACTOR = 1.05  # of freeze_max_age; the failsafe never comes before
IDS = 2**32
HOUR, DAY = 3600.0, 86400.0  # seconds
BURN_SECONDS = DAY
ENOUGH_SECONDS = HOUR  # a rate of less history gives no date
NEARLY = 0.95  # of an hour counts as one: snapshots are never on the second
FAR = timedelta(days=3653)  # dates beyond are none
AHEAD = (7 * DAY, 3 * DAY, DAY, 6 * HOUR, HOUR)  # how far replays look
REPLAYS = 12  # fewer prove nothing
TAIL = 0.05  # left out at either end: nine replays of ten lie between
KEEPS_UP_SHARE = 0.1  # of the burn; a floor that rises slower is level
MINIMA = 3  # through fewer a line says nothing
MISSED_SHARE = 0.01  # a date is never said finer than a hundredth of its distance

Points = Sequence[tuple[float, float]]
"""(epoch seconds, id or age), oldest first; ids don't wrap (see `unwrapped`)."""

SETTINGS = {
    "xid": ("autovacuum_freeze_max_age", "vacuum_failsafe_age"),
    "mxid": ("autovacuum_multixact_freeze_max_age", "vacuum_multixact_failsafe_age"),
}
DEFAULTS = {
    "autovacuum_freeze_max_age": 200_000_000,
    "vacuum_failsafe_age": 1_600_000_000,
    "autovacuum_multixact_freeze_max_age": 400_000_000,
    "vacuum_multixact_failsafe_age": 1_600_000_000,
}
PASSED = "Passed."
NAMES = {"xid": "transaction ids", "mxid": "multixact ids"}


@dataclass(frozen=True)
class Limits:
    """Ages at which something happens: a forced vacuum, the failsafe, the stop."""

    forced: int
    failsafe: int
    stop: int = STOP_AGE


@dataclass(frozen=True)
class Burn:
    """How fast ids are used up, a second; None where it is not known, and `why`."""

    mean: float | None
    busiest: float | None = None  # of the busiest hour, None before there was one
    seconds: float = 0.0  # of history that the mean comes from
    swing: float = 0.0  # seconds of mean burn between the rhythm's most ahead and most behind
    why: str = ""


@dataclass(frozen=True)
class Errors:
    """How far forecasts missed in replays of the history.

    `low` and `high` are what was really used up, as a multiple of what was forecast:
    nine of ten replays lie between.
    """

    ahead: float  # seconds
    replays: int
    median_pct: float  # of the absolute error
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """A date and its interval, or None and why there is none.

    `earliest` is None where nothing was replayed yet, `latest` also where the ids may
    stop being used up.
    """

    at: datetime | None
    earliest: datetime | None = None
    latest: datetime | None = None
    why: str = ""
    passed: bool = False


@dataclass(frozen=True)
class Freezing:
    """Whether freezing keeps up, None where the history can't tell; in a sentence."""

    keeps_up: bool | None
    text: str


def pct(age: float | None) -> float | None:
    """Return an age in percent of that at which the server stops."""
    return None if age is None else 100 * age / STOP_AGE


def limits_of(
    settings: Mapping[str, str], kind: str = "xid", reloptions: Iterable[str] | None = None
) -> Limits:
    """Return the limits of a database, or of a table with its storage options.

    Forced is freeze_max_age, or the table's option where that is less; failsafe is
    greatest(vacuum_failsafe_age, 1.05 * freeze_max_age of the server).
    """
    freeze, failsafe = (int(settings.get(name, DEFAULTS[name])) for name in SETTINGS[kind])
    own = autovacuum.parse_options(reloptions).get(SETTINGS[kind][0])
    return Limits(
        forced=min(freeze, int(own)) if own is not None else freeze,
        failsafe=max(failsafe, int(freeze * FAILSAFE_FACTOR)),
    )


INVALID = -2
"""`pg_database.datconnlimit` of a database that an interrupted DROP DATABASE left."""


def is_invalid(row: Mapping[str, Any]) -> bool:
    """Tell whether a `databases` row is of an invalid database: the server leaves its age out.

    Nothing can be vacuumed in it, and it holds no transaction id back.
    """
    return row.get("datconnlimit") == INVALID


def mxid_age(next_mxid: int | None, relminmxid: int | None) -> int | None:
    """Return how many multixact ids ago one was given out, None where either is unknown."""
    if next_mxid is None or not relminmxid:
        return None
    difference = (next_mxid - relminmxid) % IDS
    return difference if difference < IDS // 2 else 0


def unwrapped(points: Points) -> list[tuple[float, float]]:
    """Return 32-bit ids that wrapped as numbers that only grow."""
    found: list[tuple[float, float]] = []
    for moment, value in points:
        last = found[-1][1] if found else value
        step = (value - last) % IDS
        found.append((moment, last + (step if step < IDS // 2 else 0)))
    return found


def burn_of(points: Points, now: float | None = None) -> Burn:
    """Return the burn of the last day before now; by default before the last point."""
    start, end = day_before(points, now)
    mean, seconds = mean_between(points, start, end)
    if mean is None:
        return Burn(None, why="No history yet: a rate needs two snapshots.")
    swing = swing_of(points[start:end], mean)
    return Burn(mean, busiest_hour(points, start, end), seconds, swing)


def day_before(points: Points, now: float | None = None) -> tuple[int, int]:
    """Return where the points of the day before now begin and end."""
    end = bisect_right(points, (now, math.inf)) if now is not None else len(points)
    until = points[end - 1][0] if end else 0.0
    return bisect_left(points, (until - BURN_SECONDS, -math.inf), 0, end), end


def mean_between(points: Points, start: int, end: int) -> tuple[float | None, float]:
    """Return the mean rate over some of the points and the seconds that it comes from."""
    if start >= end or points[end - 1][0] == points[start][0]:
        return None, 0.0
    (first_at, first), (last_at, last) = points[start], points[end - 1]
    return (last - first) / (last_at - first_at), last_at - first_at


def busiest_hour(points: Points, start: int, end: int) -> float | None:
    """Return the greatest mean rate over an hour or longer, None within the first hour.

    The points lie on a line that bends at them alone, so the busiest hour begins or ends at
    one. It is never less than the mean: the whole is one of its spans.
    """
    mean, seconds = mean_between(points, start, end)
    if mean is None or seconds < NEARLY * HOUR:
        return None
    known, span = points[start:end], min(HOUR, seconds)
    first_at, last_at = known[0][0], known[-1][0]
    begins = [moment for moment, _ in known if moment + span <= last_at]
    begins += [moment - span for moment, _ in known if moment - span >= first_at]
    rates = ((value_at(known, t + span) - value_at(known, t)) / span for t in begins)
    return max(mean, *rates)


def swing_of(points: Points, mean: float) -> float:
    """Return by how many seconds of mean burn a day's rhythm sways around its line.

    Whatever comes in the same rhythm passes a limit no further than this from the
    moment at which the line does.
    """
    if mean <= 0:
        return 0.0
    off = [value - points[0][1] - mean * (moment - points[0][0]) for moment, value in points]
    return (max(off) - min(off)) / mean


def value_at(points: Points, moment: float) -> float:
    """Return the value at a moment between two points, on the line between them."""
    after = min(bisect_left(points, (moment, -math.inf)), len(points) - 1)
    if after == 0 or points[after][0] <= moment:
        return points[after][1]
    (t0, v0), (t1, v1) = points[after - 1], points[after]
    return v0 + (v1 - v0) * (moment - t0) / (t1 - t0)


def backtest(points: Points, ahead: float) -> Errors | None:
    """Replay the forecast at each past hour and compare it with what came so many seconds later.

    None where the history holds fewer than 12 replays. A moment at which there would
    have been no date is none.
    """
    if not points:
        return None
    ratios: list[float] = []
    replay = points[0][0] + ENOUGH_SECONDS
    while replay + ahead <= points[-1][0]:
        mean, seconds = mean_between(points, *day_before(points, replay))
        if mean and seconds >= NEARLY * ENOUGH_SECONDS:
            grown = value_at(points, replay + ahead) - value_at(points, replay)
            ratios.append(grown / (mean * ahead))
        replay += HOUR
    if len(ratios) < REPLAYS:
        return None
    ratios.sort()
    last = len(ratios) - 1
    return Errors(
        ahead,
        len(ratios),
        100 * median(abs(ratio - 1) for ratio in ratios),
        ratios[math.floor(TAIL * last)],
        ratios[math.ceil((1 - TAIL) * last)],
    )


def backtests(points: Points) -> list[Errors]:
    """Return the replays of every distance that the history is long enough for, farthest first."""
    return [found for ahead in AHEAD if (found := backtest(points, ahead)) is not None]


def errors_for(tested: Sequence[Errors], seconds: float) -> Errors | None:
    """Return the farthest replays that look no further than a forecast; else the nearest ones."""
    fitting = [found for found in tested if found.ahead <= seconds]
    return fitting[0] if fitting else tested[-1] if tested else None


def forecast(
    age: float | None, limit: float, burn: Burn, tested: Sequence[Errors], now: datetime
) -> Forecast:
    """Return when an age will pass a limit, if nothing is frozen until then."""
    why = why_none(age, limit, burn)
    if why or age is None or not burn.mean:
        return Forecast(None, why=why, passed=age is not None and age > limit)
    left = limit - age
    seconds = left / burn.mean
    if seconds > FAR.total_seconds():
        return Forecast(None, why="Not within 10 years.")
    errors = errors_for(tested, seconds)
    at = now + timedelta(seconds=seconds)
    if errors is None:
        return Forecast(at, why="Not tested yet: 12 hours of history make an interval.")
    slack = max(HOUR, MISSED_SHARE * seconds, burn.swing)
    soonest = left / (burn.mean * errors.high) - slack if errors.high > 0 else seconds
    slowest = left / (burn.mean * errors.low) + slack if errors.low > 0 else math.inf
    return Forecast(
        at,
        now + timedelta(seconds=max(min(soonest, seconds), 0)),
        now + timedelta(seconds=max(slowest, seconds)) if slowest <= FAR.total_seconds() else None,
    )


def why_none(age: float | None, limit: float, burn: Burn) -> str:
    """Return why an age has no date, '' where it has one."""
    if age is None:
        return "Its age is not known."
    if age > limit:
        return PASSED
    if burn.mean is None:
        return burn.why
    if burn.mean <= 0:
        return "No id was used up in this history."
    if burn.seconds < NEARLY * ENOUGH_SECONDS:
        return "Needs an hour of history."
    return ""


def minima(points: Points) -> list[tuple[float, float]]:
    """Return the points to which an age fell: it falls only by freezing."""
    return [
        points[i]
        for i in range(1, len(points))
        if points[i][1] < points[i - 1][1]
        and (i + 1 == len(points) or points[i][1] <= points[i + 1][1])
    ]


def slope(points: Points) -> float:
    """Return how steeply the line of least squares through points rises, a second."""
    middle = sum(moment for moment, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    width = sum((moment - middle) ** 2 for moment, _ in points)
    if not width:
        return 0.0
    return sum((moment - middle) * (value - mean) for moment, value in points) / width


def freezing_of(ages: Points, burn: Burn, limits: Limits) -> Freezing:
    """Tell from the course of a database's age whether freezing keeps up with the burn."""
    if not ages:
        return Freezing(None, "No history yet: whether freezing keeps up can't be told.")
    floors, days = minima(ages), (ages[-1][0] - ages[0][0]) / DAY
    if days < 1:
        return Freezing(None, "Whether freezing keeps up can't be told from less than a day.")
    if not floors:
        text = (
            f"Nothing was frozen far enough to make its age fall in {days:,.1f} days of history; "
            f"forced vacuums begin at {words.short(limits.forced)}."
        )
        return Freezing(None, text)
    if len(floors) < MINIMA:
        text = f"Its age fell {words.times(len(floors))} in {days:,.1f} days of history, to {words.short(floors[-1][1])}: too few to tell whether freezing keeps up."
        return Freezing(None, text)
    rise = slope(floors) * DAY
    fell = f"its age fell {words.times(len(floors))} in {days:,.1f} days, last to {words.short(floors[-1][1])}"
    if rise <= KEEPS_UP_SHARE * (burn.mean or 0) * DAY:
        level = f"rises by {words.short(rise)} a day" if rise > 0 else "does not rise"
        return Freezing(
            keeps_up=True, text=f"Freezing keeps up: {fell}, and the line through the lows {level}."
        )
    left = max(limits.stop - floors[-1][1], 0) / rise
    text = (
        f"Freezing does not keep up: {fell}, but the line through the lows rises by "
        f"{words.short(rise)} a day. At that pace the lows themselves reach the stop in {left:,.0f} days."
    )
    return Freezing(keeps_up=False, text=text)
