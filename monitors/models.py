"""Targets, what is known of them, who may do what, what was done."""

from __future__ import annotations

import re
import uuid
from datetime import datetime

from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property

from monitors.samples import HISTORY  # its classes belong to this module

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


class Lease(models.Model):
    """Who reads a target's fast or slow probes now, and when they are next due."""

    class Kind(models.TextChoices):
        """Small reads every few seconds, and all others."""

        FAST = "fast"
        SLOW = "slow"

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    kind = models.CharField(max_length=4, choices=Kind)
    due_at = models.DateTimeField(default=timezone.now)
    claim = models.UUIDField(null=True)  # of the task that holds it
    expires_at = models.DateTimeField(null=True)
    slot = models.SmallIntegerField(default=0)  # worker that has its connections
    failures = models.IntegerField(default=0)  # in a row; opens the circuit

    class Meta:
        constraints = [models.UniqueConstraint(fields=["target", "kind"], name="one_lease_a_kind")]
        indexes = [models.Index(fields=["due_at"], name="lease_due")]

    def __str__(self) -> str:
        return f"{self.kind} lease of target {self.target_id}"


class WorkerBeat(models.Model):
    """Sign of life of one worker process, written by its heartbeat thread."""

    name = models.CharField(max_length=100, unique=True)  # role@host:pid
    role = models.CharField(max_length=20)  # snapshots, signals, requests, long
    slot = models.SmallIntegerField(null=True)  # of a snapshots worker
    beat_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Snapshot(models.Model):
    """One attempt of a probe on a target or one of its databases."""

    class State(models.TextChoices):
        """How the attempt ended."""

        OK = "ok"
        FAILED = "failed"  # the read raised
        DENIED = "denied"  # a right is missing
        UNSUPPORTED = "unsupported"  # not on this version, or no extension
        TIMEOUT = "timeout"
        UNREACHABLE = "unreachable"  # no connection
        SUPERSEDED = "superseded"  # another snapshot was stored first: nothing was kept of it

    pk = models.CompositePrimaryKey("target_id", "database_id", "probe", "taken_at")
    target_id = models.IntegerField()
    database_id = models.IntegerField()  # 0: the whole server
    probe = models.CharField(max_length=30)
    taken_at = models.DateTimeField()  # our clock; the partition key
    target_at = models.DateTimeField(null=True)  # the target's clock_timestamp()
    state = models.CharField(max_length=12, choices=State)
    reason = models.CharField(max_length=500, blank=True)
    interval_seconds = models.FloatField()  # the rhythm it was taken in
    rows = models.IntegerField(default=0)
    stored = models.IntegerField(default=0)
    evicted = models.IntegerField(default=0)  # rounds of eviction since the last snapshot
    client_ms = models.FloatField(default=0)
    target_ms = models.FloatField(default=0)

    def __str__(self) -> str:
        return (
            f"{self.probe} of {self.target_id} at {self.taken_at:%Y-%m-%d %H:%M:%S}: {self.state}"
        )


class ProbeState(models.Model):
    """Where a probe stands on a target or database: its last snapshot and next turn."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, null=True)
    probe = models.CharField(max_length=30)
    due_at = models.DateTimeField(default=timezone.now)
    sequence = models.BigIntegerField(default=0)  # of the last stored snapshot
    taken_at = models.DateTimeField(null=True)  # last good one, our clock
    target_at = models.DateTimeField(null=True)  # last good one, the target's
    ended_at = models.DateTimeField(null=True)  # when its rows had been read, the target's clock
    unrolled_at = models.DateTimeField(
        null=True
    )  # first snapshot that hours and days lack, or None
    state = models.CharField(max_length=12, choices=Snapshot.State, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    failing_since = models.DateTimeField(null=True)
    rows = models.IntegerField(default=0)
    epoch = models.CharField(max_length=120, blank=True)
    reset_at = models.DateTimeField(null=True)  # stats_reset of what it reads
    reset_counter = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["target", "database", "probe"],
                name="one_state_a_probe",
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        return f"{self.probe} of {self.target_id}: {self.state}"


class Coverage(models.Model):
    """How much of an hour a probe's good snapshots cover; outlives the snapshots."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, null=True)
    probe = models.CharField(max_length=30)
    hour = models.DateTimeField()
    covered_seconds = models.FloatField()
    spanned_seconds = models.FloatField(default=0)  # what its differences took, also over a gap
    failed = models.IntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["target", "database", "probe", "hour"],
                name="one_coverage_an_hour",
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        return f"{self.probe} of {self.target_id} in {self.hour:%Y-%m-%d %H}h"


class Mark(models.Model):
    """Something that happened to a target and stands on every chart.

    Actions are marks too; their own rows say so (`Action`).
    """

    class Kind(models.TextChoices):
        """What happened."""

        RESTART = "restart"
        CRASH = "crash", "crash restart"
        RESET = "reset", "statistics reset"
        PROMOTION = "promotion"
        UPGRADE = "upgrade"
        REWRITE = "rewrite"
        SETTING = "setting", "settings changed"

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    at = models.DateTimeField()  # our clock
    kind = models.CharField(max_length=10, choices=Kind)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, null=True)
    relid = models.BigIntegerField(null=True)  # of what was rewritten
    text = models.CharField(max_length=300)

    class Meta:
        indexes = [models.Index(fields=["target", "at"], name="mark_of_target")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.target_id} at {self.at:%Y-%m-%d %H:%M:%S}"


class SettingChange(models.Model):
    """One setting that two snapshots of a target show differently; kept as long as the target.

    `before` and `after` hold the probe's columns, None where the server had no such setting.
    Not every row is a change that people are told of (`setting.what_changed`): all together
    they lead from the settings of now back to those of any moment.
    """

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    at = models.DateTimeField()  # our clock: the snapshot that shows it first
    before_at = models.DateTimeField()  # the last good snapshot before
    name = models.CharField(max_length=100)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)

    class Meta:
        indexes = [models.Index(fields=["target", "-at"], name="setting_change_of_target")]

    def __str__(self) -> str:
        return f"{self.name} of {self.target_id} at {self.at:%Y-%m-%d %H:%M:%S}"


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


class Relabelled(models.Model):
    """What an object was called, and which options it had, until a snapshot showed others.

    Samples keep numbers; a probe's labels stand in `latest` alone. Kept as long as samples.
    """

    target_id = models.IntegerField()
    database_id = models.IntegerField()
    probe = models.CharField(max_length=30)
    key = models.BigIntegerField()  # the value of the sample's only key column
    at = models.DateTimeField()  # our clock: the snapshot that showed others
    labels = models.JSONField()  # those that changed, as they were before

    class Meta:
        indexes = [
            models.Index(fields=["target_id", "probe", "at"], name="relabelled_of_target"),
            models.Index(fields=["at"], name="relabelled_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.probe} {self.key} of {self.target_id} until {self.at:%Y-%m-%d %H:%M:%S}"


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


class Batch(models.Model):
    """One action on several tables: a list that is frozen at its preview, an `Action` for each.

    Its rows run one after another (`at_once`); each has its own outcome.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=40)  # of the action, a key of ACTIONS
    target = models.ForeignKey(Target, on_delete=models.SET_NULL, null=True)
    target_name = models.CharField(max_length=63)
    options = models.JSONField(default=dict)  # arguments beside the table: strings
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


class FindingRecord(models.Model):
    """The life of one finding: opened, seen again and again, put aside, resolved.

    Times are of our clock. What an advisor says now stands in the columns that a
    `monitors.advisor.Finding` has; the rest is what became of it.
    """

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    advisor = models.CharField(max_length=40)
    object_key = models.CharField(max_length=400)  # Finding.object_key
    database = models.ForeignKey(Database, on_delete=models.CASCADE, null=True)
    relid = models.BigIntegerField(null=True)
    pid = models.IntegerField(null=True)
    backend_start = models.DateTimeField(null=True)
    part = models.CharField(max_length=10, blank=True)
    object_name = models.CharField(max_length=300)
    severity = models.SmallIntegerField()  # monitors.advisor.Severity
    worst = models.SmallIntegerField()  # the worst that it ever was
    title = models.TextField()
    why = models.TextField()
    evidence = models.JSONField(default=list)  # [[label, value, unit]]; times in ISO 8601
    action = models.CharField(max_length=40, blank=True)
    arguments = models.JSONField(default=dict)
    score = models.FloatField(default=0)
    hurts_at = models.DateTimeField(null=True)  # of what hurts already: since when
    hurts_already = models.BooleanField(default=False)
    hurts = models.TextField(blank=True)  # what happens then, or why there is no date
    first_seen_at = models.DateTimeField()  # when what it was judged by was read
    opened_at = models.DateTimeField(null=True)  # None: hasn't lasted long enough so far
    seen_at = models.DateTimeField()  # last read and still so
    resolved_at = models.DateTimeField(null=True)
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    acknowledged_reason = models.CharField(max_length=500, blank=True)
    snoozed_at = models.DateTimeField(null=True)
    snoozed_by = models.CharField(max_length=150, blank=True)
    snoozed_reason = models.CharField(max_length=500, blank=True)
    snoozed_until = models.DateTimeField(null=True)
    quiet_severity = models.SmallIntegerField(null=True)  # as it was put aside; worse counts again
    previous = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["target", "advisor", "object_key"],
                condition=models.Q(resolved_at__isnull=True),
                name="one_open_finding",
            )
        ]
        indexes = [
            models.Index(fields=["target", "-opened_at"], name="finding_of_target"),
            models.Index(fields=["resolved_at"], name="finding_resolved"),
        ]

    def __str__(self) -> str:
        return f"{self.advisor} of {self.target_id}: {self.title}"


class FindingVersion(models.Model):
    """What a finding said until a judgement said something else; kept as long as samples.

    Of the advisors that workers alone run each change, of others those of the severity:
    what they said is judged again from the samples.
    """

    finding = models.ForeignKey(FindingRecord, on_delete=models.CASCADE, related_name="versions")
    at = models.DateTimeField()  # our clock: the first moment of what came after
    columns = models.JSONField()  # of the finding, as they were

    class Meta:
        indexes = [
            models.Index(fields=["finding", "at"], name="version_of_finding"),
            models.Index(fields=["at"], name="version_by_age"),
        ]

    def __str__(self) -> str:
        return f"finding {self.finding_id} until {self.at:%Y-%m-%d %H:%M:%S}"

    def take_back(self, row: FindingRecord) -> None:
        """Give a finding in memory the columns that it had."""
        for name, value in self.columns.items():
            is_moment = isinstance(FindingRecord._meta.get_field(name), models.DateTimeField)
            setattr(row, name, datetime.fromisoformat(value) if is_moment and value else value)


class VacuumRun(models.Model):
    """Vacuums or analyzes of one table that ran between two snapshots: one of them, or several.

    Times are the target's; what is not known is None. `vacuum_runs` writes them.
    """

    class Kind(models.TextChoices):
        """What ran, as PostgreSQL counts it; the last four it doesn't: they are seen while they run, or by a new file."""

        VACUUM = "vacuum", "VACUUM"
        AUTOVACUUM = "autovacuum"
        ANALYZE = "analyze", "ANALYZE"
        AUTOANALYZE = "autoanalyze"
        VACUUM_FULL = "vacuum_full", "VACUUM FULL"
        CLUSTER = "cluster", "CLUSTER"
        REPACK = "repack", "REPACK"
        REWRITE = "rewrite"  # a new file, by whatever wrote it

    class Exactness(models.TextChoices):
        """How it is known."""

        TIMED = "timed"  # one ran, and its end is exact
        COUNTED = "counted"  # several ran: the last one's end is exact, of the others nothing is
        SEEN = "seen"  # seen while it ran; its end lies between two looks

    target_id = models.IntegerField()
    database_id = models.IntegerField()
    relid = models.BigIntegerField()
    schemaname = models.TextField(null=True)
    relname = models.TextField(null=True)
    relkind = models.CharField(max_length=1, null=True)
    kind = models.CharField(max_length=12, choices=Kind)
    exactness = models.CharField(max_length=8, choices=Exactness)
    count = models.IntegerField(default=1)
    after_at = models.DateTimeField(null=True)  # all of them ended after it
    started_at = models.DateTimeField(null=True)  # of the last one
    start_is_estimate = models.BooleanField(default=False)  # first seen then
    ended_at = models.DateTimeField()  # of the last one
    seconds = models.FloatField(null=True)  # of all `count` together
    wraparound = models.BooleanField(null=True)
    by = models.CharField(max_length=150, blank=True)  # autovacuum, a person, a role; '': unknown
    action_id = models.UUIDField(null=True)  # where it was done through Howdah
    n_dead_before = models.BigIntegerField(null=True)  # at the snapshot before
    n_dead_after = models.BigIntegerField(null=True)  # at the snapshot after
    size_before = models.BigIntegerField(null=True)  # bytes
    size_after = models.BigIntegerField(null=True)
    passes = models.IntegerField(null=True)  # over the indexes, at least so many
    phases = models.JSONField(default=dict)  # {phase: seconds between its first and last sight}
    seen_at = models.DateTimeField()  # our clock, when what is after it was read

    class Meta:
        ordering = ["-ended_at"]
        indexes = [
            models.Index(fields=["target_id", "-ended_at"], name="vacuum_run_of_target"),
            models.Index(
                fields=["target_id", "database_id", "relid", "-ended_at"],
                name="vacuum_run_of_table",
            ),
            models.Index(fields=["seen_at"], name="vacuum_run_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.relid} at {self.ended_at:%Y-%m-%d %H:%M:%S}"


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


__all__ = [
    "HISTORY",
    "RESERVED_NAMES",
    "TARGET_NAME",
    "Action",
    "AuditEntry",
    "Batch",
    "Coverage",
    "Database",
    "Environment",
    "FindingRecord",
    "FindingVersion",
    "Fleet",
    "Grant",
    "Job",
    "JobRun",
    "Lease",
    "Mark",
    "ProbeState",
    "Relabelled",
    "SettingChange",
    "Snapshot",
    "Target",
    "TargetCheck",
    "TargetFacts",
    "TargetSecret",
    "VacuumRun",
    "WorkerBeat",
    "validate_name",
]
