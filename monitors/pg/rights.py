"""What a login may do on a server: roles, databases, owners, extensions.

Source: https://www.postgresql.org/docs/current/predefined-roles.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from monitors.pg.errors import reason_of

PREDEFINED = (
    "pg_monitor",
    "pg_read_all_stats",
    "pg_read_all_settings",
    "pg_signal_backend",
    "pg_stat_scan_tables",
    "pg_maintain",
    "pg_checkpoint",
    "pg_use_reserved_connections",
)

ROLES_SQL = """
SELECT r.rolname::text AS rolname,
       pg_catalog.pg_has_role(current_user, r.oid, 'USAGE') AS has
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolname = ANY (%(names)s)
"""

LOGIN_SQL = """
SELECT r.rolname::text AS rolname,
       r.rolsuper AS superuser,
       r.rolconnlimit AS connection_limit,
       r.rolvaliduntil AS valid_until
  FROM pg_catalog.pg_roles AS r
 WHERE r.rolname = current_user
"""

DATABASES_SQL = """
SELECT d.datname::text AS datname,
       pg_catalog.has_database_privilege(d.oid, 'CONNECT') AS may_connect,
       pg_catalog.pg_has_role(current_user, d.datdba, 'USAGE') AS owns,
       pg_catalog.pg_get_userbyid(d.datdba)::text AS owner
  FROM pg_catalog.pg_database AS d
 WHERE d.datallowconn
   AND NOT d.datistemplate
 ORDER BY d.datname
"""

OWNERS_SQL = """
SELECT DISTINCT r.rolname::text AS owner,
       r.rolsuper AS superuser
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
 WHERE c.relkind IN ('r', 'm', 'p')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND NOT pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')
 ORDER BY owner
 LIMIT 20
"""

EXTENSIONS_SQL = """
SELECT e.extname::text AS name,
       e.extversion::text AS version
  FROM pg_catalog.pg_extension AS e
 ORDER BY e.extname
"""


@dataclass(frozen=True)
class Rights:
    """One login on one server."""

    rolname: str
    superuser: bool
    connection_limit: int  # -1: none
    roles: frozenset[str]  # of PREDEFINED, those it has
    databases: list[dict[str, Any]]  # datname, may_connect, owns, owner

    def has(self, role: str) -> bool:
        """Return whether it has a predefined role's rights."""
        return self.superuser or role in self.roles


def read_rights(connection: psycopg.Connection) -> Rights:
    """Ask what the connection's login may do; four short reads of catalogs."""
    names = list(PREDEFINED)
    roles = {name for name, has in connection.execute(ROLES_SQL, {"names": names}) if has}
    login = connection.execute(LOGIN_SQL).fetchone()
    assert login is not None  # noqa: S101 - a session has a role
    with connection.cursor(row_factory=dict_row) as cursor:
        databases = cursor.execute(DATABASES_SQL).fetchall()
    return Rights(login[0], login[1], login[2], frozenset(roles), databases)


def foreign_owners(connection: psycopg.Connection) -> dict[str, bool]:
    """Return the owners of this database's tables that the login is no member of.

    Each with whether it is a superuser, whose rights nobody should be given.
    """
    return dict(connection.execute(OWNERS_SQL).fetchall())


def read_extensions(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return name and version of the extensions in the connection's database."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(EXTENSIONS_SQL).fetchall()


def reason_not_to_read(connection: psycopg.Connection, text: sql.Composable) -> str:
    """Return why a probe's SQL can't run here, '' where it can; it reads no row.

    Columns and the right to call functions are checked before the first row.
    """
    probing = sql.SQL("SELECT * FROM ({}) AS probed LIMIT 0").format(text)
    try:
        connection.execute(probing, {})
    except psycopg.Error as error:
        return reason_of(error)
    return ""
