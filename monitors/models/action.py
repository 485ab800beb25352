"""What people asked of a target, and what became of it."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from monitors.models.target import Target


class Batch(models.Model):
    """One action on several tables or backends: a list that is frozen at its preview, an `Action` for each.

    Its rows run one after another (`at_once`); each has its own outcome.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=40)  # of the action, a key of ACTIONS
    target = models.ForeignKey(Target, on_delete=models.SET_NULL, null=True)
    target_name = models.CharField(max_length=63)
    options = models.JSONField(default=dict)  # arguments beside the object: strings
    due = models.BooleanField(default=False)  # made of the tables that were due, not of chosen ones
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    asked_by_name = models.CharField(max_length=150)
    asked_from = models.CharField(max_length=60, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    at_once = models.SmallIntegerField(default=1)  # so many of a target's run at the same time
    stop_asked_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    asked_at = models.DateTimeField(null=True)  # None: a preview
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} of several tables on {self.target_name}"


class Action(models.Model):
    """One thing that somebody asked Howdah to do to a target, from preview to effect."""

    class State(models.TextChoices):
        """`draft` is a preview; the last seven are final (`FINAL`)."""

        DRAFT = "draft"
        WAITING = "waiting", "waiting for approval"
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        SKIPPED = "skipped"
        REFUSED = "refused"
        EXPIRED = "expired"
        CANCELLED = "cancelled"
        LOST = "lost"

    class Verdict(models.TextChoices):
        """Whether it helped, by what was measured (`monitors/rules/verdict.py`)."""

        HELPED = "helped"
        NO_CHANGE = "no change", "No change"
        WORSE = "worse"

    FINAL = frozenset(
        {
            State.SUCCEEDED,
            State.FAILED,
            State.SKIPPED,
            State.REFUSED,
            State.EXPIRED,
            State.CANCELLED,
            State.LOST,
        }
    )

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=40)  # of the action, a key of ACTIONS
    target = models.ForeignKey(Target, on_delete=models.SET_NULL, null=True)
    target_name = models.CharField(max_length=63)
    arguments = models.JSONField(default=dict)  # as asked: strings
    identity = models.JSONField(default=dict)  # resolved: oids, names, backend times
    object_name = models.CharField(max_length=300, blank=True)  # for people
    sql = models.TextField(blank=True)  # the exact statement
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    asked_by_name = models.CharField(max_length=150)
    asked_from = models.CharField(max_length=60, blank=True)  # address, or "command"
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    reason = models.CharField(max_length=500, blank=True)
    idempotency_key = models.UUIDField(unique=True, default=uuid.uuid4)
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, null=True, related_name="actions")
    batch_position = models.PositiveSmallIntegerField(null=True)
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT)
    outcome = models.CharField(max_length=1000, blank=True)  # a sentence: what happened
    preview = models.JSONField(default=dict)  # what the guard saw: lock, conflicts, facts
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    progress = models.JSONField(default=dict)  # {phase, pct, elapsed_seconds, …}
    inverse = models.JSONField(default=dict)  # {name, arguments} where it can be undone
    effect = models.CharField(max_length=300, blank=True)
    verdict = models.CharField(max_length=10, choices=Verdict, blank=True)  # '': none (yet)
    verdict_text = models.CharField(max_length=300, blank=True)  # by which figures
    judged_at = models.DateTimeField(null=True)
    backend_pid = models.IntegerField(null=True)  # ours on the target, while it runs
    backend_start = models.DateTimeField(null=True)
    stop_asked_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    queued_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    beat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["target", "-created_at"], name="action_of_target"),
            models.Index(fields=["state"], name="action_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.object_name}".strip()

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in self.FINAL
