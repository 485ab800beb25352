"""What happened: restarts, crashes, promotions, resets and own actions, for charts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from django.db.models import Q

from monitors.history.source import (
    Key,
)
from monitors.history.window import Window
from monitors.models import Action, Mark


def read_marks(
    target_id: int, window: Window, rewritten: Collection[Key] | None = ()
) -> list[dict[str, Any]]:
    """Return what happened in a window: restarts, resets and finished actions, oldest first.

    Keys: at, kind (restart, crash, reset, promotion, upgrade, rewrite, action), text,
    url_id (the action's id, else None). Rewrites only of the objects named by
    database_id and relid in `rewritten`; None: of all.
    """
    happened = Mark.objects.filter(target_id=target_id, at__gte=window.start, at__lt=window.end)
    if rewritten is not None:
        wanted = Q()
        for one in rewritten:
            wanted |= Q(database_id=one["database_id"], relid=one["relid"])
        others = ~Q(kind=Mark.Kind.REWRITE)
        happened = happened.filter(others | wanted if wanted else others)
    events = [
        {"at": mark.at, "kind": mark.kind, "text": mark.text, "url_id": None} for mark in happened
    ]
    done = Action.objects.filter(
        target_id=target_id,
        finished_at__gte=window.start,
        finished_at__lt=window.end,
        started_at__isnull=False,
    )
    events += [
        {
            "at": action.finished_at,
            "kind": "action",
            "text": f"{action.name} {action.object_name}: {action.state}",
            "url_id": str(action.pk),
        }
        for action in done
    ]
    return sorted(events, key=lambda event: event["at"])


def keep_stuck(target_id: int, at: datetime, texts: Mapping[str, str]) -> None:
    """Mark backends that became stuck, each once by its key: a backend in a state.

    One query that finds those that are marked, another where there are new ones.
    """
    marks = Mark.objects.filter(target_id=target_id, key__in=texts)
    known = set(marks.values_list("key", flat=True)) if texts else set()
    new = [
        Mark(target_id=target_id, at=at, kind=Mark.Kind.STUCK, text=text[:300], key=key)
        for key, text in texts.items()
        if key not in known
    ]
    if new:
        Mark.objects.bulk_create(new, ignore_conflicts=True)
