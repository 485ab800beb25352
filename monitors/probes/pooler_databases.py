"""The databases that PgBouncer hands out: where they are, and how many connections they may have.

Source: https://www.pgbouncer.org/usage.html#show-databases
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Reading, Sample

CONSOLE = "pgbouncer"


class PoolerDatabasesSample(Sample):
    """One entry of [databases], or one that `*` stands for and somebody used."""

    name = models.TextField()
    current_connections = models.IntegerField()
    pool_size = models.IntegerField()  # of each pair with a user
    min_pool_size = models.IntegerField()
    reserve_pool_size = models.IntegerField()
    max_connections = models.IntegerField()  # of all its pools, 0: no limit
    current_client_connections = models.IntegerField()  # None before 1.24, as the next one
    max_client_connections = models.IntegerField()
    paused = models.BooleanField()
    disabled = models.BooleanField()
    host = models.TextField()  # None: a socket on the pooler's machine
    port = models.IntegerField()
    database = models.TextField()  # the server's name of it
    force_user = models.TextField()
    pool_mode = models.TextField()  # None: as the whole pooler has it

    key = ("name",)
    gauges = (
        "current_connections",
        "pool_size",
        "min_pool_size",
        "reserve_pool_size",
        "max_connections",
        "current_client_connections",
        "max_client_connections",
    )
    facts = ("paused", "disabled")
    labels = ("host", "port", "database", "force_user", "pool_mode")

    class Meta:
        abstract = True


def shape(rows: Sequence[Reading]) -> Iterable[Reading]:
    """Return the databases without the console; `reserve_pool` is an older name."""
    return [
        {
            **row,
            "reserve_pool_size": row.get("reserve_pool_size", row.get("reserve_pool")),
            "paused": bool(row["paused"]),
            "disabled": bool(row["disabled"]),
        }
        for row in rows
        if row["name"] != CONSOLE
    ]


PROBE = Probe(
    name="pooler_databases",
    sample=PoolerDatabasesSample,
    show="DATABASES",
    shape=shape,
    every=timedelta(seconds=10),
    fast=True,
)
