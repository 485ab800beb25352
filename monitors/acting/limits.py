"""How much a person may ask for within a minute."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from monitors.action import Refused
from monitors.audit import entries
from monitors.models import Action, AuditEntry, Batch

ASKED_AT_MOST = 30
"""So many actions, previews among them, and batches one person may ask for within a minute."""
A_MINUTE = timedelta(minutes=1)


class TooMany(Refused):
    """A person asked too often; its text says for how long to wait."""


@contextlib.contextmanager
def within_limit(user: User, source: str) -> Iterator[None]:
    """Save inside what a person asks for: all of it, in one transaction, or nothing.

    One person's requests come in turn, so that no two count before either is saved. Raises
    TooMany where there were enough of them; the first time in a minute that is audited.
    """
    with transaction.atomic():
        # Not the key: rows that name the person wait for nobody.
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        asked = asked_lately(user)
        if asked.total() < ASKED_AT_MOST:
            yield
            return
        message = (
            f"You asked for {told(asked)} within a minute, and {ASKED_AT_MOST} is the limit:"
            " nothing was sent. Wait a minute; several tables can be one batch."
        )
        audit_limit(user, source, message)
    raise TooMany(message)


KINDS = {"preview": "previews", "action": "actions", "batch": "batches"}
"""What a person asks for; of what was asked for after its preview the preview doesn't count too."""


def asked_lately(user: User) -> Counter[str]:
    """Return how many of each of KINDS a person asked for in the last minute."""
    since = timezone.now() - A_MINUTE
    actions = Action.objects.filter(asked_by=user, batch=None, created_at__gt=since)
    batches = Batch.objects.filter(asked_by=user, created_at__gt=since).exclude(
        asked_from__startswith=OF_A_JOB
    )
    states = actions.values_list("state", flat=True)
    moments = batches.values_list("asked_at", flat=True)
    return Counter(
        ["preview" if state == Action.State.DRAFT else "action" for state in states]
        + ["batch" if moment else "preview" for moment in moments]
    )


def told(asked: Counter[str]) -> str:
    """Return `28 previews, 1 action and 1 batch`."""
    parts = [
        f"{asked[one]} {one if asked[one] == 1 else many}"
        for one, many in KINDS.items()
        if asked[one]
    ]
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def audit_limit(user: User, source: str, message: str) -> None:
    """Write down that a person asked too often, unless that was done in the last minute."""
    since, name = timezone.now() - A_MINUTE, user.get_username()
    lately = AuditEntry.objects.order_by("-id")[:AUDIT_REACH].values("who", "what", "at")
    if not any((row["who"], row["what"]) == (name, LIMIT) and row["at"] > since for row in lately):
        entries.add(LIMIT, name, source, reason=message, result="refused")


OF_A_JOB = "job:"
"""How the source of what a recurring job asks for begins."""
LIMIT = "actions.limit"
AUDIT_REACH = 200
"""Entries that are looked through for the one that says it already."""
