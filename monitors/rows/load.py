"""Load: how many sessions were active on average, and what of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from monitors.history import active_sessions
from monitors.history.active_sessions import Line, Part, Slice
from monitors.history.counters import read_rates
from monitors.history.freshness import interval_of
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.models import Target

COLUMNS = ("dimension", "value", "average_active_sessions", "share_pct", "query_id", "snapshots")
DEFAULT = "wait_event_type"
LAYERS = 8
"""Values that are drawn one by one; the others are one layer."""
HUNDRED = 100
COUNTERS = ("active_time", "idle_in_transaction_time")
"""Milliseconds that sessions spent so, in pg_stat_database."""


class LoadRow(TypedDict):
    """What one value of a dimension took of a window's load."""

    dimension: str  # a key of DIMENSIONS
    value: str  # '' where the server names none; of a statement literals are replaced
    average_active_sessions: float
    share_pct: float
    query_id: int | None  # of a statement, where the server named it
    snapshots: int  # of the whole window, with or without it


@dataclass(frozen=True)
class Load:
    """The load of a window, by the samples of activity and by the server's own counters."""

    by: str
    which: Slice
    parts: Mapping[str, Sequence[Part]]
    line: Line
    counters: Series
    """Average sessions by state, of all databases, as pg_stat_database counted them."""

    @property
    def snapshots(self) -> int:
        """How many good snapshots the averages are of."""
        return len(self.line.per_snapshot)

    @cached_property
    def mean(self) -> float | None:
        """Average active sessions; None without a snapshot."""
        return statistics.fmean(self.line.per_snapshot) if self.snapshots else None

    @property
    def peak(self) -> int | None:
        """The most that were active at one snapshot."""
        return max(self.line.per_snapshot, default=None)

    @property
    def error(self) -> float | None:
        """Standard error of the mean: standard deviation over the root of the number of snapshots.

        Snapshots that follow one another are alike, so the true one is greater. None of fewer than two.
        """
        if self.snapshots <= 1:
            return None
        return statistics.stdev(self.line.per_snapshot) / math.sqrt(self.snapshots)

    def counted(self, name: str) -> float | None:
        """Return the mean of a counter over the window, None where it is not known.

        Each point holds for the time since the one before.
        """
        times, values = self.counters.times, self.counters.values.get(name, [])
        spans = [
            (value, after - before)
            for before, after, value in zip(times, times[1:], values[1:], strict=False)
            if value is not None
        ]
        seconds = sum(span for _, span in spans)
        return sum(value * span for value, span in spans) / seconds if seconds else None

    def rows(self, dimension: str) -> list[LoadRow]:
        """Return what each value of a dimension takes, most first."""
        parts = [part for part in self.parts[dimension] if part.counted]
        whole = sum(part.counted for part in parts)
        return [
            {
                "dimension": dimension,
                "value": part.value,
                "average_active_sessions": part.counted / self.snapshots,
                "share_pct": HUNDRED * part.counted / whole,
                "query_id": part.query_id,
                "snapshots": self.snapshots,
            }
            for part in parts
        ]


def load_of(target: Target, window: Window, by: str, which: Slice) -> Load:
    """Return the load of a window, divided by a dimension; of a slice of it where one is named."""
    parts = active_sessions.read_parts(target.pk, window, which)
    line = active_sessions.read_line(
        target.pk,
        window,
        which,
        by,
        [part.value for part in parts[by] if part.counted][:LAYERS],
        interval_seconds=interval_of(target, active_sessions.PROBE),
    )
    return Load(by, which, parts, line, counted_sessions(target, window))


def counted_sessions(target: Target, window: Window) -> Series:
    """Return average sessions by the exact counters: milliseconds a second, over 1,000."""
    rates = read_rates("databases", target.pk, window, COUNTERS)
    return Series(
        rates.times,
        {
            name: [None if value is None else value / 1000 for value in column]
            for name, column in rates.values.items()
        },
    )
