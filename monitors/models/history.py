"""The tables that keep what probes read, four to a probe, made from its sample.

    <Subject>Sample   one row an object and change, partitioned by day
    <Subject>Latest   one row an object, values as the server last said them
    <Subject>Hour     sums, last and greatest values of an hour, partitioned by month
    <Subject>Day      the same of a day, for every object, changed or not, by year

`target_id` and `database_id` are plain numbers (no foreign key: rows are
written by COPY and dropped by partition); `database_id` is 0 where a probe
reads the whole server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from django.contrib.postgres.indexes import BrinIndex
from django.db import models

from monitors.probe import Probe, Sample
from monitors.probes import PROBES

MODULE = "monitors.models.history"


class Change(IntEnum):
    """Why a sample row was written."""

    CHANGED = 0
    APPEARED = 1  # new since the last complete snapshot: counts from 0
    BASELINE = 2  # first sight, nothing to compare with: no differences
    RESTARTED = 3  # counters started anew: differences count from 0
    UNKNOWN = 4  # counters may have been reset: no differences
    GONE = 5  # a complete snapshot no longer shows it


@dataclass(frozen=True)
class History:
    """The tables of one probe; hours and days are None where it has no rollups."""

    probe: Probe
    samples: type[models.Model]
    latest: type[models.Model]
    hours: type[models.Model] | None
    days: type[models.Model] | None

    @property
    def sample(self) -> type[Sample]:
        """The declaration that the tables come from."""
        return self.probe.sample


def nullable(sample: type[Sample], name: str) -> models.Field[Any, Any]:
    """Return a copy of a declared field that allows NULL: the server may not say."""
    field = plain(sample, name)
    field.null = True
    return field


def plain(sample: type[Sample], name: str) -> models.Field[Any, Any]:
    """Return a copy of a declared field."""
    field = sample._meta.get_field(name)
    assert isinstance(field, models.Field)  # noqa: S101 - a sample has no relations
    return field.clone()


def make_model(
    name: str, table: str, fields: dict[str, Any], *, meta: dict[str, Any]
) -> type[models.Model]:
    """Return a concrete model; `meta` are attributes of its Meta."""
    options = type("Meta", (), {"app_label": "monitors", "db_table": table, **meta})
    attributes = {"__module__": MODULE, "__doc__": f"Table {table}.", "Meta": options, **fields}
    return type(name, (models.Model,), attributes)


def place() -> dict[str, Any]:
    """Return the fields that say which target and database a row is of."""
    return {"target_id": models.IntegerField(), "database_id": models.IntegerField()}


def make_history(probe: Probe) -> History:
    """Return the four models of a probe."""
    sample = probe.sample
    subject = sample.__name__.removesuffix("Sample")
    stem = f"monitors_{probe.name}"
    key = {name: plain(sample, name) for name in sample.key}

    def values(names: Iterable[str]) -> dict[str, Any]:
        return {name: nullable(sample, name) for name in names}

    samples = make_model(
        f"{subject}Sample",
        f"{stem}_sample",
        {
            "pk": models.CompositePrimaryKey("target_id", "database_id", *sample.key, "taken_at"),
            **place(),
            **{name: plain(sample, name) for name in sample.key},
            "taken_at": models.DateTimeField(),
            "target_at": models.DateTimeField(),
            "interval_seconds": models.FloatField(null=True),
            "change": models.SmallIntegerField(),
            **values((*sample.counters, *sample.gauges, *sample.facts)),
        },
        # Rows come in the order of time, so this costs next to nothing: rollups
        # read an hour of everything by it.
        meta={"indexes": [BrinIndex(fields=["taken_at"], name=f"{probe.name}_sample_time")]},
    )
    latest = make_model(
        f"{subject}Latest",
        f"{stem}_latest",
        {
            **place(),
            **key,
            "since_at": models.DateTimeField(),
            "changed_at": models.DateTimeField(),
            "gone_at": models.DateTimeField(null=True),
            **values((*sample.counters, *sample.gauges, *sample.facts, *sample.labels)),
        },
        meta={
            "constraints": [
                models.UniqueConstraint(
                    fields=["target_id", "database_id", *sample.key],
                    name=f"{probe.name}_latest_key",
                )
            ]
        },
    )

    def rollup(unit: str) -> type[models.Model]:
        return make_model(
            f"{subject}{unit.title()}",
            f"{stem}_{unit}",
            {
                "pk": models.CompositePrimaryKey(
                    "target_id", "database_id", *sample.key, "start_at"
                ),
                **place(),
                **{name: plain(sample, name) for name in sample.key},
                "start_at": models.DateTimeField(),
                "changes": models.IntegerField(),
                "seconds": models.FloatField(),
                "restarted": models.BooleanField(),
                "gone": models.BooleanField(),  # at the end
                **({"was_gone": models.BooleanField(db_default=False)} if probe.evicts else {}),
                **values((*sample.counters, *sample.gauges)),
                **{f"{name}_max": nullable(sample, name) for name in sample.gauges},
            },
            meta={},
        )

    return History(
        probe=probe,
        samples=samples,
        latest=latest,
        hours=rollup("hour") if probe.rollups else None,
        days=rollup("day") if probe.rollups else None,
    )


HISTORY: dict[str, History] = {probe.name: make_history(probe) for probe in PROBES}
