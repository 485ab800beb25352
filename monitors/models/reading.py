"""Who reads what when, what came of it, and what was seen to happen to a server."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from monitors.models.target import Database, Target


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
    stuck = models.IntegerField(null=True)  # of activity: how many of its backends are stuck

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
        STUCK = "stuck", "backend stuck"

    target = models.ForeignKey(Target, on_delete=models.CASCADE)
    at = models.DateTimeField()  # our clock
    kind = models.CharField(max_length=10, choices=Kind)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, null=True)
    relid = models.BigIntegerField(null=True)  # of what was rewritten
    text = models.CharField(max_length=300)
    probe = models.CharField(max_length=40, blank=True, db_default="")  # whose counters were reset
    reset_at = models.DateTimeField(null=True)  # when, as the server said
    before_at = models.DateTimeField(null=True)  # since when they had counted until then
    key = models.CharField(
        max_length=120, blank=True, db_default=""
    )  # of what is marked once: a backend in a state

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["target", "key"], condition=~models.Q(key=""), name="one_mark_a_key"
            )
        ]
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
