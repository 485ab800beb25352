"""What a server says of itself is kept, and what happened to it since is marked."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from monitors.findings import past
from monitors.models import (
    Mark,
    Target,
)
from monitors.pg.identity import Identity, is_new_epoch


def note_identity(target: Target, identity: Identity) -> None:
    """Keep what a server said of itself, and mark what happened to it since."""
    with transaction.atomic():
        known = Target.objects.select_for_update().get(pk=target.pk)
        for kind, words in events_between(known, identity):
            # On our clock; a crash leaves the postmaster's own start unchanged.
            began = {
                Mark.Kind.RESTART: identity.started_at,
                Mark.Kind.CRASH: identity.checkpointer_start,
            }.get(Mark.Kind(kind))
            ago = identity.target_at - began if began else timedelta(0)
            Mark.objects.create(target=known, at=timezone.now() - ago, kind=kind, text=words)
        answers = identity.system_identifier
        if answers and known.system_identifier not in {"", answers}:
            known.frozen_reason = (
                "Another server answers at this address: its system identifier is "
                f"{answers}, it was {known.system_identifier}. "
                "An administrator has to confirm the change by editing the target."
            )
        else:
            for name in KEPT_OF_IDENTITY:
                if getattr(identity, name) is not None:  # else what was known before stands
                    setattr(known, name, getattr(identity, name))
            past.note_facts(known, timezone.now())
        known.save()
    target.refresh_from_db()


KEPT_OF_IDENTITY: tuple[str, ...] = (
    "server_version",
    "version_text",
    "system_identifier",
    "timeline",
    "in_recovery",
    "started_at",
    "epoch",
    "max_connections",
    "reserved_connections",
    "settings",
)
Event = tuple[str, str]


def events_between(known: Target, identity: Identity) -> list[Event]:
    """Return (kind, sentence) of what happened to a server since it was last seen."""
    if known.started_at is None:
        return []
    events: list[Event] = []
    if is_new_epoch(known.epoch, identity.epoch):
        events.append((Mark.Kind.CRASH, "The server crashed and restarted: counters are 0."))
    elif identity.started_at and identity.started_at != known.started_at:
        events.append((Mark.Kind.RESTART, "The server was restarted."))
    if known.timeline is not None and (identity.timeline or 0) > known.timeline:
        events.append((Mark.Kind.PROMOTION, f"Promoted: timeline {identity.timeline}."))
    if known.version_text and known.version_text != identity.version_text:
        events.append((Mark.Kind.UPGRADE, f"Now PostgreSQL {identity.version_text}."))
    return events
