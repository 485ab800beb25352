"""Who may do what where."""

from __future__ import annotations

import re

from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models

from monitors.models.target import Environment, Target

BUILT_IN_ROLES = ("viewer", "operator", "dba", "admin")
"""Their permissions stand in `monitors/people/access.py`, and no row of `Role` has their names."""
ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def validate_role_name(name: str) -> None:
    """Raise ValidationError unless a role of one's own may have a name."""
    if not ROLE_NAME.fullmatch(name):
        message = "Use 1 to 40 lower-case letters, digits and hyphens, no hyphen first."
        raise ValidationError(message)
    if name in BUILT_IN_ROLES:
        message = f"{name} is one of the roles that stand as they are. Choose another name."
        raise ValidationError(message)
    if name == "new":
        message = "new is a word of Howdah's own addresses. Choose another name."
        raise ValidationError(message)


class Role(models.Model):
    """A role of one's own: permissions under a name, which never changes.

    A permission that no longer exists stays in the row and counts for nothing.
    """

    name = models.CharField(max_length=40, unique=True, validators=[validate_role_name])
    permissions = ArrayField(models.CharField(max_length=60), default=list)
    made_by = models.CharField(max_length=150)
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(name__in=BUILT_IN_ROLES), name="role_of_ones_own"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Grant(models.Model):
    """A role of a person or group on one target, one environment or everything."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True)
    group = models.ForeignKey(Group, on_delete=models.CASCADE, null=True)
    role = models.CharField(max_length=40)  # the name of one of the four, or of a Role
    target = models.ForeignKey(Target, on_delete=models.CASCADE, null=True)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(user__isnull=True) ^ models.Q(group__isnull=True),
                name="grant_to_a_person_or_a_group",
            ),
            models.CheckConstraint(
                condition=models.Q(target__isnull=True) | models.Q(environment__isnull=True),
                name="grant_on_one_scope",
            ),
            models.UniqueConstraint(
                fields=["user", "group", "role", "target", "environment"],
                name="one_grant",
                nulls_distinct=False,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} of {self.user or self.group}"
