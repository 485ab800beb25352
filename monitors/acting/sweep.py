"""What nobody carries on is ended: actions whose worker is gone, what waited too long, old drafts."""

from __future__ import annotations

from datetime import timedelta

import psycopg
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from monitors import queue
from monitors.acting import batch, connections, gates, pooler
from monitors.acting.guard import database_of, spec_for
from monitors.action import Refused, text_of
from monitors.actions import ACTIONS
from monitors.audit import entries
from monitors.models import Action, Batch, Target, TargetCheck
from monitors.pg import backends, connect
from monitors.pg.errors import Unreachable, reason_of
from monitors.targets import logins
from monitors.targets.secrets import SecretUnreadable

State = Action.State

REPUBLISH_AFTER = timedelta(seconds=5)
MESSAGE_SECONDS = 15
SILENT_AFTER = timedelta(seconds=15)
DRAFTS_KEPT = timedelta(days=1)
CHECK_ANSWERED_WITHIN = timedelta(seconds=60)
LOST_AT_ONCE = 20


def sweep() -> None:
    """Find what got stuck: messages the broker lost, what expired, workers that are gone."""
    now = timezone.now()
    for row in (
        Action.objects.filter(state__in=[State.QUEUED, State.WAITING], expires_at__lte=now)
        .exclude(batch__in=gates.governed_batches())
        .select_related("approved_by")
    ):
        outcome = "No worker took it in time: nothing was sent."
        if row.state == State.WAITING:
            outcome = "Nobody approved it in time."
        elif row.batch_id:
            outcome = "Its time was over before its turn came: nothing was sent."
        end(row, [State.QUEUED, State.WAITING], State.EXPIRED, outcome)
    late = Action.objects.filter(
        Q(batch=None) | Q(target=None),
        state=State.QUEUED,
        expires_at__gt=now,
        queued_at__lt=now - REPUBLISH_AFTER,
    )
    for row in late:
        spec = ACTIONS.get(row.name)
        if spec is not None:
            queue.send("perform", str(row.pk), queue=spec.queue, expires=MESSAGE_SECONDS)
    silent = Action.objects.filter(state=State.RUNNING, beat_at__lt=now - SILENT_AFTER)
    for row in silent.select_related("target", "approved_by")[:LOST_AT_ONCE]:
        outcome = what_is_left(row)
        if outcome:
            end(row, [State.RUNNING], State.LOST, outcome)
    batch.sweep()
    tidy()


def end(row: Action, states: list[State], state: State, outcome: str) -> None:
    """Give a row its final state, once, with its audit row."""
    with transaction.atomic():
        row.state = state
        row.outcome = outcome[:1000]
        row.finished_at = timezone.now()
        changed = Action.objects.filter(pk=row.pk, state__in=states).update(
            state=state, outcome=row.outcome, finished_at=row.finished_at
        )
        if changed:
            entries.add_outcome(row)


def what_is_left(row: Action) -> str:
    """Return what the target still has of an action whose worker went silent.

    '' where it holds others back and could not be ended yet: that is tried again.
    """
    if row.target is None:
        return "Its worker went silent, and the target was removed."
    spec = spec_for(row)
    if spec is not None and spec.release is not None:
        return pooler.end_lost(row, spec)
    if row.target.kind == Target.Kind.PGBOUNCER:
        return "Its worker went silent: whether the command was carried out is not known."
    try:
        address = logins.operator_address(row.target, row.target.dbname)
        with connections.looking(address, row) as eye, connect.deadline(eye, 5):
            pids = backends.named(eye, connections.application_name(row))
    except (psycopg.Error, Unreachable, SecretUnreadable, Refused) as error:
        return f"Its worker went silent, and the target could not be asked: {reason_of(error)}"
    if pids:
        return f"Its worker went silent, but its backend still runs on the target: pid {pids[0]}."
    return (
        "Its worker went silent, and its backend is gone: the statement was ended or had ended."
        f" Nothing of it waits or runs on the target.{leftovers_of(row)}"
    )


def leftovers_of(row: Action) -> str:
    """Return what a lost statement left in its database and how to remove it, '' for nothing."""
    spec = spec_for(row)
    if spec is None or spec.leftovers is None or row.target is None:
        return ""
    try:
        address = logins.operator_address(row.target, database_of(row, row.target))
        with connections.looking(address, row) as eye, connect.deadline(eye, 5):
            left = spec.leftovers(eye, row.identity, row.before)
    except (psycopg.Error, Unreachable, SecretUnreadable, Refused) as error:
        return f" Whether it left something is not known: {reason_of(error)}"
    return "".join(
        f" It left {one.name}, which is not used: {text_of(one.statement)}." for one in left
    )


def tidy() -> None:
    """Drop old drafts, end checks that nobody answered, go on with removals."""
    now = timezone.now()
    Action.objects.filter(state=State.DRAFT, created_at__lt=now - DRAFTS_KEPT).delete()
    Batch.objects.filter(asked_at=None, created_at__lt=now - DRAFTS_KEPT).delete()
    TargetCheck.objects.filter(Q(done_at=None), asked_at__lt=now - CHECK_ANSWERED_WITHIN).update(
        done_at=now, sealed={}, error="No worker answered within 60 s: are the workers running?"
    )
    TargetCheck.objects.filter(asked_at__lt=now - DRAFTS_KEPT).delete()
    for target in Target.objects.exclude(deleting_at=None):
        queue.send("delete_target", target.pk, queue="requests", expires=MESSAGE_SECONDS)
