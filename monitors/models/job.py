"""Maintenance that recurs, and its runs."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from monitors.models.action import Batch
from monitors.models.target import Target, validate_name


class Job(models.Model):
    """Maintenance that recurs: a batch in certain hours, unless a gate is closed.

    It runs with the rights that its owner has when it runs.
    """

    name = models.CharField(max_length=63, validators=[validate_name])
    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    action = models.CharField(max_length=40)  # a key of ACTIONS that several tables may have
    options = models.JSONField(default=dict, blank=True)  # its arguments beside the table: strings
    tables = models.JSONField(
        default=list, blank=True
    )  # [{database, table}]; empty: those that are due
    weekdays = ArrayField(models.SmallIntegerField(), default=list)  # 0 is Monday
    opens_at = models.TimeField()
    open_minutes = models.PositiveIntegerField(
        validators=[MinValueValidator(5), MaxValueValidator(24 * 60)]
    )
    time_zone = models.CharField(max_length=60, default="UTC")
    every_minutes = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(5), MaxValueValidator(24 * 60)]
    )  # again while the hours last; None: once each time they open
    at_once = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(4)]
    )
    max_active_backends = models.PositiveIntegerField(null=True, blank=True)  # gates; None: no gate
    max_running_vacuums = models.PositiveIntegerField(null=True, blank=True)
    max_replay_lag_bytes = models.BigIntegerField(
        null=True, blank=True, validators=[MinValueValidator(0)]
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    owner_name = models.CharField(max_length=150)
    enabled = models.BooleanField(default=True)
    next_at = models.DateTimeField(null=True, blank=True)  # when it is looked at next; None: never
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["target__name", "name"]
        constraints = [models.UniqueConstraint(fields=["target", "name"], name="one_job_a_name")]
        indexes = [models.Index(fields=["next_at"], name="job_due")]

    def __str__(self) -> str:
        return f"{self.name} on {self.target_id}"


class JobRun(models.Model):
    """One time that a job was to run: held by a gate, running, or how it ended."""

    class State(models.TextChoices):
        """The first three are not over."""

        HELD = "held"  # waits for its gates
        PREPARING = "preparing"  # a worker looks at the tables
        RUNNING = "running"
        DONE = "done"
        IDLE = "nothing to do"
        MISSED = "missed"  # the hours ended before the gates opened
        REFUSED = "refused"

    OPEN = frozenset({State.HELD, State.PREPARING, State.RUNNING})

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="runs")
    started_at = models.DateTimeField()
    closes_at = models.DateTimeField()  # the end of its hours
    state = models.CharField(max_length=14, choices=State, default=State.HELD)
    text = models.CharField(max_length=500, blank=True)  # a sentence
    batch = models.ForeignKey(Batch, on_delete=models.SET_NULL, null=True, related_name="+")
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["job", "-started_at"], name="run_of_job")]

    def __str__(self) -> str:
        return f"{self.job} at {self.started_at:%Y-%m-%d %H:%M}: {self.state}"

    @property
    def is_open(self) -> bool:
        """Whether something of it is still to come."""
        return self.state in self.OPEN
