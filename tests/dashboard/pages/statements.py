"""Statements as snapshots would have left them, for the pages that show them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from monitors.history import partitions
from monitors.models import HISTORY, ProbeState, Snapshot, Target
from monitors.models.history import Change
from monitors.rows.statements import COUNTERS

MINUTES = 40
"""How long the target has been read, once a minute."""


class Statements:
    """Adds statements and their samples to a target that was read each minute."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.begun = timezone.now() - timedelta(minutes=MINUTES)
        for model in (HISTORY["statements"].samples, Snapshot):
            partitions.ensure_for(model, self.begun)
            partitions.ensure_for(model, timezone.now())
        ProbeState.objects.create(
            target=target,
            probe="statements",
            state="ok",
            sequence=MINUTES,
            taken_at=timezone.now(),
            target_at=timezone.now(),
            reset_at=self.begun - timedelta(days=3),
        )
        for minute in range(MINUTES):
            self.read(minute)

    def at(self, minute: int) -> datetime:
        return self.begun + timedelta(minutes=minute, seconds=1)

    def read(self, minute: int, *, second: int = 0, **fields: Any) -> None:
        taken_at = self.at(minute) + timedelta(seconds=second)
        values = {"state": "ok", "interval_seconds": 60, "database_id": 0, **fields}
        Snapshot.objects.create(
            target_id=self.target.pk, probe="statements", taken_at=taken_at, **values
        )

    def add(self, queryid: int, *growths: dict[str, Any], **labels: Any) -> Any:
        """Add a statement with what it grew by: `minute` and counters; returns its latest row."""
        key = {"queryid": queryid, "userid": 10, "dbid": 5, "toplevel": True}
        key |= {name: labels.pop(name) for name in list(labels) if name in key}
        names = {
            "usename": "app",
            "datname": "shop",
            "query": f"SELECT $1 FROM t{queryid}",
            "since_at": self.at(0),
            "changed_at": self.at(MINUTES - 1),
            **labels,
        }
        history = HISTORY["statements"]
        latest = history.latest._default_manager.create(
            target_id=self.target.pk, database_id=0, **key, **names
        )
        for growth in growths:
            minute = growth.get("minute", 5)
            zero = dict.fromkeys(COUNTERS, 0)
            counters = {name: growth.get(name, zero[name]) for name in COUNTERS}
            history.samples._default_manager.create(
                target_id=self.target.pk,
                database_id=0,
                **key,
                taken_at=self.at(minute),
                target_at=self.at(minute),
                interval_seconds=60,
                change=growth.get("change", Change.CHANGED),
                **counters,
            )
        return latest


def grown(calls: int, ms: float, **more: Any) -> dict[str, Any]:
    """Return a growth of calls and execution time."""
    return {"calls": calls, "total_exec_time": ms, **more}
