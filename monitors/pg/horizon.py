"""Who holds the horizon back in the connection's database at this moment.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

# What the probe `horizon` reads, as far as it blocks this database's own tables.
OLDEST_SQL = """
SELECT h.kind, h.holder, h.datname, h.who, h.application_name, h.state, h.since, h.active,
       greatest(pg_catalog.age(h.xid), 0)::bigint AS xmin_age
  FROM (
SELECT 'session'::text AS kind,
       coalesce(l.pid, a.pid)::text AS holder,
       a.datname::text AS datname,
       coalesce(l.usename::text, a.usename::text, a.backend_type) AS who,
       coalesce(l.application_name, a.application_name) AS application_name,
       coalesce(l.state, a.state) AS state,
       coalesce(l.xact_start, a.xact_start) AS since,
       NULL::boolean AS active,
       CASE WHEN pg_catalog.age(a.backend_xid) > coalesce(pg_catalog.age(a.backend_xmin), -1)
            THEN a.backend_xid
            ELSE coalesce(a.backend_xmin, a.backend_xid)
       END AS xid
  FROM pg_catalog.pg_stat_activity AS a
  LEFT JOIN pg_catalog.pg_stat_activity AS l
         ON l.pid = a.leader_pid AND a.backend_type = 'REPACK decoding worker'  -- 19
 WHERE a.datname = pg_catalog.current_database()
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND a.backend_type NOT IN ('walsender', 'parallel worker')
   AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
 UNION ALL
SELECT 'slot xmin', s.slot_name::text, s.database::text, s.plugin::text, NULL, s.wal_status,
       NULL, s.active, s.xmin
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.wal_status IS DISTINCT FROM 'lost'
 UNION ALL
SELECT 'prepared xact', p.gid, p.database::text, p.owner::text, NULL, NULL, p.prepared, NULL,
       p.transaction
  FROM pg_catalog.pg_prepared_xacts AS p
 WHERE p.database = pg_catalog.current_database()
 UNION ALL
SELECT 'standby feedback', r.pid::text, NULL, r.usename::text, r.application_name, r.state,
       r.backend_start, NULL, r.backend_xmin
  FROM pg_catalog.pg_stat_replication AS r) AS h
 WHERE pg_catalog.age(h.xid) > 0
 ORDER BY pg_catalog.age(h.xid) DESC
 LIMIT 1
"""


def oldest(connection: psycopg.Connection) -> dict[str, Any] | None:
    """Return the oldest holder as a row of the probe without its ids, None where nobody holds."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(OLDEST_SQL).fetchone()
