"""How long statements wait for a free connection: Erlang's C, for pools of up to thousands.

Transactions come at random, last an exponential time, and wait in one line for one of
`size` connections (M/M/c). `load` is how many would be open at once on average: transactions a
second times the seconds that each lasts. Times are seconds.

Source: https://en.wikipedia.org/wiki/Erlang_(unit)#Erlang_C_formula
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LATE = 0.05
"""The share of transactions that wait longer than `Wait.late_seconds`."""
RARE = 0.01
"""Where at most this share waits at all, more connections shorten nothing that anybody sees."""
SHOWN = 40
"""Sizes that a curve has at most."""
FAR = 2
"""A marked size may lie so many times the width of the curve beside it."""
LONGEST = 20_000
"""The largest size that is reckoned with: far more than any server has connections."""


@dataclass(frozen=True)
class Wait:
    """What a pool of one size makes transactions wait; None: the line grows without bound."""

    size: int
    chance: float  # that one waits at all, 0 to 1
    mean_seconds: float | None  # over all transactions, those that don't wait too
    late_seconds: float | None  # one in twenty waits longer

    @property
    def chance_pct(self) -> float:
        """The chance in percent."""
        return 100 * self.chance

    @property
    def mean_ms(self) -> float | None:
        """The mean wait in milliseconds."""
        return None if self.mean_seconds is None else 1000 * self.mean_seconds

    @property
    def late_ms(self) -> float | None:
        """What one in twenty waits longer than, in milliseconds."""
        return None if self.late_seconds is None else 1000 * self.late_seconds


def waits(load: float, seconds: float, sizes: Sequence[int]) -> list[Wait]:
    """Return the wait at each of some sizes, smallest first; `seconds` is how long one lasts.

    Raises ValueError for a negative load or length, or a size below 1.
    """
    if load < 0 or seconds < 0 or any(size < 1 for size in sizes):
        message = "A load and a length are at least 0, a size at least 1."
        raise ValueError(message)
    wanted = sorted(set(sizes))
    found: list[Wait] = []
    blocked = 1.0  # Erlang's B of no connection at all
    reached = 0
    for size in wanted:
        while reached < size:
            reached += 1
            blocked = load * blocked / (reached + load * blocked)
        found.append(wait_at(load, seconds, size, blocked))
    return found


def wait_at(load: float, seconds: float, size: int, blocked: float) -> Wait:
    """Return the wait at a size, from Erlang's B of it: no factorials, no overflow."""
    if load >= size:
        return Wait(size, 1.0, None, None)
    chance = blocked / (1 - load / size * (1 - blocked))
    drain = seconds / (size - load)
    late = drain * math.log(chance / LATE) if chance > LATE else 0.0
    return Wait(size, chance, chance * drain, late)


def wait_of(load: float, seconds: float, size: int) -> Wait:
    """Return the wait at one size."""
    return waits(load, seconds, [size])[0]


def smallest_size(load: float, chance: float = RARE) -> int | None:
    """Return the fewest connections with which at most a share waits; None beyond `LONGEST`."""
    blocked = 1.0
    for size in range(1, LONGEST + 1):
        blocked = load * blocked / (size + load * blocked)
        if load < size and wait_at(load, 1.0, size, blocked).chance <= chance:
            return size
    return None


def sizes_to_draw(load: float, marked: Sequence[int] = ()) -> list[int]:
    """Return the sizes of a curve: from the first that keeps up to where next to nobody waits.

    Those that are marked are among them, unless they can't keep up, or lie so far off that the
    curve would be a corner; [] beyond `LONGEST`.
    """
    first, last = math.floor(load) + 1, smallest_size(load, RARE / 10)
    if last is None:
        return []
    last = max(last, first + 1)
    kept = {size for size in marked if first <= size <= last + FAR * (last - first)}
    last = max([last, *kept])
    step = max(1, -(-(last - first) // SHOWN))
    return sorted({*range(first, last + 1, step), last, *kept})
