"""PgBouncer's pools: how many clients wait for how many servers, and how long the first of them has.

Source: https://www.pgbouncer.org/usage.html#show-pools
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Reading, Sample

CONSOLE = "pgbouncer"
"""The pool of the console itself, in which Howdah's own sessions are."""


class PoolerPoolsSample(Sample):
    """One pair of database and user."""

    database = models.TextField()  # the pooler's name of it
    user = models.TextField()
    cl_active = models.IntegerField()  # linked to a server, or with nothing to do
    cl_waiting = models.IntegerField()  # have sent a query that no server runs yet
    sv_active = models.IntegerField()
    sv_idle = models.IntegerField()
    sv_used = models.IntegerField()  # idle for so long that they are tested before use
    sv_tested = models.IntegerField()
    sv_login = models.IntegerField()
    maxwait_seconds = models.FloatField()  # of who has waited longest; 0: nobody waits
    pool_mode = models.TextField()

    key = ("database", "user")
    gauges = (
        "cl_active",
        "cl_waiting",
        "sv_active",
        "sv_idle",
        "sv_used",
        "sv_tested",
        "sv_login",
        "maxwait_seconds",
    )
    facts = ("pool_mode",)

    class Meta:
        abstract = True


def shape(rows: Sequence[Reading]) -> Iterable[Reading]:
    """Return the pools without that of the console, with the wait in one number."""
    return [
        {**row, "maxwait_seconds": row["maxwait"] + row.get("maxwait_us", 0) / 1e6}
        for row in rows
        if row["database"] != CONSOLE
    ]


PROBE = Probe(
    name="pooler_pools",
    sample=PoolerPoolsSample,
    show="POOLS",
    shape=shape,
    every=timedelta(seconds=10),
    fast=True,
)
