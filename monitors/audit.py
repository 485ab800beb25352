"""Who did what to which target, before it was done and after.

An action has an intent and an outcome; everything else is one event. If the
intent can't be written nothing is done.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from monitors import access, chain
from monitors.models import Action, AuditEntry, Target


def intent(action: Action, *, who: str = "", source: str = "") -> AuditEntry:
    """Write down what is about to be asked of a target; raises where that fails."""
    return chain.append(
        kind=AuditEntry.Kind.INTENT,
        who=who or action.asked_by_name,
        source=source or action.asked_from,
        **about(action),
        reason=action.reason,
        detail={"arguments": action.arguments, "identity": action.identity},
    )


def outcome(action: Action, *, who: str = "", source: str = "", **detail: Any) -> AuditEntry:
    """Write down how an action ended: its state, sentence and effect."""
    return chain.append(
        kind=AuditEntry.Kind.OUTCOME,
        who=who or action.asked_by_name,
        source=source or action.asked_from,
        **about(action),
        reason=action.outcome,
        result=action.state,
        detail={
            "effect": action.effect,
            "before": action.before,
            "after": action.after,
            "approved_by": action.approved_by.get_username() if action.approved_by else "",
            **detail,
        },
    )


def about(action: Action) -> dict[str, Any]:
    """Return the columns that an action's intent and outcome share."""
    return {
        "what": action.name,
        "target_name": action.target_name,
        "object_name": action.object_name,
        "action_id": action.pk,
        "sql": action.sql,
    }


def event(  # noqa: PLR0913 - one keyword a column
    what: str,
    who: str,
    source: str,
    *,
    target_name: str = "",
    object_name: str = "",
    reason: str = "",
    result: str = "",
    **detail: Any,
) -> AuditEntry:
    """Write down something that happened: a login, a grant, a target's new address."""
    return chain.append(
        kind=AuditEntry.Kind.EVENT,
        what=what,
        who=who,
        source=source,
        target_name=target_name,
        object_name=object_name,
        reason=reason,
        result=result,
        detail=detail,
    )


def verify() -> int | None:
    """Return the id of the first entry that was tampered with, None where all is well."""
    return chain.first_broken()


def visible_entries(user: access.Person) -> QuerySet[AuditEntry]:
    """Return what a person may read: all, that of own targets, or own deeds; newest first."""
    entries = AuditEntry.objects.all()
    if access.may(user, "audit"):
        return entries
    names = access.targets_with(user, "audit").values("name")
    own = Q(who=user.get_username()) if user.get_username() else Q(pk__in=[])
    return entries.filter(own | Q(target_name__in=names))


def known_target_names(user: access.Person) -> QuerySet[Target, str]:
    """Return the names of the targets whose entries a person may filter by."""
    return access.targets_with(user, "audit").values_list("name", flat=True)
