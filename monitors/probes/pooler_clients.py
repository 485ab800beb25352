"""The clients of PgBouncer that have work: those that wait for a server, and those that have one.

There may be ten thousand, most of them with nothing to do: the pools have their number.

Source: https://www.pgbouncer.org/usage.html#show-clients
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Reading, Sample

CONSOLE = "pgbouncer"
AT_MOST = 500
"""Clients of a snapshot: those that have waited longest come first."""
WAITING = ("waiting", "waiting_cancel_req")


class PoolerClientsSample(Sample):
    """One client's connection to the pooler; `ptr` is used again once it has ended."""

    ptr = models.CharField(max_length=40)
    wait_seconds = models.FloatField()  # for a server, 0: it doesn't wait
    state = models.TextField()
    database = models.TextField()
    user = models.TextField()
    addr = models.TextField()  # `unix` of a socket
    port = models.IntegerField()
    application_name = models.TextField()
    connect_time = models.TextField()  # with the name of its zone, by the pooler's clock
    request_time = models.TextField()
    link = models.TextField()  # `ptr` of its server, '' without one
    client_id = models.BigIntegerField()  # None before 1.24

    key = ("ptr",)
    gauges = ("wait_seconds",)
    facts = (
        "state",
        "database",
        "user",
        "addr",
        "port",
        "application_name",
        "connect_time",
        "request_time",
        "link",
        "client_id",
    )

    class Meta:
        abstract = True


def shape(rows: Sequence[Reading]) -> Iterable[Reading]:
    """Return those that wait or have a server, the longest wait first, and no more than AT_MOST."""
    found = [
        {**row, "wait_seconds": wait_of(row), "client_id": row.get("id")}
        for row in rows
        if row["database"] != CONSOLE and (row["state"] in WAITING or row["link"])
    ]
    return sorted(found, key=lambda row: -row["wait_seconds"])[:AT_MOST]


def wait_of(row: Reading) -> float:
    """Return how long a client waits now; of others the console says how long the last wait took."""
    if row["state"] not in WAITING:
        return 0.0
    return float(row["wait"] + row["wait_us"] / 1e6)


PROBE = Probe(
    name="pooler_clients",
    sample=PoolerClientsSample,
    show="CLIENTS",
    shape=shape,
    every=timedelta(seconds=10),
    fast=True,
    rollups=False,
)
