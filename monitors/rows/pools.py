"""What a pool calculator answers, and what a target's own history says of its connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import TypedDict

from monitors.history.counters import read_rates
from monitors.history.levels import percentile, read_levels
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import configuration
from monitors.rows.tables import rows_at
from monitors.rules import pool_sizes, pools, queueing
from monitors.rules.connections import usable
from monitors.rules.pool_words import Asked, Demand
from monitors.rules.pools import Limits, Traffic
from monitors.rules.queueing import Wait

COLUMNS = (
    "needed",
    "usable",
    "left",
    "verdict",
    "first_limit",
    "errors",
    "sum",
    "max_connections",
    "reserved",
    "needed_without_deploy",
    "per_process_at_most",
    "per_process_with_room",
    "memory_least_bytes",
    "memory_most_bytes",
)
"""Keys of an export, in order: one row, or none where nothing is asked."""

PEAK = timedelta(days=7)
"""How far back demand is looked for: as long as samples are kept."""
RECENT = timedelta(hours=24)
"""Instead of that where no hour of it is summed up yet."""
IN_TRANSACTION = (
    "active",
    "idle in transaction",
    "idle in transaction (aborted)",
    "fastpath function call",
)
"""States of a backend that a pool by transactions can't give to somebody else."""
COUNTERS = ("active_time", "idle_in_transaction_time", "xact_commit", "xact_rollback", "sessions")
MS = 1000


class AnswerRow(TypedDict):
    """Whether it fits, and what breaks first."""

    needed: int
    usable: int
    left: int  # negative where they don't suffice
    verdict: str  # fits, tight, exceeds
    first_limit: str
    errors: list[str]  # what clients are told there, the usual text first
    sum: str  # how `needed` comes about
    max_connections: int
    reserved: int
    needed_without_deploy: int
    per_process_at_most: int | None  # None: not even one fits, or nothing connects by itself
    per_process_with_room: int | None  # so that the verdict is fits
    memory_least_bytes: int  # an estimate
    memory_most_bytes: int


class LimitRow(TypedDict):
    """A database's own limit of connections."""

    datname: str
    connection_limit: int | None  # None: none
    numbackends: int | None


@dataclass(frozen=True)
class Measured:
    """What a target's history says of its connections; None is not known."""

    readings: int = 0  # of the sessions, over `PEAK`
    usual_in_xact: float | None = None  # 99 % of the readings had at most so many
    peak_in_xact: float | None = None
    peak_open: float | None = None
    busiest: Demand | None = None  # the stretch of `PEAK` with most transactions open at once
    stretch_seconds: float | None = None
    recommended: int | None = None  # size of one pool that all share
    cores: int | None = None

    @property
    def is_server_the_limit(self) -> bool:
        """Whether more is wanted at once than the cores can work on: a larger pool makes it worse."""
        if self.cores is None or self.usual_in_xact is None:
            return False
        return self.usual_in_xact > self.cores * pool_sizes.BUSY_PER_CORE


def answer_rows(asked: Asked) -> list[AnswerRow]:
    """Return the answer as the one row of an export; [] where nothing is asked or it is unclear."""
    if not asked.is_asked or asked.wrong:
        return []
    question, found = asked.question, pools.answer(asked.question)
    return [
        {
            "needed": found.needed,
            "usable": found.usable,
            "left": found.left,
            "verdict": found.verdict,
            "first_limit": found.first_limit,
            "errors": list(found.errors),
            "sum": pool_sizes.spell_sum(question),
            "max_connections": question.limits.max_connections,
            "reserved": question.limits.reserved,
            "needed_without_deploy": found.needed_without_deploy,
            "per_process_at_most": pool_sizes.most_per_process(question),
            "per_process_with_room": pool_sizes.most_per_process(question, room=pools.TIGHT),
            "memory_least_bytes": found.memory_least_bytes,
            "memory_most_bytes": found.memory_most_bytes,
        }
    ]


def limits_of(target: Target, window: Window) -> Limits | None:
    """Return what a target's server admits as of a window's end; None before the first contact."""
    if target.max_connections is None:
        return None
    at = None if window.is_live else window.end
    values = {row["name"]: row["setting"] for row in configuration.settings_of(target, at)}
    work_mem_kb = values.get("work_mem")
    return Limits(
        max_connections=target.max_connections,
        reserved=target.reserved_connections or 0,
        for_privileged=int(values.get("reserved_connections") or 0),
        databases={
            row["datname"]: row["connection_limit"]
            for row in database_limits(target, window)
            if row["connection_limit"] is not None
        },
        work_mem_mb=int(work_mem_kb) / 1024 if work_mem_kb else Limits().work_mem_mb,
        major=target.major,
    )


def database_limits(target: Target, window: Window) -> list[LimitRow]:
    """Return the databases that take connections with their limits, those with one first."""
    rows: list[LimitRow] = [
        {
            "datname": row["datname"],
            "connection_limit": limit
            if (limit := row["datconnlimit"]) is not None and limit >= 0
            else None,
            "numbackends": row["numbackends"],
        }
        for row in rows_at("databases", target, window)
        if row["datallowconn"]
    ]
    return sorted(rows, key=lambda row: (row["connection_limit"] is None, row["datname"]))


def traffic_of(target: Target, window: Window) -> Traffic:
    """Return what the counters of a window and the sessions of its end say of how it is connected to."""
    rates = means(read_rates("databases", target.pk, window, COUNTERS))
    sessions = rows_at("sessions", target, window)
    opened = rates.get("sessions")
    xacts = transactions(rates)
    return Traffic(
        sessions_per_second=opened,
        xacts_per_session=xacts / opened if opened and xacts is not None else None,
        open=sum(row["backends"] or 0 for row in sessions) if sessions else None,
        idle=sum(row["backends"] or 0 for row in sessions if row["state"] == "idle")
        if sessions
        else None,
        usable=usable(target.max_connections, target.reserved_connections),
    )


def means(series: Series) -> dict[str, float]:
    """Return the mean of each column over the time in which it is known; {} where none is."""
    lengths = [end - start for start, end in pairwise(series.times)]
    found: dict[str, float] = {}
    for name, column in series.values.items():
        known = [
            (rate, span) for rate, span in zip(column[1:], lengths, strict=True) if rate is not None
        ]
        seconds = sum(span for _, span in known)
        if seconds:
            found[name] = sum(rate * span for rate, span in known) / seconds
    return found


def transactions(rates: dict[str, float]) -> float | None:
    """Return transactions a second, those that were rolled back too."""
    if "xact_commit" not in rates or "xact_rollback" not in rates:
        return None
    return rates["xact_commit"] + rates["xact_rollback"]


def measure(target: Target, window: Window) -> Measured:
    """Return the demand of the days before a window's end."""
    days = Window(window.end - PEAK, window.end, is_live=window.is_live)
    states = {"state": list(IN_TRANSACTION)}
    levels = read_levels("sessions", target.pk, days, "backends", states)
    opened = read_levels("sessions", target.pk, days, "backends", {})
    cores, usual = target.cores, percentile(levels, 99)
    if usual is None:
        return Measured(cores=cores)
    peak = levels[-1][0]
    busiest, seconds = busiest_of(target, days, peak)
    return Measured(
        readings=sum(count for _, count in levels),
        usual_in_xact=usual,
        peak_in_xact=peak,
        peak_open=opened[-1][0],
        busiest=busiest,
        stretch_seconds=seconds,
        recommended=pool_sizes.recommended_pool(usual, cores),
        cores=cores,
    )


def busiest_of(target: Target, days: Window, peak: float) -> tuple[Demand | None, float | None]:
    """Return the load of the busiest stretch by the counters, and how long such a stretch is.

    A transaction is credited when it ends, with all of its time: what goes beyond `peak`, the most
    that was ever seen open, belongs to earlier stretches.
    """
    for span in (PEAK, RECENT):
        window = replace(days, start=days.end - span)
        series = read_rates("databases", target.pk, window, COUNTERS)
        loads = [one for one in points(series) if one.xact_per_second > 0]
        if loads:
            most = max(loads, key=lambda one: one.load)
            seconds = min(most.xact_seconds, max(peak, 1) / most.xact_per_second)
            stretch = 3600.0 if span == PEAK else RECENT.total_seconds() / 240
            return Demand(most.xact_per_second, seconds), stretch
    return None, None


def points(series: Series) -> Iterable[Demand]:
    """Yield the load of each point at which all counters are known."""
    columns = [series.values[name] for name in COUNTERS[:4]]
    for active, idle, commits, rollbacks in zip(*columns, strict=True):
        if active is None or idle is None or commits is None or rollbacks is None:
            continue
        xacts = commits + rollbacks
        seconds = (active + idle) / MS / xacts if xacts else 0.0
        yield Demand(xacts, seconds)


def waits_of(demand: Demand, marked: Sequence[int]) -> list[Wait]:
    """Return the wait over sizes of a pool, those that are marked among them."""
    sizes = queueing.sizes_to_draw(demand.load, marked)
    return queueing.waits(demand.load, demand.xact_seconds, sizes)
