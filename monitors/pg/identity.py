"""What a server says of itself: version, role, epoch, limits and settings.

Source: https://www.postgresql.org/docs/current/functions-info.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from monitors.pg import rights

# What no right can be taken from; psycopg knows the version itself.
ALWAYS_SQL = """
SELECT current_setting('server_version') AS version_text,
       current_setting('in_hot_standby')::boolean AS in_recovery,
       current_setting('is_superuser')::boolean AS superuser,
       current_setting('max_connections')::integer AS max_connections,
       current_setting('superuser_reserved_connections')::integer
           + coalesce(current_setting('reserved_connections', true)::integer, 0) AS reserved_connections,
       pg_catalog.clock_timestamp() AS target_at
"""
# A crash starts all statistics at 0, at one moment that the shared ones then carry, to the
# microsecond; resets by hand give each of them a moment of its own.
PARTS: Mapping[str, LiteralString] = {
    "system_identifier": """
(SELECT c.system_identifier::text FROM pg_catalog.pg_control_system() AS c)""",
    "timeline": "(SELECT k.timeline_id FROM pg_catalog.pg_control_checkpoint() AS k)",
    "started_at": "pg_catalog.pg_postmaster_start_time()",
    "bgwriter_reset": "(SELECT b.stats_reset FROM pg_catalog.pg_stat_bgwriter AS b)",
    "checkpointer_start": """
(SELECT min(a.backend_start) FROM pg_catalog.pg_stat_activity AS a
  WHERE a.backend_type = 'checkpointer')""",
    "shared_reset": """
(SELECT v.stats_reset FROM pg_catalog.pg_stat_archiver AS v
   JOIN pg_catalog.pg_stat_wal AS w ON w.stats_reset = v.stats_reset)""",
    "reads_all_stats": "pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')",
    "connection_limit": """
(SELECT least(nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1))
   FROM pg_catalog.pg_roles AS r, pg_catalog.pg_database AS d
  WHERE r.rolname = current_user AND d.datname = pg_catalog.current_database()
    AND NOT r.rolsuper)""",
}
"""What a right can be taken from, each for itself: read together, one by one where that fails."""

SETTINGS = (
    "autovacuum",
    "autovacuum_analyze_scale_factor",
    "autovacuum_analyze_threshold",
    "autovacuum_freeze_max_age",
    "autovacuum_max_workers",
    "autovacuum_multixact_freeze_max_age",
    "autovacuum_naptime",
    "autovacuum_vacuum_cost_delay",
    "autovacuum_vacuum_cost_limit",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_vacuum_insert_threshold",
    "autovacuum_vacuum_max_threshold",
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_threshold",
    "autovacuum_work_mem",
    "deadlock_timeout",
    "fsync",
    "maintenance_work_mem",
    "track_activities",
    "track_counts",
    "vacuum_cost_limit",
    "vacuum_failsafe_age",
    "vacuum_multixact_failsafe_age",
)
# The view gives plain numbers in each setting's own unit, current_setting() does not.
# What the command line sets awaits no restart, whatever a file says: it wins again.
# What the login carries or Howdah sets is not the server's value, which is not known then.
SETTINGS_SQL = """
SELECT s.name, s.setting, s.pending_restart AND s.source <> 'command line' AS awaits, s.source
  FROM pg_catalog.pg_settings AS s
 WHERE s.name = ANY (%(names)s) AND s.source NOT IN ('client', 'session', 'user', 'database user')
    OR s.pending_restart
 ORDER BY s.name
"""
REFUSED = (psycopg.ProgrammingError, psycopg.NotSupportedError)
"""What a part raises that the login may not read, or that a server does not have."""
AWAITING = "pending_restart"
"""The name under which the settings that await a restart stand beside those of SETTINGS."""
WIN_OVER_FILES = ("command line", "database", "global")
"""Sources of a value that win over every file; `rules.setting` tells what that means."""
SOURCES = "sources"
"""The name under which the settings of those stand beside them, as `fsync=command line`."""


@dataclass(frozen=True)
class Identity:
    """One server at one moment."""

    server_version: int  # 180004
    version_text: str
    in_recovery: bool
    superuser: bool  # of the login that asks
    max_connections: int
    reserved_connections: int
    target_at: datetime
    system_identifier: str | None
    timeline: int | None
    started_at: datetime | None
    bgwriter_reset: datetime | None
    checkpointer_start: datetime | None
    shared_reset: datetime | None  # of archiver and WAL; None: not of both at one moment
    reads_all_stats: bool | None  # else other roles' sessions and statements are hidden from it
    connection_limit: int | None  # of the login and its database, the lower one; None: no limit
    settings: (
        dict[str, str] | None
    )  # of SETTINGS, in their own units; AWAITING -> names; SOURCES -> sources
    unknown: dict[str, str]  # what the login may not read -> why, and the GRANT that helps

    @property
    def epoch(self) -> str:
        """Three moments in UTC that tell a crash (`is_new_epoch`), '' for one that is not known."""
        return "|".join(
            moment.astimezone(UTC).isoformat() if moment else ""
            for moment in (self.bgwriter_reset, self.checkpointer_start, self.shared_reset)
        )


def is_new_epoch(before: str, after: str) -> bool:
    """Return whether all counters started at 0 between two epochs as `Identity` writes them.

    A clean restart changes the checkpointer's start alone and keeps counters;
    `pg_stat_reset_shared` changes resets alone, and at different moments. A checkpointer
    that the login may not see (its start is NULL) says nothing. Moments are compared, not
    their spelling: what was kept may be in another time zone.
    """
    return has_crashed(before, after) is True


def is_untold_epoch(before: str, after: str) -> bool:
    """Return whether nobody can tell a crash between two epochs from resets beside a clean restart."""
    return has_crashed(before, after) is None


def has_crashed(before: str, after: str) -> bool | None:
    """Return whether a server crashed between two epochs, None where that can't be told."""
    if not before or not after:
        return False
    old, new = moments(before), moments(after)
    if any(b == a or b is None or a is None for b, a in zip(old[:2], new[:2], strict=True)):
        return False
    shared = new[2:]
    if not shared:
        return True
    return None if shared[0] is None else shared != old[2:]


def moments(epoch: str) -> list[datetime | None]:
    """Return the moments of an epoch, None for one that is not known."""
    return [datetime.fromisoformat(text) if text else None for text in epoch.split("|")]


def began_at(epoch: str) -> datetime | None:
    """Return when an epoch's counters started at 0, on the target's clock; None: not known."""
    bgwriter, _checkpointer, *shared = moments(epoch)
    return shared[0] if shared else bgwriter


def read_identity(connection: psycopg.Connection, *, with_settings: bool = True) -> Identity:
    """Ask a server who it is; three short reads, no lock.

    What the login has no right to is None, and `unknown` says why. Without settings
    it costs a tenth: pg_settings works out every setting there is.
    """
    row = connection.execute(ALWAYS_SQL, binary=True).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    unknown: dict[str, str] = {}
    parts = read_parts(connection, unknown)
    settings = read_settings(connection, unknown) if with_settings else None
    values: tuple[Any, ...] = (*row, *parts, settings, unknown)
    return Identity(connection.info.server_version, *values)


def oid_of_database(connection: psycopg.Connection) -> int:
    """Return the oid of the database that a connection is in; raises psycopg.Error."""
    row = connection.execute(
        "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = current_database()",
        binary=True,
    ).fetchone()
    assert row is not None  # noqa: S101 - nobody drops a database that a connection is in
    return int(row[0])


def read_parts(connection: psycopg.Connection, unknown: dict[str, str]) -> tuple[Any, ...]:
    """Return the values of PARTS; None for one that can't be read, its reason in `unknown`."""
    parts = [sql.SQL(text) for text in PARTS.values()]
    try:
        return select(connection, parts)
    except REFUSED:
        values: list[Any] = []
    for name, part in zip(PARTS, parts, strict=True):
        try:
            values += select(connection, [part])
        except REFUSED as error:
            values.append(None)
            unknown[name] = rights.reason_with_remedy(connection, error)
    return tuple(values)


def select(connection: psycopg.Connection, parts: Sequence[sql.SQL]) -> tuple[Any, ...]:
    """Return the values of some expressions; raises psycopg.Error."""
    text = sql.SQL("SELECT {}").format(sql.SQL(", ").join(parts))
    row: tuple[Any, ...] | None = connection.execute(text, binary=True).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return row


def read_settings(connection: psycopg.Connection, unknown: dict[str, str]) -> dict[str, str] | None:
    """Return SETTINGS, what awaits a restart and which sources win over files; None with its reason in `unknown`."""
    try:
        rows = connection.execute(SETTINGS_SQL, {"names": list(SETTINGS)}).fetchall()
    except REFUSED as error:
        unknown["settings"] = rights.reason_with_remedy(connection, error)
        return None
    settings = {name: text for name, text, _awaits, _source in rows if name in SETTINGS}
    awaiting = ",".join(name for name, _text, awaits, _source in rows if awaits)
    won = [f"{name}={source}" for name, _, _, source in rows if source in WIN_OVER_FILES]
    return settings | {AWAITING: awaiting, SOURCES: ",".join(won)}
