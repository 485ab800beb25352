"""Every permission question: who may do what to which target.

A permission is a name: an action's, or one of `OTHERS`. A role is a set of
them; a `Grant` gives a person or group a role on a target, an environment or
everything. Nothing is remembered between questions: a grant that was taken
away counts at once.
"""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet

from monitors.actions import ACTIONS
from monitors.audit import chain
from monitors.models import AuditEntry, Grant, Target

OTHERS = (
    "view",
    "view_query_text",
    "manage_targets",
    "manage_people",
    "approve",
    "audit",
    "acknowledge",
)
PERMISSIONS: tuple[str, ...] = (*OTHERS, *ACTIONS)

VIEWER = frozenset({"view"})
OPERATOR = VIEWER | frozenset(
    {"view_query_text", "acknowledge", "cancel_backend", "analyze", "vacuum", "measure_bloat"}
)
DBA = OPERATOR | frozenset(ACTIONS) | {"approve", "audit"}
ADMIN = frozenset({"manage_targets", "manage_people", "audit"})
ROLES: dict[str, frozenset[str]] = {
    Grant.Role.VIEWER: VIEWER,
    Grant.Role.OPERATOR: OPERATOR,
    Grant.Role.DBA: DBA,
    Grant.Role.ADMIN: ADMIN,
}

Person = User | AnonymousUser


def may(user: Person, permission: str, target: Target | None = None) -> bool:
    """Return whether a person has a permission on a target; None: on everything.

    Django's own flags (superuser, staff) count for nothing here. Raises
    ValueError for a permission that does not exist.
    """
    if permission not in PERMISSIONS:
        message = f"There is no permission {permission}."
        raise ValueError(message)
    return permission in permissions_of(user, target)


def permissions_of(user: Person, target: Target | None = None) -> frozenset[str]:
    """Return all permissions of a person on a target; None: those on everything. One query."""
    everything = Q(target=None, environment=None)
    scope = everything
    if target is not None:
        scope |= Q(target=target.pk) | Q(environment=target.environment_id)
    roles = grants_of(user).filter(scope).values_list("role", flat=True)
    return frozenset[str]().union(*(ROLES.get(role, frozenset()) for role in roles))


def visible_targets(user: Person) -> QuerySet[Target]:
    """Return the targets whose pages a person may see; without those being deleted."""
    return targets_with(user, "view")


def managed_targets(user: Person) -> QuerySet[Target]:
    """Return the targets that a person may edit, enable, disable and remove."""
    return targets_with(user, "manage_targets")


def targets_with(user: Person, permission: str) -> QuerySet[Target]:
    """Return the targets on which a person has a permission, by name."""
    targets = Target.objects.filter(deleting_at=None).select_related("environment")
    roles = [role for role, names in ROLES.items() if permission in names]
    grants = grants_of(user).filter(role__in=roles)
    if grants.filter(target=None, environment=None).exists():
        return targets
    return targets.filter(
        Q(pk__in=grants.exclude(target=None).values("target"))
        | Q(environment__in=grants.exclude(environment=None).values("environment"))
    )


def visible_entries(user: Person) -> QuerySet[AuditEntry]:
    """Return what a person may read: all, that of own targets, or own deeds; newest first."""
    entries = AuditEntry.objects.all()
    if may(user, "audit"):
        return entries
    names = targets_with(user, "audit").values("name")
    own = Q(who=user.get_username()) if user.get_username() else Q(pk__in=[])
    return entries.filter(own | Q(target_name__in=names))


def get_visible_target(user: Person, name: str) -> Target:
    """Return a target by name; raises Target.DoesNotExist also where one may not see it."""
    return visible_targets(user).get(name=name)


def get_managed_target(user: Person, name: str) -> Target:
    """Return a target by name; raises Target.DoesNotExist where one may not edit it."""
    return managed_targets(user).get(name=name)


def roles_with(permission: str) -> str:
    """Return the roles that include a permission, as `operator or dba`."""
    return " or ".join(role for role, names in ROLES.items() if permission in names)


def require(
    user: Person, permission: str, target: Target | None = None, *, source: str = ""
) -> None:
    """Raise PermissionDenied, and say so in the audit, where a person may not."""
    if may(user, permission, target):
        return
    where = f" on {target.name}" if target else ""
    message = f"You need the permission {permission}{where}. Ask an admin for a role that has it."
    chain.append(
        kind="event",
        what=permission,
        who=user.get_username() or "anonymous",
        source=source,
        target_name=target.name if target else "",
        result="denied",
        reason=message,
    )
    raise PermissionDenied(message)


def grants_of(user: Person) -> QuerySet[Grant]:
    """Return a person's own grants and those of the groups; none for who may not log in."""
    if not user.is_active or not isinstance(user, User):
        return Grant.objects.none()
    return Grant.objects.filter(Q(user=user) | Q(group__in=user.groups.all()))
