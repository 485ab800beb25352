"""How busy a server is now: what decides whether maintenance may begin.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

# A standby that has not said how far it is counts from the start of its sending.
LOAD_SQL = """
SELECT (SELECT count(*)
          FROM pg_catalog.pg_stat_activity AS a
         WHERE a.state = 'active'
           AND a.backend_type = 'client backend'
           AND a.pid <> pg_catalog.pg_backend_pid()
           AND NOT (a.application_name LIKE 'howdah%%'
                    AND a.usename = ANY (%(logins)s::name[]))) AS active_backends,
       (SELECT count(*)
          FROM pg_catalog.pg_stat_progress_vacuum AS v
         WHERE v.pid <> ALL (%(without)s::int[])) AS running_vacuums,
       (SELECT max(pg_catalog.pg_wal_lsn_diff(
                       CASE WHEN pg_catalog.pg_is_in_recovery()
                            THEN pg_catalog.pg_last_wal_receive_lsn()
                            ELSE pg_catalog.pg_current_wal_lsn()
                       END,
                       coalesce(r.replay_lsn, r.sent_lsn)))::bigint
          FROM pg_catalog.pg_stat_replication AS r
         WHERE r.state <> 'backup') AS replay_lag_bytes
"""


@dataclass(frozen=True)
class Load:
    """What a server does at a moment."""

    active_backends: int  # clients that run a statement, without ours
    running_vacuums: int  # of anybody, autovacuum too, but not those that are left out
    replay_lag_bytes: int | None  # of the standby that is furthest behind; None: there is none


def read_load(
    connection: psycopg.Connection, logins: Collection[str], without: Collection[int] = ()
) -> Load:
    """Ask a server how busy it is, vacuums of some pids left out; one short read.

    `logins` are those by which Howdah comes.
    """
    with connection.cursor(row_factory=class_row(Load)) as cursor:
        found = cursor.execute(
            LOAD_SQL, {"logins": list(logins), "without": list(without)}, binary=True
        ).fetchone()
    assert found is not None  # noqa: S101 - a SELECT without FROM has one row
    return found
