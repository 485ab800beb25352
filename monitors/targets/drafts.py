"""A checked draft becomes a target; its passwords stay sealed on the way."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from monitors import queue
from monitors.audit import entries
from monitors.kinds import POSTGRES
from monitors.models import (
    Target,
    TargetCheck,
    TargetSecret,
)
from monitors.pg import hosts
from monitors.pg.errors import Unreachable
from monitors.targets import register
from monitors.targets.register import USUAL, default_sslmode, login_user
from monitors.targets.secrets import seal_password


class PasswordsElsewhere(Exception):
    """The passwords of a draft are kept in the login session that typed them, and there alone."""


def save_draft(
    user_name: str, source: str, check: TargetCheck, sealed: Mapping[str, str]
) -> Target:
    """Register a check's draft and keep its sealed passwords.

    `sealed` is what the check held: {login: "key id:base64 box"}. A box names
    the host, port and user that it was sealed for, so it opens for this draft
    alone. Raises ValidationError with a message for each field, PasswordsElsewhere
    where a password that was checked is not there.
    """
    if set(check.sealed) - set(sealed):
        raise PasswordsElsewhere
    with transaction.atomic():
        target = register.add(user_name, source, **check.draft)
        for login, text in sealed.items():
            key_id, _, box = text.partition(":")
            TargetSecret.objects.update_or_create(
                target=target,
                login=login,
                defaults={"sealed": base64.b64decode(box), "key_id": key_id},
            )
        check.target = target
        check.save(update_fields=["target"])
        entries.add(
            "target.password", user_name, source, target_name=target.name, passwords=sorted(sealed)
        )
    return target


CHECK_SECONDS = 60


def ask_check(
    user: User,
    *,
    target: Target | None = None,
    draft: Mapping[str, Any] | None = None,
    passwords: Mapping[str, str] | None = None,
    source: str = "",
) -> TargetCheck:
    """Have a worker connect and say what works; returns the row that gets the answer.

    `draft` holds a target's fields as `register` takes them. Passwords (by
    login) are sealed until the worker reads them. Raises ValidationError for a
    draft that may not be connected to.
    """
    subject = draft_target(draft) if draft is not None else target
    if subject is None:
        raise ValidationError({"target": "Name a target or give an address."})
    sealed = {}
    for login, password in (passwords or {}).items():
        if password:
            box, key = seal_password(
                password, subject.host, subject.port, login_user(subject, login)
            )
            sealed[login] = f"{key}:{base64.b64encode(box).decode()}"
    with transaction.atomic():
        within_limit(user)
        check = TargetCheck.objects.create(
            target=target, draft=dict(draft or {}), sealed=sealed, asked_by=user
        )
    entries.add(
        "target.check",
        user.get_username(),
        source,
        target_name=target.name if target else "",
        object_name=subject.address,
    )
    if not queue.send("check_target", str(check.pk), queue="requests", expires=CHECK_SECONDS):
        check.error = "The broker does not answer: no worker can be asked. Try again."
        check.done_at = timezone.now()
        check.save()
    return check


CHECKS_AT_MOST = 10
"""So many checks one person may ask for within a minute."""


def within_limit(user: User) -> None:
    """Raise ValidationError where a person asked for too many checks: each logs in somewhere.

    Until the transaction ends nobody else counts for that person.
    """
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    since = timezone.now() - timedelta(minutes=1)
    asked = TargetCheck.objects.filter(asked_by=user, asked_at__gt=since).count()
    if asked >= CHECKS_AT_MOST:
        message = (
            f"You asked for {asked} checks within a minute, and {CHECKS_AT_MOST} is the limit:"
            " wait a minute."
        )
        raise ValidationError(message)


def draft_target(draft: Mapping[str, Any]) -> Target:
    """Return an unsaved target with a draft's address; raises ValidationError."""
    host = str(draft.get("host", ""))
    kind = str(draft.get("kind") or Target.Kind.POSTGRES)
    usual_port, usual_dbname = USUAL.get(kind, USUAL[POSTGRES])
    try:
        port = int(draft.get("port") or usual_port)
    except (TypeError, ValueError):
        raise ValidationError({"port": "The port is a number."}) from None
    target = Target(
        name=str(draft.get("name", "")),
        kind=kind,
        host=host,
        port=port,
        dbname=str(draft.get("dbname") or usual_dbname),
        user=str(draft.get("user", "")),
        operator_user=str(draft.get("operator_user", "")),
        allow_superuser=bool(draft.get("allow_superuser", False)),
        require_auth=str(draft.get("require_auth", "")),
        include=list(draft.get("include") or []),
        exclude=list(draft.get("exclude") or []),
    )
    try:
        hosts.check_host(host)
    except Unreachable as error:
        raise ValidationError({"host": str(error)}) from None
    target.sslmode = str(draft.get("sslmode") or default_sslmode(host))
    target.clean_fields(exclude=["name", "environment", "operator_user"])
    return target
