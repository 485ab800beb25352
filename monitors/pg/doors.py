"""Which databases let a login in now: asked in another one, since trying costs more.

Source: https://www.postgresql.org/docs/current/catalog-pg-database.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from monitors import words
from monitors.pg.errors import DATABASE_LIMIT

# A new session takes a RowExclusiveLock on its database: it waits for whoever holds, or waits
# for, a lock that conflicts with that, and no time limit of ours is in force before it has it.
DOORS_SQL: LiteralString = """
SELECT d.oid::bigint AS datid,
       d.datname::text AS datname,
       d.datistemplate AS template,
       d.datallowconn AS allows,
       d.datconnlimit AS connection_limit,
       pg_catalog.has_database_privilege(d.oid, 'CONNECT') AS may_connect,
       current_setting('is_superuser')::boolean AS superuser,
       current_user::text AS rolname,
       {locked} AS locked
  FROM pg_catalog.pg_database AS d
"""
LOCKED: Mapping[bool, LiteralString] = {
    True: """EXISTS (SELECT 1
                 FROM pg_catalog.pg_locks AS l
                WHERE l.locktype = 'object'
                  AND l.classid = 'pg_catalog.pg_database'::regclass
                  AND l.objid = d.oid
                  AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                                 'AccessExclusiveLock'))""",
    False: "false",
}
"""By whether locks are looked at, which a login may lack the right to."""

INVALID = -2
"""What an interrupted DROP DATABASE leaves as the connection limit."""


@dataclass(frozen=True)
class Door:
    """One database as a login finds it."""

    datid: int
    datname: str
    template: bool
    allows: bool
    connection_limit: int  # -1: none
    may_connect: bool
    superuser: bool
    rolname: str
    locked: bool

    @property
    def reason(self) -> str:
        """Why nobody gets in and what helps, '' where the login does."""
        name, login = words.quoted(self.datname), words.quoted(self.rolname)
        reasons = (
            (
                self.connection_limit == INVALID,
                f"The database is invalid, its DROP was interrupted: DROP DATABASE {name};",
            ),
            (
                not self.allows,
                f"The database takes no connections: ALTER DATABASE {name} ALLOW_CONNECTIONS true;",
            ),
            (
                self.locked,
                "The database is being dropped, renamed or copied: nobody gets in until then.",
            ),
            (
                not (self.may_connect or self.superuser),
                "The login may not connect to this database:"
                f" GRANT CONNECT ON DATABASE {name} TO {login};",
            ),
            (
                self.connection_limit == 0 and not self.superuser,
                DATABASE_LIMIT.format(database=name),
            ),
        )
        return next((reason for holds, reason in reasons if holds), "")


def read_doors(connection: psycopg.Connection, *, locks: bool = True) -> dict[int, Door]:
    """Return every database of the server by its oid; raises psycopg.Error.

    Without `locks` one that is being dropped or copied looks open.
    """
    text = sql.SQL(DOORS_SQL).format(locked=sql.SQL(LOCKED[locks]))
    with connection.cursor(row_factory=class_row(Door)) as cursor:
        return {door.datid: door for door in cursor.execute(text)}
