"""When a backend is stuck, the rules that act on it by themselves, and what they did."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from monitors.models.action import Action
from monitors.models.target import Environment, Target, validate_name

MONTH_SECONDS = 31 * 24 * 3600


def seconds() -> models.FloatField[float | None, float | None]:
    """Return a column for a limit; None: never."""
    return models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MONTH_SECONDS)],
    )


class StuckDefinition(models.Model):
    """Limits for the backends of an application, user or database; a change ends one and makes another.

    So what held at a past moment is still there. What no definition names is judged by
    its target's thresholds.
    """

    application_name = models.CharField(max_length=100, blank=True)  # globs; '' fits all
    usename = models.CharField(max_length=100, blank=True)
    datname = models.CharField(max_length=100, blank=True)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, null=True, blank=True)
    running = seconds()
    blocked = seconds()
    blocking = seconds()
    idle_in_transaction = seconds()
    made_at = models.DateTimeField(default=timezone.now)
    made_by = models.CharField(max_length=150)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["application_name", "usename", "datname", "pk"]
        constraints = [
            models.UniqueConstraint(
                F("application_name"),
                F("usename"),
                F("datname"),
                F("environment"),
                condition=Q(ended_at__isnull=True),
                nulls_distinct=False,
                name="one_stuck_definition",
            ),
            models.CheckConstraint(
                condition=~Q(application_name="", usename="", datname=""),
                name="stuck_definition_names_something",
            ),
        ]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.application_name, self.usename, self.datname)))


class StandingRule(models.Model):
    """What is done by itself to backends that are stuck so; in shadow it only says what it would have done.

    It acts with the rights that its owner has when it fires.
    """

    class State(models.TextChoices):
        """What a backend has to be stuck in."""

        RUNNING = "running", "running one statement"
        BLOCKED = "blocked", "waiting for a lock"
        BLOCKING = "blocking", "keeping others waiting"
        IDLE = "idle_in_transaction", "idle in transaction"

    class Does(models.TextChoices):
        """Which action it asks for."""

        CANCEL = "cancel_backend", "cancel"
        RELEASE = "release_backend", "cancel, then terminate"

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    enabled = models.BooleanField(default=True)
    shadow = models.BooleanField(default=True)
    target = models.ForeignKey(Target, on_delete=models.CASCADE, null=True, blank=True)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, null=True, blank=True)
    application_name = models.CharField(max_length=100, blank=True)  # globs; '' fits all
    usename = models.CharField(max_length=100, blank=True)
    datname = models.CharField(max_length=100, blank=True)
    state = models.CharField(max_length=20, choices=State, default=State.RUNNING)
    seconds = models.FloatField(
        validators=[MinValueValidator(5), MaxValueValidator(MONTH_SECONDS)]
    )  # over which it fires
    load_per_core = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.1), MaxValueValidator(1000)]
    )  # only while more sessions a core are active; None: always
    connections_pct = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )  # only while more of the usable connections are in use; None: always
    action = models.CharField(max_length=20, choices=Does, default=Does.CANCEL)
    at_most = models.PositiveSmallIntegerField(
        default=6, validators=[MinValueValidator(1), MaxValueValidator(20)]
    )  # firings an hour, over all targets
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    owner_name = models.CharField(max_length=150)
    matched_at = models.DateTimeField(default=timezone.now)  # since when it matches as it does
    note = models.CharField(max_length=300, blank=True)  # why it last held back
    noted_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(target__isnull=True) | Q(environment__isnull=True),
                name="one_scope_of_a_rule",
            )
        ]

    def __str__(self) -> str:
        return self.name


class StandingRuleFiring(models.Model):
    """One backend in one state that a rule fired on, or would have; each once."""

    class Result(models.TextChoices):
        """What came of it."""

        WOULD = "would", "would have"
        ASKED = "asked"
        REFUSED = "refused"

    rule = models.ForeignKey(StandingRule, on_delete=models.CASCADE, related_name="firings")
    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    at = models.DateTimeField(default=timezone.now)
    result = models.CharField(max_length=10, choices=Result)
    pid = models.IntegerField()
    backend_start = models.DateTimeField()
    since = models.DateTimeField()  # of its statement, or of its state: both of the target's clock
    application_name = models.TextField(blank=True)
    usename = models.TextField(blank=True)
    datname = models.TextField(blank=True)
    query = models.TextField(blank=True)  # without literals
    why = models.CharField(max_length=300)
    action = models.ForeignKey(Action, on_delete=models.SET_NULL, null=True, related_name="+")

    class Meta:
        ordering = ["-at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "target", "pid", "backend_start", "since", "result"],
                name="once_a_statement",
            )
        ]
        indexes = [
            models.Index(fields=["rule", "-at"], name="firing_of_rule"),
            models.Index(fields=["at"], name="firing_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.rule_id} {self.result} {self.pid} at {self.at:%Y-%m-%d %H:%M:%S}"
