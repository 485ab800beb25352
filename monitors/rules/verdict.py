"""Whether an action helped, told by the numbers measured before and after it.

What shows its effect at once (a vacuum, a rewrite) is judged when it ends. What
works by and by (autovacuum's parameters) is judged from the history when
autovacuum has come often enough since, over equal stretches of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from monitors.words import MINUS

Numbers = Mapping[str, Any]
"""What an action measured, by name; a missing or None number is not known."""

CLEAR = 0.05
"""A change of size by less than this share is none."""
CLEARLY = 0.2
"""Of what varies by itself: dead rows and vacuums from one day to the next."""
REMOVED = 0.5
"""A vacuum that leaves more than this share of the dead rows did not help."""


class Word(StrEnum):
    """The verdict on an action."""

    HELPED = "helped"
    NO_CHANGE = "no change"
    WORSE = "worse"


@dataclass(frozen=True)
class Verdict:
    """A word, and the figures that it rests on as a sentence."""

    word: Word
    text: str


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a table did over a stretch of time."""

    seconds: float
    usual_dead: float | None  # n_dead_tup that was exceeded in a twentieth of the snapshots
    autovacuums: int
    writes: int  # rows inserted, updated and deleted
    size_bytes: int | None  # at its end
    grown_bytes: int | None


def of_vacuum(before: Numbers, after: Numbers) -> Verdict | None:
    """Judge by dead rows; where there were none, by pages that became all-visible."""
    old, new = before.get("n_dead_tup"), after.get("n_dead_tup")
    if old is None or new is None:
        return None
    text = f"dead rows {old:,} → {new:,}"
    if old and new > REMOVED * old:
        holder = after.get("held_by")
        why = f"{holder} holds the horizon" if holder else "an old transaction may still see them"
        return Verdict(Word.NO_CHANGE, f"{text}: {why}")
    if old:
        return Verdict(Word.HELPED, text)
    visible, now = before.get("relallvisible"), after.get("relallvisible")
    if visible is not None and now is not None and now > visible:
        return Verdict(Word.HELPED, f"all-visible pages {visible:,} → {now:,}")
    return Verdict(Word.NO_CHANGE, "there were no dead rows")


def of_analyze(before: Numbers, after: Numbers) -> Verdict | None:
    """Judge by the rows that changed since the planner's statistics were made."""
    old, new = before.get("n_mod_since_analyze"), after.get("n_mod_since_analyze")
    if old is not None and new is not None and old > new:
        return Verdict(Word.HELPED, f"rows changed since the statistics {old:,} → {new:,}")
    if "reltuples" in after:  # no rows of its own: nobody counts what has changed since
        rows = before.get("reltuples"), after["reltuples"]
        return Verdict(Word.HELPED, rows_assumed(*rows)) if rows[0] != rows[1] else None
    if old is None or new is None:
        return None
    return Verdict(Word.NO_CHANGE, "the statistics were up to date")


def rows_assumed(before: int | None, after: int | None) -> str:
    """Return `rows that the planner assumes unknown → 1,000`."""
    words = ["unknown" if rows is None else f"{rows:,}" for rows in (before, after)]
    return f"rows that the planner assumes {' → '.join(words)}"


def of_rebuild(before: Numbers, after: Numbers) -> Verdict | None:
    """Judge by the size of the indexes that were built anew."""
    return of_rewrite(
        {"size_bytes": before.get("index_bytes")}, {"size_bytes": after.get("index_bytes")}
    )


def of_rewrite(before: Numbers, after: Numbers) -> Verdict | None:
    """Judge by the size of what was written anew."""
    old, new = before.get("size_bytes"), after.get("size_bytes")
    if not old or new is None:
        return None
    change = (new - old) / old
    text = f"size {'+' if change > 0 else MINUS if change < 0 else ''}{100 * abs(change):.0f} %"
    if change <= -CLEAR:
        return Verdict(Word.HELPED, text)
    if change >= CLEAR:
        return Verdict(Word.WORSE, f"{text}: it was dense before")
    return Verdict(Word.NO_CHANGE, text)


def of_parameters(
    before: Course, after: Course, old_threshold: float | None, new_threshold: float | None
) -> Verdict | None:
    """Judge new autovacuum parameters by how a table did before and since.

    A lower threshold is meant to leave fewer dead rows; a higher one, to vacuum less
    often for as many writes, without the table growing faster. None where the history
    doesn't tell.
    """
    if before.usual_dead is None or after.usual_dead is None:
        return None
    dead = change_of(before.usual_dead, after.usual_dead)
    rate = change_of(each_million(before), each_million(after))
    text = (
        f"dead rows usually {before.usual_dead:,.0f} → {after.usual_dead:,.0f},"
        f" autovacuums {before.autovacuums:,} → {after.autovacuums:,}"
    )
    is_lazier = (
        old_threshold is not None and new_threshold is not None and new_threshold > old_threshold
    )
    if not is_lazier:
        return Verdict(worse_if_more(dead), text)
    if grows_faster(before, after):
        return Verdict(Word.WORSE, f"{text}, and the table grows faster")
    return Verdict(worse_if_more(rate), text)


def worse_if_more(change: float) -> Word:
    """Return the word for a number of which less is better."""
    if change <= -CLEARLY:
        return Word.HELPED
    return Word.WORSE if change >= CLEARLY else Word.NO_CHANGE


def change_of(old: float, new: float) -> float:
    """Return a relative change; from nothing to something it is 1."""
    if not old:
        return 1.0 if new else 0.0
    return (new - old) / old


def each_million(course: Course) -> float:
    """Return autovacuums for each million rows written, so that a busier day is no worse."""
    return 1e6 * course.autovacuums / course.writes if course.writes else 0.0


def grows_faster(before: Course, after: Course) -> bool:
    """Whether a table grew clearly more than in the stretch before, measured by its size."""
    if before.grown_bytes is None or after.grown_bytes is None or not after.size_bytes:
        return False
    return after.grown_bytes - before.grown_bytes > CLEAR * after.size_bytes
