"""Since when counters count, now or at a past moment, and how a mark words that they were reset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from monitors.history import partitions
from monitors.history.freshness import clocks
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Mark, ProbeState, Target
from monitors.probe import Probe

FORMAT = "%Y-%m-%d %H:%M:%S"
RESET_AT = re.compile(r" were reset at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")
COUNTED_SINCE = re.compile(r", counted since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC\.$")


@dataclass(frozen=True)
class Counting:
    """Since when a server counts; without a moment since it began to, or it does not say."""

    at: datetime | None
    known: bool = True  # False: nobody knows any more what held at that moment


NOT_KNOWN = Counting(None, known=False)


def words_of(probe: Probe, reset_at: datetime | None, before_at: datetime | None) -> str:
    """Return what a mark says of a reset, with the one before where that is written nowhere else.

    A database's resets are facts of `databases`, and several probes see each: they must agree.
    """
    what = f"Statistics of {probe.extension or 'this database'} were reset"
    if reset_at is None:
        return f"{what}."
    what = f"{what} at {reset_at.astimezone(UTC):{FORMAT}} UTC"
    if before_at is None or not probe.extension:
        return f"{what}."
    return f"{what}, counted since {before_at.astimezone(UTC):{FORMAT}} UTC."


def moment_in(text: str, pattern: re.Pattern[str]) -> datetime | None:
    """Return the moment that a mark's text names, None where it names none."""
    found = pattern.search(text)
    return datetime.strptime(found[1], FORMAT).replace(tzinfo=UTC) if found else None


def counting_of(
    target: Target, probe_name: str, window: Window, database_id: int | None = None
) -> Counting:
    """Return since when what a probe reads had been counted, as read by the window's end."""
    states = ProbeState.objects.filter(target=target, database=database_id, probe=probe_name)
    reset_at = states.values_list("reset_at", flat=True).first()
    if window.is_live:
        return Counting(reset_at)
    read = clocks(target, probe_name, window.end).get(database_id or 0)
    if read is None:
        return NOT_KNOWN
    if reset_at is not None and reset_at <= read[1]:
        return Counting(reset_at)  # nothing was reset since
    if database_id is None:
        return by_marks(target, window.end, read[1], reset_at)
    return by_samples(target, database_id, window.end, read[1])


def by_samples(target: Target, database_id: int, end: datetime, read_at: datetime) -> Counting:
    """Return a database's `stats_reset` as a reading of it found it at `read_at`, the target's clock.

    The first sample since tells of a reset before it that the last sample until then is too old for.
    """
    datid = Database.objects.values_list("datid", flat=True).get(pk=database_id)
    samples = HISTORY["databases"].samples._default_manager.filter(
        target_id=target.pk, datid=datid, taken_at__gt=end - partitions.KEEP_SAMPLES
    )
    moments = samples.values_list("stats_reset", flat=True)
    after = moments.filter(target_at__gte=read_at).order_by("taken_at")[:1]
    for reset_at in after:
        if reset_at is not None and reset_at <= read_at:
            return Counting(reset_at)
    for reset_at in moments.filter(target_at__lte=read_at).order_by("-taken_at")[:1]:
        return Counting(reset_at)
    return NOT_KNOWN


def by_marks(
    target: Target, end: datetime, read_at: datetime, reset_at: datetime | None
) -> Counting:
    """Return the same of statements, of which marks alone keep the resets that are over."""
    marks = Mark.objects.filter(target=target)
    resets = marks.filter(
        kind=Mark.Kind.RESET, text__contains=HISTORY["statements"].probe.extension
    )
    following = resets.filter(at__gt=end).order_by("at").first()
    before = moment_in(following.text, COUNTED_SINCE) if following else None
    if before is not None and before <= read_at:
        return Counting(before)
    last = resets.filter(at__lte=end).order_by("-at").first()
    if last is None:
        silent = following is None and reset_at is None
        return Counting(None) if silent else NOT_KNOWN
    # A crash makes them begin anew, and its mark does not say that they did.
    crashed = marks.filter(kind=Mark.Kind.CRASH, at__gt=last.at, at__lte=end).exists()
    found = None if crashed else moment_in(last.text, RESET_AT)
    return Counting(found) if found else NOT_KNOWN
