"""A target as it was at a past moment: what its server said of itself, and the thresholds."""

from __future__ import annotations

from datetime import datetime

from monitors.findings import thresholds
from monitors.models import Target, TargetFacts


def note_facts(target: Target, at: datetime) -> None:
    """Keep what a server says of itself, if that is something new; call it under the target's lock."""
    facts = {name: getattr(target, name) for name in TargetFacts.NAMES}
    last = TargetFacts.objects.filter(target=target).order_by("-at").first()
    if last is None or last.facts != facts:
        TargetFacts.objects.create(target=target, at=at, facts=facts)


def as_of(target: Target, at: datetime) -> Target:
    """Return the target itself, in memory as it was then: it must not be saved any more.

    Before the first that is known, as it was then.
    """
    rows = TargetFacts.objects.filter(target=target)
    row = rows.filter(at__lte=at).order_by("-at").first() or rows.order_by("at").first()
    for name, value in (row.facts if row else {}).items():
        setattr(target, name, value)
    thresholds.take_back([target, target.environment], at)
    return target
