"""Every probe, in the order in which they are taken."""

from __future__ import annotations

from monitors.probe import Probe
from monitors.probes import (
    activity,
    bloat,
    catalogs,
    connections,
    databases,
    horizon,
    indexes,
    lock_stats,
    locks,
    logins,
    progress,
    sessions,
    settings,
    statements,
    tables,
)

PROBES: tuple[Probe, ...] = (
    activity.PROBE,
    sessions.PROBE,
    progress.PROBE,
    connections.PROBE,
    locks.PROBE,
    databases.PROBE,
    horizon.PROBE,
    statements.PROBE,
    tables.PROBE,
    indexes.PROBE,
    bloat.PROBE,
    settings.PROBE,
    logins.PROBE,
    lock_stats.PROBE,
    catalogs.PROBE,
)
