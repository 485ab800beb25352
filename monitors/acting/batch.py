"""One action on several tables or backends: a frozen list, one row each, one after another.

Each row goes the same way as an action that is asked for alone
(`monitors/acting/ask.py`); a batch only says which is next. Nothing here connects to
a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from monitors import queue, words
from monitors.acting import ask, limits
from monitors.action import Action as Spec, InvalidArguments, Refused
from monitors.actions import ACTIONS
from monitors.audit import entries
from monitors.models import Action, Batch, JobRun, Target
from monitors.people import access

AT_MOST = 500
"""Tables or backends of one batch."""
LIFE = timedelta(hours=12)
"""What has not begun by then is not begun any more; of a job, until its hours end."""
SIGNAL_LIFE = timedelta(minutes=5)
"""The same of signals: who marked a backend looks at it."""
SIGNALS_AT_ONCE = 2
"""So many of a target's run at a time: a backend that does not react is waited for."""
PREVIEW_EXPIRES_SECONDS = 30

State = Action.State
OPEN = (State.QUEUED, State.WAITING, State.RUNNING)
IS_SIGNAL = Q(name__in=[name for name, spec in ACTIONS.items() if spec.is_signal])
"""Of batches and of their rows: signals never wait for what takes long, nor it for them."""


def preview(  # noqa: PLR0913 - one keyword a column
    user: User,
    target: Target,
    name: str,
    objects: Sequence[Mapping[str, str]],
    options: Mapping[str, str],
    *,
    due: bool = False,
    source: str,
) -> Batch:
    """Save drafts for a list of tables or backends and have a worker look at each.

    A table is {database, relid} or {database, table}, a backend what its guard needs. Raises PermissionDenied,
    Refused or InvalidArguments.
    """
    spec = ask.spec_of(name)
    if not spec.several:
        message = f"{name} is asked for one by one."
        raise InvalidArguments(message)
    ask.check(user, target, spec, source)
    cleaned = [spec.clean({**options, **one}) for one in unlike(objects)]
    if not cleaned:
        raise Refused("No table is due." if due else f"Choose at least one {spec.noun}.")
    if len(cleaned) > AT_MOST:
        counted = words.count(len(cleaned), spec.noun)
        message = f"{counted} are too many at once: choose at most {AT_MOST}."
        raise InvalidArguments(message)
    batch = Batch(
        name=name,
        target=target,
        target_name=target.name,
        options=dict(options),
        due=due,
        at_once=SIGNALS_AT_ONCE if spec.is_signal else 1,
        asked_by=user,
        asked_by_name=user.get_username(),
        asked_from=source[:60],
    )
    rows = [draft_of(user, target, spec, batch, one, source) for one in cleaned]
    for position, row in enumerate(rows):
        row.batch_position = position
    # Many jobs of one owner may begin in one minute.
    of_a_job = source.startswith(limits.OF_A_JOB)
    with transaction.atomic() if of_a_job else limits.within_limit(user, source):
        batch.save(force_insert=True)
        Action.objects.bulk_create(rows)
    expires = PREVIEW_EXPIRES_SECONDS
    queue.send("preview_batch", str(batch.pk), queue="requests", expires=expires)
    return batch


def unlike(objects: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return tables or backends without those that are named twice."""
    return list({tuple(sorted(one.items())): one for one in objects}.values())


def draft_of(
    user: User, target: Target, spec: Spec, batch: Batch, cleaned: dict[str, str], source: str
) -> Action:
    """Return an unsaved draft of one table or backend."""
    row = ask.build(user, target, spec, cleaned, source=source)
    row.batch = batch
    row.preview = {"ready": False, "refused": ""}
    return row


def is_ready(batch: Batch) -> bool:
    """Return whether a worker has looked at each of them."""
    return not batch.actions.filter(state=State.DRAFT, preview__ready=False).exists()


def request(
    user: User, batch: Batch, *, reason: str = "", until: datetime | None = None, source: str
) -> Batch:
    """Ask for what a batch's preview showed; asking twice is asking once.

    What the preview refused stays refused, the rest goes on; none of it begins at or
    after `until`. Raises PermissionDenied, Refused or InvalidArguments.
    """
    spec, target = ask.spec_of(batch.name), target_of(batch)
    if batch.asked_by_id != user.pk:
        raise ask.denied(user, target, spec, source, "Only who opened a preview may ask for it.")
    if batch.asked_at is not None:
        return batch
    ask.check(user, target, spec, source)
    drafts = list(batch.actions.filter(state=State.DRAFT).order_by("batch_position"))
    asked = [row for row in drafts if not row.preview.get("refused")]
    for row in asked:
        ask.check_draft(row, spec, target, reason, confirmed=True)
    if not asked:
        message = f"Nothing can be done to these {spec.noun}s: each row says why."
        raise Refused(message)
    with transaction.atomic():
        submit(batch, spec, drafts, asked, user.get_username(), reason, source, until)
    advance(target.pk)
    batch.refresh_from_db()
    return batch


def submit(  # noqa: PLR0913, PLR0917 - one caller
    batch: Batch,
    spec: Spec,
    drafts: Sequence[Action],
    asked: Sequence[Action],
    who: str,
    reason: str,
    source: str,
    until: datetime | None,
) -> None:
    """Turn a batch's drafts into requests, once, with the intent of each in the audit."""
    now = timezone.now()
    unasked = Batch.objects.filter(pk=batch.pk, asked_at=None)
    if not unasked.update(asked_at=now, asked_from=source[:60], reason=reason):
        return
    entries.add(
        f"{batch.name}.batch",
        who,
        source,
        target_name=batch.target_name,
        object_name=words.count(len(asked), spec.noun),
        reason=reason,
        batch=str(batch.pk),
        actions=[str(row.pk) for row in asked],
    )
    for row in asked:
        ask.submit(row, spec, reason, waits=False, key=None, source=source)
    life = SIGNAL_LIFE if spec.is_signal else LIFE
    batch.actions.filter(state=State.QUEUED).update(expires_at=until or now + life)
    for row in drafts:
        if row.preview.get("refused"):
            end_refused(row)


def end_refused(row: Action) -> None:
    """Give a draft that its preview refused its final state; the preview wrote the audit."""
    Action.objects.filter(pk=row.pk, state=State.DRAFT).update(
        state=State.REFUSED,
        outcome=str(row.preview["refused"])[:1000],
        finished_at=timezone.now(),
    )


def stop(user: User, batch: Batch, source: str) -> Batch:
    """Begin no further one and stop those that run; raises PermissionDenied, Refused."""
    target = target_of(batch)
    access.require(user, batch.name, target, source=source)
    if batch.asked_at is None or batch.finished_at is not None:
        message = "It is over already." if batch.finished_at else "It was not asked for yet."
        raise Refused(message)
    name = user.get_username()
    # The batch's row is locked by whoever claims one of its tables.
    if Batch.objects.filter(pk=batch.pk, stop_asked_by="").update(stop_asked_by=name):
        entries.add(
            f"{batch.name}.batch.stop",
            name,
            source,
            target_name=batch.target_name,
            batch=str(batch.pk),
        )
    for row in batch.actions.filter(state__in=OPEN).order_by("-batch_position"):
        stop_row(user, row, source)
    settle(target.pk)
    batch.refresh_from_db()
    return batch


def close(batch: Batch, who: str, outcome: str, *, source: str) -> None:
    """Skip the tables of a batch that wait, with one outcome, and stop the one that runs.

    Howdah does so by itself, so nobody's right is asked; `who` stands where a person would.
    """
    # The batch's row is locked by whoever claims one of its tables.
    if not Batch.objects.filter(pk=batch.pk, stop_asked_by="").update(stop_asked_by=who[:150]):
        return
    entries.add(
        f"{batch.name}.batch.stop",
        batch.asked_by_name,
        source,
        target_name=batch.target_name,
        reason=outcome,
        batch=str(batch.pk),
    )
    for row in batch.actions.filter(state=State.QUEUED).order_by("batch_position"):
        skip(row, outcome, source)
    batch.actions.filter(state=State.RUNNING).update(stop_asked_by=who[:150])
    if batch.target_id:
        settle(batch.target_id)


def skip(row: Action, outcome: str, source: str) -> None:
    """End a row that has not begun, once, with its audit row."""
    row.state, row.outcome, row.finished_at = State.SKIPPED, outcome[:1000], timezone.now()
    with transaction.atomic():
        changed = Action.objects.filter(pk=row.pk, state=State.QUEUED).update(
            state=row.state, outcome=row.outcome, finished_at=row.finished_at
        )
        if changed:
            entries.add_outcome(row, source=source)


def stop_row(user: User, row: Action, source: str) -> None:
    """Stop one row's action, unless it has ended by itself meanwhile."""
    try:
        ask.stop(user, row, source)
    except Refused:
        return


def claim(row: Action, claim_row: Q) -> bool:
    """Take a batch's queued row, if none too many run on its target; False where it may not be.

    The open batches of a target are locked, so that two workers can't both see a free place.
    """
    with transaction.atomic():
        opened = Batch.objects.select_for_update(of=("self",)).filter(
            lane_of(row), target=row.target, finished_at=None, asked_at__isnull=False
        )
        batches = {batch.pk: batch for batch in opened.order_by("pk")}
        own = batches.get(row.batch_id) if row.batch_id else None
        if own is None or own.stop_asked_by:
            return False
        running = Action.objects.filter(batch__in=batches, state=State.RUNNING).count()
        if running >= own.at_once:
            return False
        now = timezone.now()
        rows = Action.objects.filter(claim_row, pk=row.pk)
        return bool(rows.update(state=State.RUNNING, started_at=now, beat_at=now))


def lane_of(row: Action) -> Q:
    """Return which batches wait for each other with a row's."""
    return IS_SIGNAL if ask.spec_of(row.name).is_signal else ~IS_SIGNAL


def waiting_rows(target_id: int) -> QuerySet[Action]:
    """Return a target's queued rows of batches, in the order in which they run.

    Those whose job is held between its tables keep nobody else waiting.
    """
    held = JobRun.objects.filter(state=JobRun.State.HELD, batch__isnull=False).values("batch")
    rows = Action.objects.filter(batch__target=target_id, state=State.QUEUED).exclude(
        batch__in=held
    )
    return rows.select_related("batch").order_by("batch__asked_at", "batch_position")


def advance(target_id: int) -> None:
    """Send what is next on a target to the workers, and end batches that are done."""
    settle(target_id)
    for lane in (IS_SIGNAL, ~IS_SIGNAL):
        following = list(waiting_rows(target_id).filter(lane)[:10])
        if not following or following[0].batch is None:
            continue
        running = Action.objects.filter(lane, batch__target=target_id, state=State.RUNNING)
        for row in following[: max(0, following[0].batch.at_once - running.count())]:
            ask.publish(row, ask.spec_of(row.name))


def settle(target_id: int) -> None:
    """Say of a target's batches that they are over where no row of theirs is open."""
    opened = Batch.objects.filter(target=target_id, finished_at=None, asked_at__isnull=False)
    for batch in opened:
        if not batch.actions.filter(state__in=[*OPEN, State.DRAFT]).exists():
            opened.filter(pk=batch.pk).update(finished_at=timezone.now())


def sweep() -> None:
    """Go on with batches whose worker or message was lost."""
    opened = Batch.objects.filter(finished_at=None, asked_at__isnull=False)
    for target_id in set(opened.exclude(target=None).values_list("target", flat=True)):
        advance(target_id)
    opened.filter(target=None).exclude(actions__state__in=OPEN).update(finished_at=timezone.now())


def target_of(batch: Batch) -> Target:
    """Return a batch's target; raises Refused where it was removed."""
    if batch.target is None:
        message = f"The target {batch.target_name} was removed."
        raise Refused(message)
    return batch.target


def counts(rows: Sequence[Action]) -> dict[str, int]:
    """Return how many rows are in each state, in the order of the states."""
    found = {str(state): 0 for state in State}
    for row in rows:
        found[str(row.state)] += 1
    return {state: count for state, count in found.items() if count}
