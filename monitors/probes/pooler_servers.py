"""PgBouncer's connections to servers, with the backend's pid and the client that has it.

Source: https://www.pgbouncer.org/usage.html#show-servers
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Reading, Sample

CONSOLE = "pgbouncer"
AT_MOST = 1000
"""Connections of a snapshot: those that a client has come first."""


class PoolerServersSample(Sample):
    """One connection to a server; `ptr` is used again once it has ended."""

    ptr = models.CharField(max_length=40)
    remote_pid = models.IntegerField()  # the backend's, if a server answers and no other pooler
    state = models.TextField()
    database = models.TextField()
    user = models.TextField()
    addr = models.TextField()
    port = models.IntegerField()
    connect_time = models.TextField()  # with the name of its zone, by the pooler's clock
    link = models.TextField()  # `ptr` of its client, '' without one

    key = ("ptr",)
    facts = (
        "remote_pid",
        "state",
        "database",
        "user",
        "addr",
        "port",
        "connect_time",
        "link",
    )

    class Meta:
        abstract = True


def shape(rows: Sequence[Reading]) -> Iterable[Reading]:
    """Return the connections, those that a client has first, and no more than AT_MOST."""
    found = [row for row in rows if row["database"] != CONSOLE]
    return sorted(found, key=lambda row: not row["link"])[:AT_MOST]


PROBE = Probe(
    name="pooler_servers",
    sample=PoolerServersSample,
    show="SERVERS",
    shape=shape,
    every=timedelta(seconds=10),
    fast=True,
    rollups=False,
)
