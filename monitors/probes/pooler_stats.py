"""What PgBouncer has done for each database since it started, in counters.

Source: https://www.pgbouncer.org/usage.html#show-stats
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import models

from monitors.probe import Probe, Reading, Sample

CONSOLE = "pgbouncer"
COLUMNS = {
    "xact_count": "total_xact_count",
    "query_count": "total_query_count",
    "received_bytes": "total_received",
    "sent_bytes": "total_sent",
    "xact_time_us": "total_xact_time",
    "query_time_us": "total_query_time",
    "wait_time_us": "total_wait_time",
    "client_login_count": "total_client_login_count",
}
"""Names with their units, and the console's."""


class PoolerStatsSample(Sample):
    """One database; times are sums over all its clients."""

    database = models.TextField()
    xact_count = models.BigIntegerField()
    query_count = models.BigIntegerField()
    received_bytes = models.BigIntegerField()  # from clients
    sent_bytes = models.BigIntegerField()
    xact_time_us = models.BigIntegerField()  # that servers were in a transaction
    query_time_us = models.BigIntegerField()  # that servers ran something
    wait_time_us = models.BigIntegerField()  # that clients waited for a server
    client_login_count = models.BigIntegerField()  # None before 1.26

    key = ("database",)
    counters = tuple(COLUMNS)

    class Meta:
        abstract = True


def shape(rows: Sequence[Reading]) -> Iterable[Reading]:
    """Return the databases' counters under names that carry units."""
    return [
        {"database": row["database"], **{name: row.get(one) for name, one in COLUMNS.items()}}
        for row in rows
        if row["database"] != CONSOLE
    ]


PROBE = Probe(
    name="pooler_stats",
    sample=PoolerStatsSample,
    show="STATS",
    shape=shape,
    every=timedelta(seconds=60),
)
