"""A checked draft becomes a target; its passwords stay sealed on the way."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from django.db import transaction

from monitors.audit import entries
from monitors.models import Target, TargetCheck, TargetSecret
from monitors.targets import register


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
