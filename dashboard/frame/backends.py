"""What the pages that show backends know of them beyond what was read."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from monitors.actions import ACTIONS
from monitors.models import Action, Target
from monitors.rows.backends import Backend

SIGNALS = [name for name, spec in ACTIONS.items() if spec.is_signal]
RECENT = timedelta(minutes=2)
NOT_SENT = (Action.State.DRAFT, Action.State.REFUSED, Action.State.EXPIRED, Action.State.FAILED)
SUPERUSERS = (
    "A superuser's backend can be signalled by a superuser alone, and the operator login of this target"
    " may be none."
)


def answer(target: Target, backends: list[Backend]) -> None:
    """Note on each backend what was just done to it: the snapshot may be older."""
    since = timezone.now() - RECENT
    actions = Action.objects.filter(target=target, name__in=SIGNALS, created_at__gte=since)
    for action in actions.exclude(state__in=NOT_SENT).order_by("created_at"):
        for backend in backends:
            if action.arguments == backend.guard:
                backend.answered = action


def note_superusers(target: Target, backends: list[Backend]) -> None:
    """Note which backends are beyond the operator login, where it may be no superuser."""
    if not target.allow_superuser:
        for backend in backends:
            if backend.row.get("rolsuper"):
                backend.no_signal = SUPERUSERS
