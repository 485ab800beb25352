"""What is wrong, as it is kept."""

from __future__ import annotations

from datetime import datetime

from django.db import models

from monitors.models.target import Database, Target


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
