"""Asks for actions: who may, the preview, the row, the audit, the queue.

The web and `manage.py act` both come this way. Nothing here connects to a
target: a worker runs the guard of a preview and, later, the action itself
(`monitors/acting/perform.py`), and asks every question again.

Long, since preview, request, approval, stop and undo ask the same questions.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.utils import timezone

from monitors import queue
from monitors.acting.limits import TooMany, within_limit
from monitors.action import Action as Spec, InvalidArguments, Refused, text_of
from monitors.actions import ACTIONS
from monitors.audit import entries
from monitors.models import Action, Target
from monitors.people import access

PREVIEW_LIFE = timedelta(minutes=10)
"""A preview that is older says nothing about now."""
APPROVAL_LIFE = timedelta(hours=24)
PREVIEW_EXPIRES_SECONDS = 15


State = Action.State
QUEUED, WAITING, RUNNING, DRAFT = State.QUEUED, State.WAITING, State.RUNNING, State.DRAFT


def preview(
    user: User, target: Target, name: str, arguments: Mapping[str, Any], *, source: str
) -> Action:
    """Save a draft and have a worker look at the target; the answer comes in `Action.preview`.

    Its keys: ready, refused (a sentence or ''), sql, lock, conflicts, facts,
    warnings, expected_seconds. Raises PermissionDenied, Refused or InvalidArguments.
    """
    spec = spec_of(name)
    check(user, target, spec, source)
    draft = build(user, target, spec, spec.clean(arguments), source=source)
    draft.preview = {"ready": False, "refused": ""}
    with within_limit(user, source):
        draft.save(force_insert=True)
    sent = queue.send("preview", str(draft.pk), queue="requests", expires=PREVIEW_EXPIRES_SECONDS)
    if not sent:
        draft.preview["queued"] = False  # whoever waits need not wait for a worker
        draft.save(update_fields=["preview"])
    return draft


def request(
    user: User,
    draft: Action,
    *,
    reason: str = "",
    confirmed: bool = True,
    idempotency_key: uuid.UUID | None = None,
    source: str,
) -> Action:
    """Ask for what a draft's preview showed; asking twice for one draft is asking once.

    Raises PermissionDenied, Refused or InvalidArguments; what is refused is in the audit.
    """
    spec = spec_of(draft.name).given(draft.arguments)
    target = target_of(draft)
    if draft.asked_by_id != user.pk:
        raise denied(user, target, spec, source, "Only who opened a preview may ask for it.")
    row = Action.objects.get(pk=draft.pk)
    if row.state != DRAFT:
        return row
    check(user, target, spec, source)
    check_draft(row, spec, target, reason, confirmed=confirmed)
    waits = spec.second_person and target.environment.protected
    if submit(row, spec, reason, waits=waits, key=idempotency_key, source=source) and not waits:
        publish(row, spec)
    return Action.objects.get(pk=draft.pk)


def ask(  # noqa: PLR0913 - one keyword a column
    user: User,
    target: Target,
    name: str,
    arguments: Mapping[str, Any],
    *,
    reason: str = "",
    idempotency_key: uuid.UUID | None = None,
    source: str,
) -> Action:
    """Ask for a direct action at once; the same key asks once, whoever repeats it.

    Raises PermissionDenied, Refused or InvalidArguments; what is refused is in the audit.
    """
    spec = spec_of(name)
    if not spec.direct:
        message = f"{name} is asked for through its preview."
        raise InvalidArguments(message)
    cleaned = spec.clean(arguments)
    known = repeated(user, target, spec, cleaned, idempotency_key)
    if known is not None:
        return known
    check(user, target, spec, source)
    if spec.destructive:
        require_reason(target, reason)
    row = build(user, target, spec, cleaned, source=source)
    row.identity = dict(cleaned)
    row.sql = text_of(spec.statement(cleaned, row.identity, target.server_version or 0))
    row.reason = reason[:500]
    row.idempotency_key = idempotency_key or row.idempotency_key
    try:
        with within_limit(user, source):
            into_queue(row, spec)
            row.save(force_insert=True)
            entries.add_intent(row, source=source)
    except (IntegrityError, TooMany):
        known = repeated(user, target, spec, cleaned, idempotency_key)
        if known is None:
            raise
        return known
    publish(row, spec)
    return row


def approve(user: User, action: Action, source: str) -> Action:
    """Let a waiting action go on; raises PermissionDenied or Refused."""
    spec = spec_of(action.name)
    target = target_of(action)
    access.require(user, "approve", target, source=source)
    if action.asked_by_id == user.pk:
        raise denied(user, target, spec, source, "Another person must approve what you asked for.")
    now = timezone.now()
    with transaction.atomic():
        changed = Action.objects.filter(
            pk=action.pk, state=WAITING, expires_at__gt=now, asked_by__is_active=True
        ).update(
            state=QUEUED,
            approved_by=user,
            queued_at=now,
            expires_at=now + timedelta(seconds=spec.expires_seconds),
        )
        if not changed:
            message = "It no longer waits for approval."
            raise Refused(message)
        entries.add(
            f"{action.name}.approve",
            user.get_username(),
            source,
            target_name=action.target_name,
            object_name=action.object_name,
            action=str(action.pk),
        )
    row = Action.objects.get(pk=action.pk)
    publish(row, spec)
    return row


def stop(user: User, action: Action, source: str) -> Action:
    """Stop an action: at once before it runs, else the worker cancels its statement.

    Raises PermissionDenied, or Refused where it is over.
    """
    target = target_of(action)
    access.require(user, action.name, target, source=source)
    name = user.get_username()
    with transaction.atomic():
        row = Action.objects.select_for_update(of=("self",)).get(pk=action.pk)
        if row.is_final:
            message = "It is over already."
            raise Refused(message)
        row.stop_asked_by = name
        if row.state != RUNNING:
            draft = row.state == DRAFT
            row.state = State.CANCELLED
            row.outcome = f"Stopped by {name} before it ran."
            row.finished_at = timezone.now()
            row.save()
            if not draft:
                entries.add_outcome(row, who=name, source=source)
        else:
            row.save(update_fields=["stop_asked_by"])
            entries.add(
                f"{row.name}.stop",
                name,
                source,
                target_name=row.target_name,
                object_name=row.object_name,
                action=str(row.pk),
            )
    return row


def undo(user: User, action: Action, source: str) -> Action:
    """Preview an action's inverse; raises Refused where it has none."""
    target = target_of(action)
    if not action.inverse:
        message = f"{action.name} can't be undone."
        raise Refused(message)
    inverse = action.inverse
    return preview(user, target, inverse["name"], inverse["arguments"], source=source)


def publish(row: Action, spec: Spec) -> bool:
    """Send a queued row to its workers; the sweep sends it again where this fails."""
    return queue.send("perform", str(row.pk), queue=spec.queue, expires=spec.expires_seconds)


def spec_of(name: str) -> Spec:
    """Return an action by name; raises InvalidArguments that names those there are."""
    if name not in ACTIONS:
        message = f"There is no action {name}. Known: {', '.join(ACTIONS)}."
        raise InvalidArguments(message)
    return ACTIONS[name]


def target_of(row: Action) -> Target:
    """Return a row's target; raises Refused where it was removed."""
    if row.target is None:
        message = f"The target {row.target_name} was removed."
        raise Refused(message)
    return row.target


def check(user: User, target: Target, spec: Spec, source: str) -> None:
    """Raise PermissionDenied or Refused, and say so in the audit."""
    access.require(user, spec.name, target, source=source)
    reason = reason_not_to_act(target, spec)
    if reason:
        entries.add(
            spec.name,
            user.get_username(),
            source,
            target_name=target.name,
            reason=reason,
            result="refused",
        )
        raise Refused(reason)


def reason_not_to_act(target: Target, spec: Spec) -> str:  # noqa: PLR0911 - one a rule
    """Return why an action may not be done to a target now, '' where it may."""
    if target.deleting_at is not None:
        return f"{target.name} is being removed."
    if not target.enabled:
        return f"{target.name} is disabled: enable it first."
    if target.frozen_reason:
        return f"{target.name} is frozen: {target.frozen_reason}"
    if target.kind != spec.kind:
        return f"{target.name} is a {target.get_kind_display()}: {spec.name} is nothing for it."
    if target.in_recovery and not spec.on_standby:
        return f"{target.name} is a standby in recovery: act on its primary."
    if not target.operator_user:
        return f"{target.name} has no operator login: give it one to act on it."
    return ""


def check_draft(row: Action, spec: Spec, target: Target, reason: str, *, confirmed: bool) -> None:
    """Raise Refused or InvalidArguments unless a draft may be asked for as it is."""
    if row.created_at < timezone.now() - PREVIEW_LIFE:
        message = "This preview is older than 10 minutes: open it again."
        raise Refused(message)
    if not row.preview.get("ready"):
        message = "The preview is not there yet: the target has not answered."
        raise Refused(message)
    if row.preview.get("refused"):
        raise Refused(row.preview["refused"])
    if spec.destructive and not confirmed:
        message = f"Confirm {spec.verb.lower()} of {row.object_name}: nothing was sent."
        raise InvalidArguments(message)
    require_reason(target, reason)


def require_reason(target: Target, reason: str) -> None:
    """Raise InvalidArguments where the environment asks for a reason and none is given."""
    if target.environment.reason_required and not reason:
        message = f"Say why: {target.environment.name} asks for a reason."
        raise InvalidArguments(message)


def submit(
    row: Action, spec: Spec, reason: str, *, waits: bool, key: uuid.UUID | None, source: str
) -> bool:
    """Turn a draft into a request, once, with its intent in the audit; False: somebody did."""
    with transaction.atomic():
        row.reason = reason
        row.asked_from = source
        into_queue(row, spec)
        if waits:
            row.state = WAITING
            row.expires_at = timezone.now() + APPROVAL_LIFE
        changed = Action.objects.filter(pk=row.pk, state=DRAFT).update(
            state=row.state,
            reason=row.reason,
            asked_from=row.asked_from,
            queued_at=row.queued_at,
            expires_at=row.expires_at,
            **({"idempotency_key": key} if key else {}),
        )
        if changed:
            entries.add_intent(row, source=source)
    return bool(changed)


def build(
    user: User, target: Target, spec: Spec, cleaned: dict[str, str], *, source: str
) -> Action:
    """Return an unsaved draft."""
    return Action(
        name=spec.name,
        target=target,
        target_name=target.name,
        arguments=cleaned,
        object_name=spec.object_name(cleaned, {})[:300],
        asked_by=user,
        asked_by_name=user.get_username(),
        asked_from=source[:60],
        state=DRAFT,
    )


def into_queue(row: Action, spec: Spec) -> None:
    """Make an unsaved row one that waits for a worker, for a limited time."""
    row.state = QUEUED
    row.queued_at = timezone.now()
    row.expires_at = row.queued_at + timedelta(seconds=spec.expires_seconds)


def repeated(
    user: User, target: Target, spec: Spec, cleaned: dict[str, str], key: uuid.UUID | None
) -> Action | None:
    """Return the row that a key already made; raises InvalidArguments where it asked for else."""
    row = Action.objects.filter(idempotency_key=key).first() if key else None
    if row is None:
        return None
    if (row.asked_by_id, row.target_id, row.name, row.arguments) != (
        user.pk,
        target.pk,
        spec.name,
        cleaned,
    ):
        message = "This key was used for another request: send a new one."
        raise InvalidArguments(message)
    return row


def denied(user: User, target: Target, spec: Spec, source: str, message: str) -> PermissionDenied:
    """Write a denial into the audit and return what to raise."""
    entries.add(
        spec.name,
        user.get_username(),
        source,
        target_name=target.name,
        reason=message,
        result="denied",
    )
    return PermissionDenied(message)
