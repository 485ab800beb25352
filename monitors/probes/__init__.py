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
    pooler_clients,
    pooler_config,
    pooler_databases,
    pooler_pools,
    pooler_servers,
    pooler_stats,
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
    pooler_pools.PROBE,
    pooler_clients.PROBE,
    pooler_servers.PROBE,
    pooler_stats.PROBE,
    pooler_databases.PROBE,
    pooler_config.PROBE,
)


def probes_of(kind: str) -> list[Probe]:
    """Return the probes that read one kind of target, in their order."""
    return [probe for probe in PROBES if probe.kind == kind]
