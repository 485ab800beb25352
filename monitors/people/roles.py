"""Roles of one's own: every change of what a role includes, for pages and commands alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from monitors.audit import entries
from monitors.models import Grant, Role
from monitors.people import accounts
from monitors.people.access import PERMISSIONS
from monitors.people.permissions import completed

LAST_ROLE = (
    "{name} is the last role by which somebody manages people."
    " Make another account admin on everything first."
)
MOST_NAMED = 3
"""How many grants a sentence names."""


class StillGranted(Exception):
    """A role that somebody has can't be removed; its text is a sentence that says who."""


def add(who: str, source: str, *, name: str, permissions: Collection[str]) -> Role:
    """Make a role; raises ValidationError with the keys `name` and `permissions`."""
    role = Role(name=name, permissions=checked(permissions), made_by=who)
    try:
        role.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        raise ValidationError({"name": error.messages}) from None
    try:
        with transaction.atomic():
            role.save(force_insert=True)
            entries.add("role.add", who, source, object_name=name, permissions=role.permissions)
    except IntegrityError:
        message = f"There is a role {name} already."
        raise ValidationError({"name": message}) from None
    return role


def change(who: str, source: str, name: str, permissions: Collection[str]) -> bool:
    """Let a role include these permissions and no others, at once for all who have it.

    Returns whether that changed anything. Raises ValidationError, LastAdmin and
    Role.DoesNotExist.
    """
    wanted = checked(permissions)
    message = LAST_ROLE.format(name=name)
    with transaction.atomic(), accounts.one_admin_stays(message):
        role = Role.objects.select_for_update().get(name=name)
        before = role.permissions
        if before == wanted:
            return False
        role.permissions = wanted
        role.save(update_fields=["permissions"])
        entries.add("role.change", who, source, object_name=name, permissions=wanted, before=before)
    return True


def remove(who: str, source: str, name: str) -> None:
    """Remove a role that nobody has; raises StillGranted and Role.DoesNotExist."""
    with transaction.atomic():
        role = Role.objects.select_for_update().get(name=name)
        held = holders(name)
        if held:
            raise StillGranted(refusal(name, held))
        entries.add("role.remove", who, source, object_name=name, permissions=role.permissions)
        role.delete()


def checked(permissions: Iterable[str]) -> list[str]:
    """Return what a role is to include, `view` with what needs it; raises ValidationError."""
    wanted = list(permissions)
    unknown = sorted({name for name in wanted if name not in PERMISSIONS})
    if unknown:
        message = f"There is no permission {', '.join(unknown)}. Known: {', '.join(PERMISSIONS)}."
        raise ValidationError({"permissions": message})
    if not wanted:
        message = "A role includes at least one permission."
        raise ValidationError({"permissions": message})
    return completed(wanted)


def removed(role: Role) -> list[str]:
    """Return the permissions of a role that no longer exist: they count for nothing."""
    return [name for name in role.permissions if name not in PERMISSIONS]


def holders(name: str) -> list[Grant]:
    """Return the grants of a role."""
    grants = Grant.objects.filter(role=name)
    found = grants.select_related("user", "group", "target", "environment")
    return list(found.order_by("group__name", "user__username", "pk"))


def refusal(name: str, held: Collection[Grant]) -> str:
    """Return why a role that some have stays."""
    places = [f"{accounts.holder_of(one)} on {accounts.scope_of(one)}" for one in held]
    if len(places) > MOST_NAMED:
        places[MOST_NAMED:] = [f"{len(places) - MOST_NAMED} more"]
    return f"{name} is given to {', '.join(places)}. Take it away there first."
