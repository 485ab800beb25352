"""The audit."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """Who did what; rows are only ever added, each holds the hash of the one before."""

    class Kind(models.TextChoices):
        """An action has an intent and an outcome; anything else is an event."""

        INTENT = "intent"
        OUTCOME = "outcome"
        EVENT = "event"

    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=8, choices=Kind)
    what = models.CharField(max_length=60)  # vacuum, login, target.edit, grant.add, …
    who = models.CharField(max_length=150)
    source = models.CharField(max_length=60, blank=True)  # where from
    target_name = models.CharField(max_length=63, blank=True)
    object_name = models.CharField(max_length=300, blank=True)
    action_id = models.UUIDField(null=True)
    sql = models.TextField(blank=True)
    reason = models.CharField(max_length=500, blank=True)
    result = models.CharField(max_length=40, blank=True)
    detail = models.JSONField(default=dict)
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["target_name", "-id"], name="audit_of_target")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.who}: {self.what} {self.kind}"
