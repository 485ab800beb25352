"""What a login may do on a server: roles, databases, owners, extensions.

Source: https://www.postgresql.org/docs/current/predefined-roles.html

Long, since half of it are texts of SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from psycopg.rows import class_row, dict_row

from monitors import words
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

# By name, so that a login that may not read pg_roles is told what it has all the same.
ROLES_SQL = """
SELECT n.name,
       pg_catalog.pg_has_role(current_user, pg_catalog.to_regrole(n.name)::oid, 'USAGE') AS has,
       pg_catalog.pg_has_role(current_user, pg_catalog.to_regrole(n.name)::oid, 'MEMBER') AS member
  FROM unnest(%(names)s::text[]) AS n (name)
"""

LOGIN_SQL = """
SELECT current_user::text AS rolname,
       current_setting('is_superuser')::boolean AS superuser
"""

ROLE_SQL = """
SELECT r.rolinherit,
       r.rolconnlimit
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
       bool_and(t.maintains OR t.owns_database) AS vacuum,
       pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER') AS member
  FROM (SELECT c.relowner,
               pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE') AS owns,
               {maintains} AS maintains,
               pg_catalog.pg_has_role(current_user, d.datdba, 'USAGE') AS owns_database
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
         WHERE {which}) AS t
  JOIN pg_catalog.pg_roles AS r ON r.oid = t.relowner
 GROUP BY r.oid, r.rolname, r.rolsuper
 ORDER BY bool_and(t.owns), r.rolsuper DESC, r.rolname
 LIMIT 20
"""
MAINTAINS: Mapping[bool, LiteralString] = {
    True: "pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')",
    False: "pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')",
}
"""By whether the server has a right of its own for it (17)."""
MAINTAIN_SINCE = 170000
INHERIT_SINCE = 160000
"""From here on a membership says for itself whether its rights are inherited."""

# A name is looked up in its schema before any right to the table counts; no role opens them all.
CLOSED_SQL: LiteralString = """
SELECT DISTINCT n.nspname::text
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE {which}
   AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
 ORDER BY 1
 LIMIT 20
"""
WHICH: Mapping[bool, LiteralString] = {
    True: "c.oid = %(relid)s::oid",
    False: """c.relkind IN ('r', 'm', 'p')
           AND c.relpersistence <> 't'
           AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')""",
}
"""By whether one relation is named: that one, or all tables of people."""

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
    inherits: bool
    """Whether it has the rights of the roles that it is a member of, where these don't say."""
    connection_limit: int | None  # -1: none; None: not known
    roles: frozenset[str]  # of PREDEFINED, those it has
    memberships: frozenset[str]  # of PREDEFINED, those it is a member of
    databases: list[dict[str, Any]]  # datname, may_connect, owns, owner

    def has(self, role: str) -> bool:
        """Return whether it has a predefined role's rights."""
        return self.superuser or role in self.roles

    def gain(self, roles: Sequence[str], server_version: int) -> str:
        """Return the statements that give it those of PREDEFINED that it lacks, '' for none."""
        lacking = {role: role in self.memberships for role in roles if not self.has(role)}
        return gaining(lacking, self, server_version)


def gaining(lacking: Mapping[str, bool], login: Rights, server_version: int) -> str:
    """Return the statements that give a login the rights of roles, '' for none.

    `lacking`: a role's quoted name -> whether the login is a member of it all the same, of which
    it inherits nothing.
    """
    if not lacking:
        return ""
    user = words.quoted(login.rolname)
    if server_version >= INHERIT_SINCE:
        plain = [role for role, member in lacking.items() if login.inherits and not member]
        told = [role for role in lacking if role not in plain]
        grants = [(plain, ""), (told, " WITH INHERIT TRUE")]
        return " ".join(
            f"GRANT {', '.join(roles)} TO {user}{how};" for roles, how in grants if roles
        )
    # A member that inherits, and has no right of it, is one by way of a role that does not.
    granted = [role for role, member in lacking.items() if login.inherits or not member]
    statements = [f"GRANT {', '.join(granted)} TO {user};"] if granted else []
    statements += [] if login.inherits else [f"ALTER ROLE {user} INHERIT;"]
    return " ".join(statements)


def read_rights(connection: psycopg.Connection) -> Rights:
    """Ask what the connection's login may do; four short reads of catalogs."""
    names = list(PREDEFINED)
    found = connection.execute(ROLES_SQL, {"names": names}).fetchall()
    login = connection.execute(LOGIN_SQL).fetchone()
    assert login is not None  # noqa: S101 - a SELECT without FROM has one row
    with connection.cursor(row_factory=dict_row) as cursor:
        databases = cursor.execute(DATABASES_SQL).fetchall()
    inherits, connection_limit = read_role(connection)
    return Rights(
        rolname=login[0],
        superuser=login[1],
        inherits=inherits,
        connection_limit=connection_limit,
        roles=frozenset(name for name, has, _ in found if has),
        memberships=frozenset(name for name, _, member in found if member),
        databases=databases,
    )


def read_role(connection: psycopg.Connection) -> tuple[bool, int | None]:
    """Return whether the login inherits by itself, and its limit of connections.

    Where it may not read pg_roles it is taken to inherit, as roles do when they are made.
    """
    try:
        row = connection.execute(ROLE_SQL).fetchone()
    except InsufficientPrivilege:
        row = None
    return (row[0], row[1]) if row else (True, None)


@dataclass(frozen=True)
class Owner:
    """An owner of tables in one database, and what a login may do to all of them."""

    owner: str
    superuser: bool  # whose rights nobody should be given
    own: bool
    maintain: bool
    vacuum: bool
    member: bool  # of the owner, whether it inherits its rights or not


def table_owners(connection: psycopg.Connection, relid: int | None = None) -> list[Owner]:
    """Return the owners of this database's tables, at most 20, those of others first.

    With a relid that relation's owner alone.
    """
    new = connection.info.server_version >= MAINTAIN_SINCE
    text = sql.SQL(OWNERS_SQL).format(
        maintains=sql.SQL(MAINTAINS[new]), which=sql.SQL(WHICH[relid is not None])
    )
    with connection.cursor(row_factory=class_row(Owner)) as cursor:
        return cursor.execute(text, {"relid": relid}).fetchall()


def closed_schemas(connection: psycopg.Connection, relid: int | None = None) -> list[str]:
    """Return the schemas of this database's tables that the login may not use, at most 20.

    With a relid that relation's schema alone.
    """
    text = sql.SQL(CLOSED_SQL).format(which=sql.SQL(WHICH[relid is not None]))
    return [name for (name,) in connection.execute(text, {"relid": relid})]


def open_schemas(schemas: Sequence[str], login: Rights, dbname: str) -> str:
    """Return the statement that lets a login use schemas of a database, '' for none."""
    if not schemas:
        return ""
    names, user = ", ".join(map(words.quoted, schemas)), words.quoted(login.rolname)
    return f"In the database {dbname}: GRANT USAGE ON SCHEMA {names} TO {user};"


def owners_need(owners: Sequence[Owner], right: str, login: Rights, server_version: int) -> str:
    """Return what gives a login a right (`own`, `maintain`, `vacuum`) to all tables of owners.

    '' where it has it.
    """
    lacking = [owner for owner in owners if not getattr(owner, right)]
    if right != "own" and server_version >= MAINTAIN_SINCE:
        return "" if owners and not lacking else login.gain(["pg_maintain"], server_version)
    lesser = {words.quoted(owner.owner): owner.member for owner in lacking if not owner.superuser}
    grant = gaining(lesser, login, server_version)
    # Membership in a superuser would give everything.
    supers = dict.fromkeys(words.quoted(owner.owner) for owner in lacking if owner.superuser)
    if not supers:
        return grant
    said = (
        f"Not the tables of the superuser {', '.join(supers)}:"
        " ALTER TABLE … OWNER TO a role that is none."
    )
    return f"{said} For the others: {grant}" if grant else said


def is_blind(connection: psycopg.Connection) -> bool:
    """Return whether this database has tables whose statistics the login may not read."""
    row = connection.execute(BLIND_SQL).fetchone()
    return bool(row and row[0])


def read_extensions(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Return name and version of the extensions in the connection's database."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(EXTENSIONS_SQL).fetchall()


# The server's words end in the object's name, in any language. No table of people's is read.
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
           AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
           AND (c.relnamespace = 'pg_catalog'::regnamespace
                OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_catalog.pg_class'::regclass
                              AND d.objid = c.oid
                              AND d.deptype = 'e'))) AS g
 WHERE pg_catalog.right(%(words)s, pg_catalog.length(g.name::text) + 1) = ' ' || g.name::text
 ORDER BY pg_catalog.length(g.name::text) DESC, g.place, g.statement
 LIMIT 1
"""


def to_run(statements: str) -> str:
    """Return `Run: GRANT … TO ….` of statements, '' for none; a sentence stays as it is."""
    if not statements.endswith(";") or not statements.startswith(("GRANT", "ALTER")):
        return statements
    return f"Run: {statements.removesuffix(';')}."


def login_of(connection: psycopg.Connection) -> str:
    """Return the name of the role that a connection acts as."""
    row = connection.execute("SELECT current_user::text").fetchone()
    return str(row[0]) if row else ""


def remedy(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """Return the GRANT that a refused read lacks, in the connection's database; '' if unknown.

    For a connection outside of a transaction. A schema comes first: what is in it can't be
    told before it may be used.
    """
    told = error.diag.message_primary or ""
    if not isinstance(error, InsufficientPrivilege) or connection.closed:
        return ""
    try:
        row = connection.execute(REMEDY_SQL, {"words": told}).fetchone()
        login = login_of(connection)
    except psycopg.Error:
        return ""
    return f"{row[0]} TO {words.quoted(login)};" if row else ""


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
