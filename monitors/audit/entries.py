"""Who did what to which target, before it was done and after.

An action has an intent and an outcome; everything else is one event. If the
intent can't be written nothing is done.
"""

from __future__ import annotations

from typing import Any

from monitors.audit import chain
from monitors.models import Action, AuditEntry


def add_intent(action: Action, *, who: str = "", source: str = "") -> AuditEntry:
    """Write down what is about to be asked of a target; raises where that fails."""
    return chain.append(
        kind=AuditEntry.Kind.INTENT,
        who=who or action.asked_by_name,
        source=source or action.asked_from,
        **about(action),
        reason=action.reason,
        detail={"arguments": action.arguments, "identity": action.identity},
    )


def add_outcome(action: Action, *, who: str = "", source: str = "", **detail: Any) -> AuditEntry:
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


def add(  # noqa: PLR0913 - one keyword a column
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
