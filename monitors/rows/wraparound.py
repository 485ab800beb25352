"""Ages of databases with the dates at which they pass their limits: one row a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, cast

from monitors import words
from monitors.history import xids
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import tables
from monitors.rules import wraparound
from monitors.rules.wraparound import Burn, Errors, Forecast, Freezing, Limits

Kind = Literal["xid", "mxid"]
KINDS: tuple[Kind, ...] = ("xid", "mxid")
AGE: Mapping[Kind, Literal["xid_age", "mxid_age"]] = {"xid": "xid_age", "mxid": "mxid_age"}
PCT: Mapping[Kind, Literal["xid_pct", "mxid_pct"]] = {"xid": "xid_pct", "mxid": "mxid_pct"}
"""Columns of a kind of id."""
EVENTS = ("forced", "failsafe", "stop")
HISTORY_DAYS = 30
"""Of which forecasts are replayed."""

DATABASE_STATES = ("datistemplate", "datallowconn", "datconnlimit")
DATABASE_COLUMNS = (
    "database",
    *DATABASE_STATES,
    *(
        column
        for kind in KINDS
        for column in (
            f"{kind}_age",
            f"{kind}_pct",
            *(
                f"{kind}_{event}_{part}"
                for event in EVENTS
                for part in ("limit", "at", "earliest", "latest", "why")
            ),
        )
    ),
    "xid_burn_per_hour",
    "xid_burn_busiest_per_hour",
    "mxid_burn_per_hour",
    "mxid_burn_busiest_per_hour",
    "read_at",
)
"""Keys of the export, in order."""


class DateWords(TypedDict):
    """A date as the page says it."""

    at: datetime | None  # None: there is none, and `why`
    words: str
    span: str  # its interval; '' where nothing was replayed yet
    why: str
    passed: bool


class DatabaseRow(TypedDict):
    """One database with both of its ages; an age is None where it is not known or does not count.

    Of each event the age that is its limit, its date with the interval, and why there is none.
    """

    database: str | None
    datid: int
    datistemplate: bool | None
    datallowconn: bool | None
    datconnlimit: int | None
    invalid: bool  # an interrupted DROP DATABASE left it
    drop: str  # the statement that drops it
    read_at: datetime | None

    xid_age: int | None
    xid_pct: float | None  # of the age at which the server stops
    xid_burn_per_hour: float | None  # of the whole server; None: no history yet
    xid_burn_busiest_per_hour: float | None
    xid_forced: DateWords
    xid_forced_limit: int
    xid_forced_at: datetime | None
    xid_forced_earliest: datetime | None
    xid_forced_latest: datetime | None
    xid_forced_why: str
    xid_failsafe: DateWords
    xid_failsafe_limit: int
    xid_failsafe_at: datetime | None
    xid_failsafe_earliest: datetime | None
    xid_failsafe_latest: datetime | None
    xid_failsafe_why: str
    xid_stop: DateWords
    xid_stop_limit: int
    xid_stop_at: datetime | None
    xid_stop_earliest: datetime | None
    xid_stop_latest: datetime | None
    xid_stop_why: str

    mxid_age: int | None
    mxid_pct: float | None
    mxid_burn_per_hour: float | None
    mxid_burn_busiest_per_hour: float | None
    mxid_forced: DateWords
    mxid_forced_limit: int
    mxid_forced_at: datetime | None
    mxid_forced_earliest: datetime | None
    mxid_forced_latest: datetime | None
    mxid_forced_why: str
    mxid_failsafe: DateWords
    mxid_failsafe_limit: int
    mxid_failsafe_at: datetime | None
    mxid_failsafe_earliest: datetime | None
    mxid_failsafe_latest: datetime | None
    mxid_failsafe_why: str
    mxid_stop: DateWords
    mxid_stop_limit: int
    mxid_stop_at: datetime | None
    mxid_stop_earliest: datetime | None
    mxid_stop_latest: datetime | None
    mxid_stop_why: str


@dataclass(frozen=True)
class Reading:
    """How fast a server used up one kind of id at a moment, and how well that forecasts."""

    burn: Burn
    tested: list[Errors]


def readings_of(target: Target, window: Window) -> dict[Kind, Reading]:
    """Return {xid, mxid: reading} at the end of a window, from the history until then."""
    since = window.end - timedelta(days=HISTORY_DAYS)
    found = {}
    for kind in KINDS:
        points = xids.points(target.pk, xids.FIELDS[kind], since, window.end)
        found[kind] = Reading(wraparound.burn_of(points), wraparound.backtests(points))
    return found


def databases_of(
    target: Target, window: Window, readings: Mapping[Kind, Reading]
) -> list[DatabaseRow]:
    """Return the databases, the greatest share of ids first.

    An invalid one has no age that counts: the server leaves it out, too.
    """
    read_at = tables.read_at_of(target, window, "databases").get(0)
    rows = [
        database_row(row, target, window.end, readings, read_at)
        for row in tables.rows_at("databases", target, window)
    ]
    return sorted(rows, key=lambda row: -share_of(row))


def database_row(
    row: Mapping[str, Any],
    target: Target,
    now: datetime,
    readings: Mapping[Kind, Reading],
    read_at: datetime | None,
) -> DatabaseRow:
    """Return one database as read with its shares and dates."""
    invalid = wraparound.is_invalid(row)
    found: dict[str, object] = {
        "database": row["datname"],
        "datid": row["datid"],
        **{name: row[name] for name in DATABASE_STATES},
        "invalid": invalid,
        "drop": f"DROP DATABASE {words.quoted(row['datname'] or '')};",
        "read_at": read_at,
    }
    for kind in KINDS:
        age = None if invalid else row[AGE[kind]]
        limits = wraparound.limits_of(target.settings, kind)
        found |= columns_of(kind, age, limits, readings[kind], now)
    return cast(DatabaseRow, found)


def share_of(row: DatabaseRow) -> float:
    """Return the greater share of the two kinds of id, in percent."""
    return max(row["xid_pct"] or 0.0, row["mxid_pct"] or 0.0)


def columns_of(
    kind: Kind, age: int | None, limits: Limits, reading: Reading, now: datetime
) -> dict[str, object]:
    """Return an age with its share, its burn and its dates, the keys beginning with the kind."""
    found: dict[str, object] = {
        f"{kind}_age": age,
        f"{kind}_pct": wraparound.pct(age),
        f"{kind}_burn_per_hour": an_hour(reading.burn.mean),
        f"{kind}_burn_busiest_per_hour": an_hour(reading.burn.busiest),
    }
    for event in EVENTS:
        limit = getattr(limits, event)
        date = wraparound.forecast(age, limit, reading.burn, reading.tested, now)
        name = f"{kind}_{event}"
        found |= {
            name: say_date(date, now),
            f"{name}_limit": limit,
            f"{name}_at": date.at,
            f"{name}_earliest": date.earliest,
            f"{name}_latest": date.latest,
            f"{name}_why": date.why,
        }
    return found


def an_hour(burn: float | None) -> float | None:
    """Return a burn a second as one an hour."""
    return None if burn is None else burn * wraparound.HOUR


def say_date(date: Forecast, now: datetime) -> DateWords:
    """Return a date as the page says it."""
    span = ""
    if date.earliest is not None:
        last = words.day(date.latest, now) if date.latest else "open"
        span = f"{words.day(date.earliest, now)} to {last}"
    return {
        "at": date.at,
        "words": words.day(date.at, now) if date.at else "",
        "span": span,
        "why": date.why,
        "passed": date.why == wraparound.PASSED,
    }


def freezing_of(
    target: Target, window: Window, row: DatabaseRow, kind: Kind, readings: Mapping[Kind, Reading]
) -> Freezing:
    """Return whether freezing keeps up in a database."""
    since = window.end - timedelta(days=HISTORY_DAYS)
    ages = xids.points(target.pk, AGE[kind], since, window.end, datid=row["datid"])
    limits = wraparound.limits_of(target.settings, kind)
    return wraparound.freezing_of(ages, readings[kind].burn, limits)
