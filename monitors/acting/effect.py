"""Judges finished actions whose effect shows by and by, from the history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from monitors.actions import ACTIONS
from monitors.models import HISTORY, Action, Database
from monitors.models.history import Change
from monitors.rules import verdict
from monitors.rules.verdict import Course, Verdict

ENOUGH_AUTOVACUUMS = 3
SHORTEST = timedelta(hours=1)
LONGEST = timedelta(days=3)
"""Samples are kept for seven days: two stretches of three fit."""
FEWEST_SNAPSHOTS = 5
AT_ONCE = 50


def judge_due(now: datetime) -> None:
    """Judge what has worked long enough; an action that can't be judged is left without a verdict."""
    waiting = Action.objects.filter(
        name__in=[name for name, spec in ACTIONS.items() if spec.judged_later],
        state=Action.State.SUCCEEDED,
        judged_at=None,
        finished_at__lte=now - SHORTEST,
        finished_at__gt=now - 2 * LONGEST,
    )
    for row in waiting.select_related("target").order_by("finished_at")[:AT_ONCE]:
        found = judge(row, now)
        if found is not None:
            Action.objects.filter(pk=row.pk, judged_at=None).update(
                verdict=found.word, verdict_text=found.text[:300], judged_at=now
            )


def judge(row: Action, now: datetime) -> Verdict | None:
    """Return the verdict on an action, None while it is too early or nothing is known."""
    done = row.finished_at
    relid, datid = row.identity.get("relid"), row.identity.get("datid")
    database = Database.objects.filter(target=row.target, datid=datid).first()
    if done is None or database is None or row.target_id is None:
        return None
    until = min(now, undone_at(row) or now, done + LONGEST)
    after = course_of(row.target_id, database.pk, relid, done, until)
    if after is None:
        return None
    is_early = after.autovacuums < ENOUGH_AUTOVACUUMS and now < done + LONGEST
    if is_early:
        return None
    before = course_of(row.target_id, database.pk, relid, done - (until - done), done)
    if before is None:
        return None
    limits = row.before.get("vacuum_threshold"), row.after.get("vacuum_threshold")
    return verdict.of_parameters(before, after, *limits)


def undone_at(row: Action) -> datetime | None:
    """Return when the same table's parameters were set again, None where they still hold."""
    later = Action.objects.filter(
        name=row.name,
        target=row.target,
        identity__relid=row.identity.get("relid"),
        identity__datid=row.identity.get("datid"),
        state=Action.State.SUCCEEDED,
        finished_at__gt=row.finished_at,
    )
    return later.order_by("finished_at").values_list("finished_at", flat=True).first()


def course_of(
    target_id: int, database_id: int, relid: Any, start: datetime, end: datetime
) -> Course | None:
    """Return how a table did between two moments, None where too few snapshots saw it change."""
    names = ("taken_at", "n_dead_tup", "autovacuum_count", "size_bytes")
    writes = ("n_tup_ins", "n_tup_upd", "n_tup_del")
    rows = list(
        HISTORY["tables"]
        .samples._default_manager.filter(
            target_id=target_id,
            database_id=database_id,
            relid=relid,
            taken_at__gt=start,
            taken_at__lte=end,
        )
        .exclude(change=Change.GONE)
        .order_by("taken_at")
        .values(*names, *writes)
    )
    if len(rows) < FEWEST_SNAPSHOTS:
        return None
    dead = sorted(row["n_dead_tup"] for row in rows if row["n_dead_tup"] is not None)
    sizes = [row["size_bytes"] for row in rows if row["size_bytes"] is not None]
    return Course(
        seconds=(end - start).total_seconds(),
        usual_dead=dead[int(0.95 * (len(dead) - 1))] if dead else None,
        autovacuums=sum(row["autovacuum_count"] or 0 for row in rows),
        writes=sum(row[name] or 0 for row in rows for name in writes),
        size_bytes=sizes[-1] if sizes else None,
        grown_bytes=sizes[-1] - sizes[0] if sizes else None,
    )
