"""Registered servers: where they are, who reads them, what they said of themselves."""

from __future__ import annotations

import re
import uuid
from datetime import datetime

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.functional import cached_property

RESERVED_NAMES = frozenset({"new", "check", "all", "export", "import", "target", "targets"})
TARGET_NAME = re.compile(r"[a-z0-9-]{1,63}")


def validate_name(name: str) -> None:
    """Raise ValidationError unless name fits a URL and is not one of its words."""
    if not TARGET_NAME.fullmatch(name):
        message = "Use 1 to 63 lower-case letters, digits and hyphens."
        raise ValidationError(message)
    if name in RESERVED_NAMES:
        message = f"{name} is a word of Howdah's own addresses. Choose another name."
        raise ValidationError(message)


class Environment(models.Model):
    """Production, staging, development or the team's own, with its policies."""

    class Colour(models.TextChoices):
        """Hues that no severity uses."""

        PLUM = "plum"
        TEAL = "teal"
        GREY = "grey"
        INDIGO = "indigo"

    name = models.CharField(max_length=40, unique=True, validators=[validate_name])
    colour = models.CharField(max_length=10, choices=Colour, default=Colour.INDIGO)
    position = models.SmallIntegerField(default=100)
    protected = models.BooleanField(default=False)  # VACUUM FULL needs a second person
    reason_required = models.BooleanField(default=False)
    thresholds = models.JSONField(default=dict, blank=True)  # {advisor: {name: number}}

    class Meta:
        ordering = ["position", "name"]

    def __str__(self) -> str:
        return self.name


class Fleet(models.Model):
    """What holds for every target unless its environment or itself says otherwise: one row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    thresholds = models.JSONField(default=dict, blank=True)  # {advisor: {name: number}}
    rules_off = models.BooleanField(default=False, db_default=False)  # no standing rule acts

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_fleet")]

    def __str__(self) -> str:
        return "the fleet"


class Target(models.Model):
    """One PostgreSQL server, reached at a host and port."""

    class Kind(models.TextChoices):
        """What speaks at the address."""

        POSTGRES = "postgres", "PostgreSQL"
        PGBOUNCER = "pgbouncer", "PgBouncer"

    class SSLMode(models.TextChoices):
        """libpq's sslmode; weaker than verify-full carries a badge."""

        DISABLE = "disable"
        ALLOW = "allow"
        PREFER = "prefer"
        REQUIRE = "require"
        VERIFY_CA = "verify-ca"
        VERIFY_FULL = "verify-full"

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.POSTGRES)
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField(
        default=5432, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    dbname = models.CharField(max_length=63, default="postgres")  # where to enter
    user = models.CharField(max_length=63)  # the collector login
    operator_user = models.CharField(max_length=63, blank=True)
    allow_superuser = models.BooleanField(default=False)  # as operator
    sslmode = models.CharField(max_length=12, choices=SSLMode, default=SSLMode.VERIFY_FULL)
    require_auth = models.CharField(
        max_length=100,
        blank=True,
        validators=[RegexValidator(r"^!?[a-z0-9-]+(,!?[a-z0-9-]+)*$")],
    )  # empty: the default for the sslmode
    include = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    exclude = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT)
    tags = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    intervals = models.JSONField(default=dict, blank=True)  # {probe: seconds}
    cores = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(4096)]
    )  # of its machine, as people say: SQL can't read it
    enabled = models.BooleanField(default=True)
    demo = models.BooleanField(default=False)  # the demonstration says what it is
    deleting_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # What its server last said of itself (pg/identity.py), None before the first contact.
    server_version = models.IntegerField(null=True, blank=True)  # 180004
    version_text = models.CharField(max_length=60, blank=True)  # "18.4 (Debian …)"
    system_identifier = models.CharField(max_length=20, blank=True)
    timeline = models.IntegerField(null=True, blank=True)
    in_recovery = models.BooleanField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)  # pg_postmaster_start_time()
    epoch = models.CharField(max_length=120, blank=True)  # changes with a crash restart
    max_connections = models.IntegerField(null=True, blank=True)
    reserved_connections = models.IntegerField(null=True, blank=True)  # superuser_ and reserved_
    settings = models.JSONField(default=dict, blank=True)  # {name: text}, pg/identity.py's list
    history_bytes = models.BigIntegerField(null=True, blank=True)  # its share of our own history
    history_daily_bytes = models.BigIntegerField(null=True, blank=True)  # and of its last whole day
    watching_pct = models.FloatField(null=True, blank=True)  # of one core, over the last hour
    frozen_reason = models.CharField(max_length=300, blank=True)  # another server answered
    thresholds = models.JSONField(default=dict, blank=True)  # {advisor: {name: number}}

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def logins(self) -> frozenset[str]:
        """The roles by which Howdah itself comes."""
        return frozenset({self.user, self.operator_user} - {""})

    @cached_property
    def databases_by_id(self) -> dict[int, Database]:
        """Its databases by our own id, dropped ones too, as they were when first asked for."""
        return {one.pk: one for one in Database.objects.filter(target=self)}

    def databases_at(self, at: datetime | None = None) -> dict[int, Database]:
        """Return the databases that are watched, by our own id.

        With `at`, those that were not dropped then: which of them were watched, rows tell.
        """
        return {
            pk: one
            for pk, one in self.databases_by_id.items()
            if (one.included and one.gone_at is None)
            or (at is not None and (one.gone_at is None or one.gone_at > at))
        }

    @property
    def address(self) -> str:
        """`host:port`, brackets around an IPv6 address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def major(self) -> int | None:
        """18, or None before the first contact."""
        return self.server_version // 10000 if self.server_version else None


class TargetSecret(models.Model):
    """A login's password in a sealed box; no query on targets touches it."""

    class Login(models.TextChoices):
        """Which of the two logins."""

        COLLECTOR = "collector"
        OPERATOR = "operator"

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    login = models.CharField(max_length=10, choices=Login)
    sealed = models.BinaryField()
    key_id = models.CharField(max_length=16)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["target", "login"], name="one_secret_a_login")
        ]

    def __str__(self) -> str:
        return f"{self.login} of target {self.target_id}"


class Database(models.Model):
    """One database of a target, as its server last listed it."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    datid = models.BigIntegerField()
    datname = models.CharField(max_length=63)  # a dropped one's may be another one's by now
    included = models.BooleanField(default=True)  # by the target's patterns
    gone_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["datname"]
        constraints = [
            models.UniqueConstraint(fields=["target", "datid"], name="one_row_a_database")
        ]

    def __str__(self) -> str:
        return self.datname


class TargetFacts(models.Model):
    """What a target's server said of itself from a moment on, until the next row's."""

    NAMES = (
        "server_version",
        "version_text",
        "in_recovery",
        "max_connections",
        "reserved_connections",
        "settings",
    )

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    at = models.DateTimeField()  # our clock: when it was read first
    facts = models.JSONField()  # {one of NAMES: the target's column}

    class Meta:
        indexes = [models.Index(fields=["target", "-at"], name="facts_of_target")]

    def __str__(self) -> str:
        return f"facts of {self.target_id} from {self.at:%Y-%m-%d %H:%M:%S}"


class TargetCheck(models.Model):
    """A connection test that a worker carries out; made by POST, read by GET.

    `draft` holds the address and options (never a password); the passwords
    stand sealed beside it until the check is done, and '' in their place after it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    target = models.ForeignKey(Target, on_delete=models.CASCADE, null=True)
    draft = models.JSONField(default=dict)
    sealed = models.JSONField(default=dict)  # {login: base64 sealed box}
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    asked_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True)
    result = models.JSONField(default=dict)  # what `monitors.targets.check.check` returns
    error = models.CharField(max_length=500, blank=True)

    def __str__(self) -> str:
        return f"check {self.id}"
