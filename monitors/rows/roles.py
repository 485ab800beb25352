"""Roles as the page, its export and `manage.py role list` show them: the four, then one's own."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from django.db.models import Count

from monitors.models import Grant, Role
from monitors.people import access, roles
from monitors.people.permissions import completed

COLUMNS = ("name", "own", "permissions", "removed", "grants", "made_by", "made_at")
"""Keys of an export, in order."""


class RoleRow(TypedDict):
    """A role with what it includes."""

    name: str
    own: bool  # whether it may be changed
    permissions: list[str]  # that exist, in the order in which people are shown them
    removed: list[str]  # that exist no longer and count for nothing
    grants: int
    made_by: str  # '' of the four
    made_at: datetime | None  # None of the four


def read_roles() -> list[RoleRow]:
    """Return every role; two queries."""
    counts = Grant.objects.order_by().values("role").annotate(count=Count("pk"))
    granted = dict(counts.values_list("role", "count"))
    four: list[RoleRow] = [
        {
            "name": name,
            "own": False,
            "permissions": completed(permissions),
            "removed": [],
            "grants": granted.get(name, 0),
            "made_by": "",
            "made_at": None,
        }
        for name, permissions in access.ROLES.items()
    ]
    return [*four, *(row_of(role, granted.get(role.name, 0)) for role in Role.objects.all())]


def row_of(role: Role, grants: int) -> RoleRow:
    """Return the row of a role of one's own."""
    return {
        "name": role.name,
        "own": True,
        "permissions": completed(access.existing(role.permissions)),
        "removed": roles.removed(role),
        "grants": grants,
        "made_by": role.made_by,
        "made_at": role.made_at,
    }
