"""Why a button can't be pressed, and what would change that."""

from __future__ import annotations

from collections.abc import Callable

from monitors.actions import ACTIONS
from monitors.models import Target
from monitors.people import access


def why_not(
    target: Target,
    action: str,
    may: frozenset[str],
    *,
    is_live: bool,
    roles_with: Callable[[str], str] = access.roles_with,
) -> str:
    """Return why the person can't take an action on a target; empty where they can.

    `roles_with` names the roles that include a permission.
    """
    if not is_live:
        return "This page shows the past. Go back to now to act."
    if action not in may:
        roles = roles_with(action)
        return f"Your role on {target.name} does not include {action}. Ask an admin for {roles}."
    if not target.operator_user:
        return f"{target.name} has no operator login. Add one on its Targets page."
    if not target.enabled:
        return f"{target.name} is disabled. Enable it on the Targets page."
    if target.in_recovery and not ACTIONS[action].on_standby:
        return f"{target.name} is a standby. Act on its primary."
    return ""
