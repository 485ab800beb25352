"""After each reading of activity: how many backends are stuck, a mark for each new one, the standing rules."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Q
from django.utils import timezone

from monitors import words
from monitors.acting import standing_rules
from monitors.advisor import backend_name
from monitors.history import marks
from monitors.models import ProbeState, Target
from monitors.rows.stuck import PROBE, Line, stuck_of
from monitors.rules.stuck import WORDS

MARKED_AT_MOST = 20
"""So many backends of one reading are marked: a pile-up is told by its first ones."""


def look(target_id: int, read: Iterable[str]) -> None:
    """Judge a target whose activity was just read; nothing where it was not.

    Call it after the snapshots are stored: they stay so if it raises.
    """
    if PROBE not in read:
        return
    targets = Target.objects.select_related("environment")
    target = targets.filter(pk=target_id, deleting_at=None).first()
    if target is None:
        return
    found = stuck_of([target])
    count = len(found.lines)
    states = ProbeState.objects.filter(target=target, probe=PROBE)
    states.filter(~Q(stuck=count) | Q(stuck=None)).update(stuck=count)
    if found.lines:
        at = found.lines[0].read_at
        marks.keep_stuck(
            target.pk, at, {line.key: told(line) for line in found.lines[:MARKED_AT_MOST]}
        )
    for seen in found.seen:
        standing_rules.look(seen, timezone.now())


def told(line: Line) -> str:
    """Return what a mark says: who, in what, and over which limit."""
    limit = words.duration(line.found.limit)
    return f"{backend_name(line.backend.row)} {WORDS[line.found.state]} for over {limit}"
