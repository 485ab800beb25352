"""Every permission question: who may do what to which target.

A permission is a name: an action's, or one of `OTHERS`. A role is a set of
them, one of the four here or one of one's own (`Role`); a `Grant` gives a person
or group a role on a target, an environment or everything. Nothing is remembered
between questions: a grant that was taken away and a role that was changed count
at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, Q, QuerySet, Subquery

from monitors.actions import ACTIONS
from monitors.audit import chain
from monitors.models import AuditEntry, Grant, Role, Target

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
    "viewer": VIEWER,
    "operator": OPERATOR,
    "dba": DBA,
    "admin": ADMIN,
}
"""The four that stand as they are; `role_sets` has those of one's own too."""
MOST_NAMED = 6
"""How many roles a sentence names."""

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
    own = Role.objects.filter(name=OuterRef("role")).values("permissions")
    found = grants_of(user).filter(scope).values_list("role", Subquery(own))
    return frozenset[str]().union(*(ROLES.get(role) or existing(names) for role, names in found))


def existing(names: Iterable[str] | None) -> frozenset[str]:
    """Return those permissions of a role that there are: one that was removed counts for nothing."""
    return frozenset(names or ()).intersection(PERMISSIONS)


def role_sets() -> dict[str, frozenset[str]]:
    """Return the permissions of every role: the four, then one's own by name. One query."""
    own = Role.objects.order_by("name").values_list("name", "permissions")
    return {**ROLES, **{name: existing(permissions) for name, permissions in own}}


def visible_targets(user: Person) -> QuerySet[Target]:
    """Return the targets whose pages a person may see; without those being deleted."""
    return targets_with(user, "view")


def managed_targets(user: Person) -> QuerySet[Target]:
    """Return the targets that a person may edit, enable, disable and remove."""
    return targets_with(user, "manage_targets")


def targets_with(user: Person, permission: str) -> QuerySet[Target]:
    """Return the targets on which a person has a permission, by name."""
    targets = Target.objects.filter(deleting_at=None).select_related("environment")
    grants = grants_of(user).filter(gives(permission))
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


def gives(permission: str) -> Q:
    """Return the condition that a grant's role includes a permission that exists."""
    roles = [role for role, names in ROLES.items() if permission in names]
    own = Role.objects.filter(permissions__contains=[permission]).values("name")
    return Q(role__in=roles) | Q(role__in=own)


def roles_with(permission: str) -> str:
    """Return the roles that include a permission, as `operator, dba or cancel-only`."""
    return named_with(role_sets(), permission)


def named_with(sets: Mapping[str, frozenset[str]], permission: str) -> str:
    """Return those of some roles that include a permission, as `roles_with` does."""
    names = [role for role, permissions in sets.items() if permission in permissions]
    if len(names) > MOST_NAMED:
        names[MOST_NAMED:] = [f"{len(names) - MOST_NAMED} more"]
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def require(
    user: Person, permission: str, target: Target | None = None, *, source: str = ""
) -> None:
    """Raise PermissionDenied, and say so in the audit, where a person may not."""
    if may(user, permission, target):
        return
    where = f" on {target.name}" if target else ""
    message = (
        f"You need the permission {permission}{where}. Ask an admin for {roles_with(permission)}."
    )
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
