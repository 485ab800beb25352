"""When a running vacuum will be done, and why it is slow: from its own progress samples.

Source: https://www.postgresql.org/docs/current/progress-reporting.html#VACUUM-PROGRESS-REPORTING
and https://www.postgresql.org/docs/current/runtime-config-vacuum.html#RUNTIME-CONFIG-RESOURCE-VACUUM-COST
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from monitors import words
from monitors.rules.autovacuum import parse_options

INDEX_PHASES = ("vacuuming indexes", "cleaning up indexes")
RECENT = 12
"""Samples that a speed is taken from; with one each 10 s, two minutes."""
TESTED_AT_LEAST = 3
"""Earlier predictions without which an error is not told."""
SLEEPS_PCT = 70
"""Of its time: more, and the cost limit is what a vacuum is slow for."""
WAITS_PCT = 50
"""Of the samples: more, and what it waits for is why."""
JUDGED_AFTER = 60
"""Seconds; a younger vacuum is not called slow."""
HIT, MISS, DIRTY = 1, 2, 20
"""Cost of a page found in shared buffers, read, and made dirty (14+)."""
DEAD_ROW_BYTES = 6
"""Memory for a dead row's place, up to 16."""
PAGES_A_MIB = 128

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Eta:
    """How long a vacuum still takes."""

    seconds: float
    error_pct: float | None  # how far off earlier predictions were; None: too few to tell
    whole: bool  # of the run; else of its phase, and how long the rest takes is not known
    tested: int  # predictions that the error is taken from


@dataclass(frozen=True)
class Cost:
    """What the cost limit allows a vacuum."""

    limit: float  # its share, where several workers share one
    delay_ms: float
    workers: int

    def pages(self, cost: int) -> float:
        """Pages a second that each cost so much."""
        return 1000 / self.delay_ms * self.limit / cost


def position(row: Row) -> tuple[int, int] | None:
    """Return how far a run's phase is: (done, total), None where the server doesn't say.

    Blocks of the heap; indexes in their phases (17+).
    """
    phase = row["phase"]
    if row["command"] != "VACUUM" or row["heap_blks_total"] is None:
        done, total = row["done"], row["total"]
    elif phase == "scanning heap":
        done, total = row["heap_blks_scanned"], row["heap_blks_total"]
    elif phase == "vacuuming heap":
        done, total = row["heap_blks_vacuumed"], row["heap_blks_scanned"]
    elif phase in INDEX_PHASES:
        done, total = row["indexes_processed"], row["indexes_total"]
    else:
        return None
    return (done, total) if total and done is not None else None


def pct_of(row: Row) -> float | None:
    """Return how far a run's phase is in percent, None where the server doesn't say."""
    found = position(row)
    return min(100.0, 100 * found[0] / found[1]) if found else None


def in_phase(samples: Sequence[Row]) -> list[Row]:
    """Return the samples of the phase that a run is in, of its current pass; oldest first."""
    found: list[Row] = []
    for row in reversed(samples):
        last = found[-1] if found else row
        same = (row["phase"], row["index_vacuum_count"]) == (
            last["phase"],
            last["index_vacuum_count"],
        )
        if not same:
            break
        found.append(row)
    return found[::-1]


def left(samples: Sequence[Row]) -> float | None:
    """Return the seconds that a phase still takes at its recent speed, None where it has none."""
    recent = samples[-RECENT:]
    points = [(row["target_at"], found) for row in recent if (found := position(row))]
    if len(points) < 2:  # noqa: PLR2004 - a speed needs two points
        return None
    (first_at, (first, _)), (last_at, (last, total)) = points[0], points[-1]
    seconds = (last_at - first_at).total_seconds()
    if last <= first or seconds <= 0:
        return None
    return float((total - last) * seconds / (last - first))


def eta_of(samples: Sequence[Row], *, after: Mapping[str, float] | None = None) -> Eta | None:
    """Return when a run ends, from its samples, oldest first; None where no speed is seen.

    `after` are the phases of an earlier run with their seconds: what they say comes after
    this one's phase is added, and the prediction is one of the whole run.
    """
    phase = in_phase(samples)
    seconds = left(phase)
    if seconds is None:
        return None
    now = phase[-1]
    tested = errors_of(phase)
    error = median(tested) if len(tested) >= TESTED_AT_LEAST else None
    whole = is_last(now)
    rest = 0.0 if whole else rest_of(now["phase"], after or {})
    if rest is not None:
        whole, seconds = True, seconds + rest
    return Eta(seconds, error, whole, len(tested))


def is_last(row: Row) -> bool:
    """Tell whether nothing long comes after a phase."""
    if row["command"] == "ANALYZE":
        return True
    if row["command"] != "VACUUM":
        return False
    if row["phase"] == "vacuuming heap":
        return bool(row["heap_blks_scanned"] == row["heap_blks_total"])
    return bool(row["phase"] == "cleaning up indexes")


def rest_of(phase: str, earlier: Mapping[str, float]) -> float | None:
    """Return what came after a phase in an earlier run, in seconds; None where that is unknown."""
    names = list(earlier)
    if phase not in names:
        return None
    return sum(earlier[name] for name in names[names.index(phase) + 1 :])


def errors_of(phase: Sequence[Row]) -> list[float]:
    """Return by how many percent earlier predictions missed the moment of where a run is now.

    Each earlier sample predicts, as `left` would have, when the run comes to today's place.
    """
    now = phase[-1]
    place = position(now)
    if place is None:
        return []
    found = []
    for count in range(2, len(phase)):
        then = phase[:count]
        seconds, was = left(then), position(then[-1])
        true = (now["target_at"] - then[-1]["target_at"]).total_seconds()
        if seconds is None or was is None or true <= 0 or was[1] <= was[0] or place[0] <= was[0]:
            continue
        predicted = seconds * (place[0] - was[0]) / (was[1] - was[0])
        found.append(100 * abs(predicted - true) / true)
    return found


def number_of(name: str, settings: Mapping[str, str], default: float) -> float:
    """Return a setting as a number, the default where it was not read."""
    return float(settings.get(name) or default)


def cost_of(
    settings: Mapping[str, str], reloptions: Sequence[str] | None, *, autovacuum: bool, workers: int
) -> Cost | None:
    """Return what the cost limit allows a vacuum; None where there is no limit.

    One by hand has none unless its session sets vacuum_cost_delay, which nobody sees.
    """
    if not autovacuum:
        delay = number_of("vacuum_cost_delay", settings, 0)
        limit = number_of("vacuum_cost_limit", settings, 200)
        return Cost(limit, delay, 1) if delay > 0 else None
    own = parse_options(reloptions)

    def inherited(option: str, setting: str, default: float) -> float:
        value = float(own.get(option) or settings.get(option) or -1)
        return value if value >= 0 else number_of(setting, settings, default)

    delay = float(own.get("autovacuum_vacuum_cost_delay") or -1)
    if delay < 0:
        delay = number_of("autovacuum_vacuum_cost_delay", settings, 2)
    if delay < 0:
        delay = number_of("vacuum_cost_delay", settings, 0)
    limit = inherited("autovacuum_vacuum_cost_limit", "vacuum_cost_limit", 200)
    shares = not {"autovacuum_vacuum_cost_delay", "autovacuum_vacuum_cost_limit"} & own.keys()
    count = max(workers, 1) if shares else 1
    return Cost(max(limit / count, 1), delay, count) if delay > 0 else None


def pages_a_second(samples: Sequence[Row]) -> float | None:
    """Return the blocks of the heap that a run passes a second now; skipped ones count too."""
    phase = in_phase(samples)[-RECENT:]
    points = [(row["target_at"], found[0]) for row in phase if (found := position(row))]
    if len(points) < 2 or phase[-1]["phase"] in INDEX_PHASES:  # noqa: PLR2004
        return None
    seconds = (points[-1][0] - points[0][0]).total_seconds()
    return (points[-1][1] - points[0][1]) / seconds if seconds > 0 else None


def delay_pct(row: Row, now: datetime) -> float | None:
    """Return the share of its time that a run slept for the cost limit, as the server measured it.

    18 and newer, with track_cost_delay_timing; None otherwise.
    """
    seconds = elapsed(row, now)
    return min(100.0, row["delay_time"] / 10 / seconds) if row["delay_time"] and seconds else None


def elapsed(row: Row, now: datetime) -> float:
    """Return the seconds that a run has taken."""
    return max((now - row["started_at"]).total_seconds(), 0.0) if row["started_at"] else 0.0


def seen_pct(samples: Sequence[Row], kind: str, event: str = "") -> float | None:
    """Return in how many percent of the recent samples a run waited so; None with too few."""
    recent = samples[-2 * RECENT :]
    if len(recent) < TESTED_AT_LEAST:
        return None
    hits = [
        r
        for r in recent
        if r["wait_event_type"] == kind and r["wait_event"] == (event or r["wait_event"])
    ]
    return 100 * len(hits) / len(recent)


def memory_pct(row: Row) -> float | None:
    """Return how full the memory for dead rows is in percent, None where the server doesn't say."""
    used, most = row["dead_tuple_bytes"], row["max_dead_tuple_bytes"]
    if most is None:
        used, most = row["num_dead_tuples"], row["max_dead_tuples"]
    return 100 * used / most if most and used is not None else None


def memory_bytes(row: Row) -> int | None:
    """Return the memory that dead rows take, None where the server doesn't say."""
    if row["dead_tuple_bytes"] is not None:
        return int(row["dead_tuple_bytes"])
    dead = row["num_dead_tuples"]
    return None if dead is None else dead * DEAD_ROW_BYTES


def why_slow(
    row: Row, samples: Sequence[Row], now: datetime, *, cost: Cost | None, holder: str = ""
) -> str:
    """Return in one sentence what a run is slow for, '' where nothing shows.

    `holder` names who keeps it from removing what died since before it began.
    """
    if row["wait_event_type"] == "Lock":
        return "It waits for a lock that another session holds."
    if row["wait_event_type"] in {"BufferPin", "Buffer"}:
        return "It waits for a page that another session has pinned, to clean it up."
    if holder:
        return f"{holder} was open before it began: rows that died since then stay."
    if elapsed(row, now) < JUDGED_AFTER:
        return ""
    return (
        throttled(row, samples, now, cost)
        or many_passes(row)
        or long_indexes(row, samples, now)
        or stored_slowly(samples)
    )


def throttled(row: Row, samples: Sequence[Row], now: datetime, cost: Cost | None) -> str:
    """Return that a run sleeps for the cost limit, '' where it hardly does."""
    slept = slept_words(row, samples, now)
    if not slept or row["command"] not in {"VACUUM", "ANALYZE"}:
        return ""
    return f"It sleeps {slept} for the cost limit{limit_words(cost, pages_a_second(samples))}"


def many_passes(row: Row) -> str:
    """Return that a run reads the indexes more than once, '' where it does not."""
    passes = row["index_vacuum_count"] or 0
    if not passes or row["phase"] != "scanning heap":
        return ""
    return (
        f"Its memory for dead rows was full {words.times(passes)}, so it goes over all indexes"
        " again: raise autovacuum_work_mem or maintenance_work_mem."
    )


def long_indexes(row: Row, samples: Sequence[Row], now: datetime) -> str:
    """Return that a run has spent most of its time in this phase of indexes, '' where not."""
    phase = in_phase(samples)
    if row["phase"] not in INDEX_PHASES or not phase:
        return ""
    inside = (now - phase[0]["target_at"]).total_seconds()
    if inside <= elapsed(row, now) / 2:
        return ""
    return f"It has been {row['phase']} for {words.duration(inside)}: each index is read whole."


def stored_slowly(samples: Sequence[Row]) -> str:
    """Return that a run waits for the storage, '' where it hardly does."""
    waited = seen_pct(samples, "IO")
    if waited is None or waited < WAITS_PCT:
        return ""
    return (
        f"It waits for the storage in {waited:.0f} % of {len(samples[-2 * RECENT :])} samples:"
        " a greater cost limit would not help."
    )


def slept_words(row: Row, samples: Sequence[Row], now: datetime) -> str:
    """Return how much of its time a run sleeps for the cost limit, '' where it is not much."""
    measured = delay_pct(row, now)
    if measured is not None:
        return f"{measured:.0f} % of its time" if measured >= SLEEPS_PCT else ""
    seen = seen_pct(samples, "Timeout", "VacuumDelay")
    if seen is None or seen < SLEEPS_PCT:
        return ""
    return f"in {seen:.0f} % of {len(samples[-2 * RECENT :])} samples"


def limit_words(cost: Cost | None, pages: float | None) -> str:
    """Return the end of the sentence: the speed against what the limit allows."""
    if cost is None:
        return ", which its own session sets."
    share = f" (its share of {cost.workers} workers)" if cost.workers > 1 else ""
    allowed = (
        f"{cost.limit:,.0f} per {cost.delay_ms:g} ms{share} allows {cost.pages(MISS + DIRTY):,.0f}"
        f" pages/s that are read and dirtied, {cost.pages(MISS):,.0f} that are only read"
    )
    now = f"; it does {pages:,.0f}" if pages is not None else ""
    return f": {allowed}{now}. Raise autovacuum_vacuum_cost_limit."
