"""Since when counters count, now or at a past moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from monitors.history import partitions
from monitors.history.freshness import clocks
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Mark, ProbeState, Target


@dataclass(frozen=True)
class Counting:
    """Since when a server counts; without a moment since it began to, or it does not say."""

    at: datetime | None
    known: bool = True  # False: nobody knows any more what held at that moment


NOT_KNOWN = Counting(None, known=False)


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
    resets = marks.filter(kind=Mark.Kind.RESET, probe="statements")
    following = resets.filter(at__gt=end).order_by("at").first()
    if following and following.before_at and following.before_at <= read_at:
        return Counting(following.before_at)
    last = resets.filter(at__lte=end).order_by("-at").first()
    if last is None:
        silent = following is None and reset_at is None
        return Counting(None) if silent else NOT_KNOWN
    # A crash makes them begin anew, and its mark does not say that they did.
    crashed = marks.filter(kind=Mark.Kind.CRASH, at__gt=last.at, at__lte=end).exists()
    return NOT_KNOWN if crashed or last.reset_at is None else Counting(last.reset_at)
