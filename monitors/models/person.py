"""Who may do what where."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models

from monitors.models.target import Environment, Target


class Grant(models.Model):
    """A role of a person or group on one target, one environment or everything."""

    class Role(models.TextChoices):
        """Sets of permissions; `monitors/people/access.py` says which."""

        VIEWER = "viewer"
        OPERATOR = "operator"
        DBA = "dba"
        ADMIN = "admin"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True)
    group = models.ForeignKey(Group, on_delete=models.CASCADE, null=True)
    role = models.CharField(max_length=10, choices=Role)
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
