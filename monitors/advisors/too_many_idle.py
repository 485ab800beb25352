"""Connections that rest for long and keep slots from those who would work.

Source: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors.advisor import Advisor, Finding, Samples, Thresholds, severity_of, times_of
from monitors.rules import connections
from monitors.rules.connections import IDLE

DEFAULTS = {
    "min_idle_pct": 70,  # of the clients' backends that are idle at all
    "notice_pct": 25,  # of the usable connections that have been idle for over ten minutes
    "warning_pct": 50,
}
BACKENDS = ("backends", None, 0)  # their rate in Samples.rates


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Hold those that have been idle for over ten minutes against what may be used."""
    limit = connections.usable(samples.max_connections, samples.reserved_connections)
    rows = samples.of("connections")
    used, resting = connections.taken(rows), connections.count_of(rows, "long_idle")
    idle = connections.count_of(row for row in rows if row["state"] == IDLE)
    if not limit or not used or 100 * idle / used < thresholds["min_idle_pct"]:
        return
    pct = 100 * resting / limit
    severity = severity_of(pct, thresholds, "pct")
    if severity is None:
        return
    name, most = connections.most_of(rows, "long_idle")
    yield Finding(
        advisor="too_many_idle",
        severity=severity,
        title=f"{resting:,} of {limit:,} usable connections have been idle for over 10 minutes; "
        f"{most:,} of them are of {name or 'clients without an application_name'}.",
        why="Pools that are larger than their work hold slots that nobody else can have, and the "
        "server's memory. Make the pools smaller, or let them give up what rests (SQLAlchemy: "
        "pool_size, HikariCP: minimumIdle and idleTimeout, psycopg_pool: min_size and max_idle); "
        "idle_session_timeout (14 and newer) ends what nobody pools.",
        object_name="idle connections",
        hurt=connections.exhausted(used, limit, samples.rates.get(BACKENDS), samples.now),
        evidence=(
            ("Idle for over 10 minutes", resting, "count"),
            ("Of the usable", pct, "pct"),
            ("Idle", idle, "count"),
            ("Connections", used, "count"),
        ),
        score=times_of(pct, thresholds["notice_pct"]),
    )


ADVISOR = Advisor(
    name="too_many_idle",
    subject="connections",
    defaults=DEFAULTS,
    advise=advise,
    reads=("connections",),
)
