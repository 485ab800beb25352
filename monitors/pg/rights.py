"""What a login may do on a server: roles, databases, owners, extensions.

Source: https://www.postgresql.org/docs/current/predefined-roles.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from psycopg.rows import class_row, dict_row

from monitors.pg.errors import reason_of
from monitors.pg.relations import quoted

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
       r.rolconnlimit AS connection_limit
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

# As the server decides it: who owns a table may do all to it; from 17 on a right of its own lets
# others maintain it; the owner of the database may vacuum and analyze, and not reindex or cluster.
OWNERS_SQL: LiteralString = """
SELECT r.rolname::text AS owner,
       r.rolsuper AS superuser,
       bool_and(t.owns) AS own,
       bool_and(t.maintains) AS maintain,
       bool_and(t.maintains OR t.owns_database) AS vacuum
  FROM (SELECT c.relowner,
               pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE') AS owns,
               {maintains} AS maintains,
               pg_catalog.pg_has_role(current_user, d.datdba, 'USAGE') AS owns_database
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
         WHERE c.relkind IN ('r', 'm', 'p')
           AND c.relpersistence <> 't'
           AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')) AS t
  JOIN pg_catalog.pg_roles AS r ON r.oid = t.relowner
 GROUP BY r.rolname, r.rolsuper
 ORDER BY bool_and(t.owns), r.rolsuper DESC, r.rolname
 LIMIT 20
"""
MAINTAINS: Mapping[bool, LiteralString] = {
    True: "pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')",
    False: "pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')",
}
"""By whether the server has a right of its own for it (17)."""
MAINTAIN_SINCE = 170000

BLIND_SQL = """
SELECT EXISTS (SELECT 1
                 FROM pg_catalog.pg_class AS c
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'm')
                  AND c.relpersistence <> 't'
                  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
                  AND NOT pg_catalog.has_any_column_privilege(c.oid, 'SELECT'))
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


@dataclass(frozen=True)
class Owner:
    """An owner of tables in one database, and what a login may do to all of them."""

    owner: str
    superuser: bool  # whose rights nobody should be given
    own: bool
    maintain: bool
    vacuum: bool


def table_owners(connection: psycopg.Connection) -> list[Owner]:
    """Return the owners of this database's tables, at most 20, those of others first."""
    new = connection.info.server_version >= MAINTAIN_SINCE
    text = sql.SQL(OWNERS_SQL).format(maintains=sql.SQL(MAINTAINS[new]))
    with connection.cursor(row_factory=class_row(Owner)) as cursor:
        return cursor.execute(text).fetchall()


def is_blind(connection: psycopg.Connection) -> bool:
    """Return whether this database has tables whose statistics the login may not read."""
    row = connection.execute(BLIND_SQL).fetchone()
    return bool(row and row[0])


def read_extensions(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return name and version of the extensions in the connection's database."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(EXTENSIONS_SQL).fetchall()


# The server's words end in the object's name, in any language.
REMEDY_SQL = """
SELECT g.statement
  FROM (SELECT 1 AS place,
               'GRANT USAGE ON SCHEMA ' || pg_catalog.quote_ident(n.nspname) AS statement,
               n.nspname AS name
          FROM pg_catalog.pg_namespace AS n
         WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
         UNION ALL
        SELECT 2, 'GRANT EXECUTE ON FUNCTION ' || p.oid::regprocedure::text, p.proname
          FROM pg_catalog.pg_proc AS p
         WHERE NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
         UNION ALL
        SELECT 3, 'GRANT SELECT ON ' || c.oid::regclass::text, c.relname
          FROM pg_catalog.pg_class AS c
         WHERE c.relkind IN ('r', 'v', 'm', 'p')
           AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')) AS g
 WHERE pg_catalog.right(%(words)s, pg_catalog.length(g.name::text) + 1) = ' ' || g.name::text
 ORDER BY pg_catalog.length(g.name::text) DESC, g.place, g.statement
 LIMIT 1
"""


def login_of(connection: psycopg.Connection) -> str:
    """Return the name of the role that a connection acts as."""
    row = connection.execute("SELECT current_user::text").fetchone()
    return str(row[0]) if row else ""


def remedy(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """Return the GRANT that a refused read lacks, in the connection's database; '' if unknown.

    For a connection outside of a transaction. A schema comes first: what is in it can't be
    told before it may be used.
    """
    words = error.diag.message_primary or ""
    if not isinstance(error, InsufficientPrivilege) or connection.closed:
        return ""
    try:
        row = connection.execute(REMEDY_SQL, {"words": words}).fetchone()
        login = login_of(connection)
    except psycopg.Error:
        return ""
    return f"{row[0]} TO {quoted(login)};" if row else ""


def reason_with_remedy(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """Return why a read was refused and, where it is known, the GRANT that helps."""
    reason, grant = reason_of(error), remedy(connection, error)
    if not grant:
        return reason
    where = connection.info.dbname
    return f"{reason.rstrip('.')}. In the database {where}: {grant}"


def reason_not_to_read(connection: psycopg.Connection, text: sql.Composable) -> tuple[str, str]:
    """Return why a probe's SQL can't run here and the GRANT that helps, '' where it can.

    It reads no row: columns and the right to call functions are checked before the first one.
    """
    probing = sql.SQL("SELECT * FROM ({}) AS probed LIMIT 0").format(text)
    try:
        connection.execute(probing, {})
    except psycopg.Error as error:
        return reason_of(error), remedy(connection, error)
    return "", ""
