"""When a recurring job may run: hours of some weekdays, in a time zone of people.

A job's hours open at `opens_at` on each of its weekdays and stay open for
`open_minutes`, also past midnight. Where a clock is put forward the hours open
at the first moment that exists; where it is put back, at the first of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEK = 7


@dataclass(frozen=True)
class Hours:
    """When a job may run."""

    weekdays: frozenset[int]  # 0 is Monday
    opens_at: time
    open_minutes: int
    time_zone: str


@dataclass(frozen=True)
class Opening:
    """One stretch in which a job may run, [start, end) in UTC."""

    start: datetime
    end: datetime


def opening_at(hours: Hours, now: datetime) -> Opening | None:
    """Return the opening that a moment lies in, None where it lies in none; the latest of several."""
    today = now.astimezone(ZoneInfo(hours.time_zone)).date()
    back = range(hours.open_minutes // (24 * 60) + 2)
    for days in back:
        found = opening_on(hours, today - timedelta(days=days))
        if found and found.start <= now < found.end:
            return found
    return None


def next_opening(hours: Hours, now: datetime) -> Opening | None:
    """Return the first opening that starts after a moment, None where no weekday is chosen."""
    today = now.astimezone(ZoneInfo(hours.time_zone)).date()
    for days in range(WEEK + 2):
        found = opening_on(hours, today + timedelta(days=days))
        if found and found.start > now:
            return found
    return None


def opening_on(hours: Hours, day: date) -> Opening | None:
    """Return the opening of a day, None where the day is not one of the job's."""
    if day.weekday() not in hours.weekdays:
        return None
    local = datetime.combine(day, hours.opens_at, ZoneInfo(hours.time_zone))
    start = local.astimezone(UTC)
    # A time that the clock skips is read as if it had not: back in local time it is later.
    return Opening(start, start + timedelta(minutes=hours.open_minutes))
