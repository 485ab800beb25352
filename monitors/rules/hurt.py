"""When a finding hurts: at the rate that was measured, or already; else why that has no date.

A date is a straight line from what was read last at a measured rate. Without growth there is
none, and none beyond ten years.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from monitors import words
from monitors.advisor import DAY, HOUR, Hurt, Rate, Row
from monitors.rules import autovacuum, wraparound
from monitors.rules.wraparound import FAR, NEARLY, Burn

NOT_MEASURED = "no date so far: its growth is not measured yet"
FAR_AWAY = "no date: not within 10 years at the present rate"
FORCED = "a vacuum to prevent wraparound is forced then, whatever its settings say"
SLOW = 10  # fewer an hour are said by the day


def reaches(  # noqa: PLR0913 - what, how much, how much is too much, how fast, said how, by when
    then: str,
    value: float,
    limit: float,
    rate: Rate | None,
    noun: str,
    now: datetime,
    *,
    enough: float = HOUR,
) -> Hurt:
    """Return when a value gets past a limit, which is `then`; `noun` is what is counted: dead row.

    A rate of less than `enough` seconds of history gives no date.
    """
    if value > limit:
        return Hurt(then, already=True)
    why = none_of(rate, noun, enough)
    if why or rate is None:
        return Hurt(f"{then}; {why}")
    seconds = (limit - value) / rate.per_second
    if seconds > FAR.total_seconds():
        return Hurt(f"{then}; {FAR_AWAY}")
    return Hurt(f"{then}, at {pace(rate, noun)}", now + timedelta(seconds=seconds))


def none_of(rate: Rate | None, noun: str, enough: float = HOUR) -> str:
    """Return why a rate gives no date, '' where it gives one."""
    if rate is None:
        return NOT_MEASURED
    if rate.seconds < NEARLY * enough:
        return f"no date so far: needs {'a day' if enough >= DAY else 'an hour'} of history"
    if rate.per_second <= 0:
        return f"no date: no {noun} was added in the last {words.duration(rate.seconds)}"
    return ""


def pace(rate: Rate, noun: str) -> str:
    """Return `12,000 dead rows an hour over the last 3 h 10 min`."""
    number, unit = rate.per_second * HOUR, "an hour"
    if number < SLOW:
        number, unit = rate.per_second * DAY, "a day"
    return f"{words.count(number, noun)} {unit} over the last {words.duration(rate.seconds)}"


def first(hurts: Iterable[Hurt]) -> Hurt:
    """Return what comes first: what hurts already, then the earliest date, then the first of them."""
    return min(
        hurts,
        key=lambda one: (not one.already, one.at is None, one.at.timestamp() if one.at else 0),
    )


def tell(one: Hurt, now: datetime) -> str:
    """Return it as a line of text: `hurts 28 Nov 14:00 UTC: …`, `hurts already since …`."""
    when = words.day(one.at, now) if one.at else ""
    if one.already:
        return f"hurts already{f' since {when}' if when else ''}: {one.text}"
    return f"hurts {when}: {one.text}" if when else f"when it hurts: {one.text}"


def forced(
    row: Row, settings: Mapping[str, str], next_xid: int | None, burn: Burn | None, now: datetime
) -> Hurt:
    """Return when a vacuum of a `tables` row is forced to prevent wraparound."""
    age = autovacuum.xid_age(next_xid, row["relfrozenxid"])
    limit = wraparound.limits_of(settings, "xid", row["reloptions"]).forced
    return ids_reach(FORCED, age, limit, burn, now)


def ids_reach(then: str, age: float | None, limit: float, burn: Burn | None, now: datetime) -> Hurt:
    """Return when an age in transactions gets past a limit, by the burn of the last day."""
    burn = burn or wraparound.burn_of([])
    found = wraparound.forecast(age, limit, burn, (), now)
    if found.passed:
        return Hurt(then, already=True)
    if found.at is None:
        why = found.why.rstrip(".")
        return Hurt(f"{then}; no date: {why[:1].lower()}{why[1:]}")
    ids = f"{words.short((burn.mean or 0) * wraparound.HOUR)} ids an hour"
    return Hurt(f"{then}, at {ids}", found.at)
