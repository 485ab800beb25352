"""Where an extension is installed, and in which version: found, never assumed.

Source: https://www.postgresql.org/docs/current/catalog-pg-extension.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from monitors import words

FIND_SQL = """
SELECT e.extversion, n.nspname::text, pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname = %(name)s
"""

PLAIN_SQL = """
SELECT d.datname::text
  FROM pg_catalog.pg_database AS d
 WHERE pg_catalog.pg_encoding_to_char(d.encoding) = 'SQL_ASCII'
   AND d.datallowconn
"""

STATEMENTS = "pg_stat_statements"

ITS_FUNCTIONS: LiteralString = """\
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_depend AS d
    ON d.refclassid = 'pg_catalog.pg_extension'::regclass
   AND d.refobjid = e.oid
   AND d.classid = 'pg_catalog.pg_proc'::regclass
   AND d.deptype = 'e'
  JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid
"""

# The extension's own function: one of the same name may be anybody's.
RESET_SQL: LiteralString = (
    """
SELECT e.extversion AS version,
       n.nspname::text AS schema,
       p.pronargs AS argument_count,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usage,
       pg_catalog.has_function_privilege(p.oid, 'EXECUTE') AS execute,
       current_user::text AS rolname
"""
    + ITS_FUNCTIONS
    + """  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE e.extname = %(extension)s
   AND p.proname = 'pg_stat_statements_reset'
"""
)


@dataclass(frozen=True)
class Reset:
    """The function that resets pg_stat_statements, and whether the login may call it."""

    version: str
    schema: str
    argument_count: int
    usage: bool
    execute: bool
    rolname: str

    @property
    def needs(self) -> str:
        """The statements that give the login the right, '' where it has it."""
        user, schema = words.quoted(self.rolname), words.quoted(self.schema)
        statements = []
        if not self.usage:
            statements.append(f"GRANT USAGE ON SCHEMA {schema} TO {user};")
        if not self.execute:
            statements.append(
                f"GRANT EXECUTE ON FUNCTION {schema}.pg_stat_statements_reset TO {user};"
            )
        return " ".join(statements)


@dataclass(frozen=True)
class Installed:
    """An extension in one database."""

    version: str  # 1.11
    schema: str
    usage: bool = True  # of its schema, by the login


def no_usage(name: str, installed: Installed, dbname: str, user: str) -> str:
    """Say that an extension's schema may not be used, and the GRANT that helps."""
    schema = words.quoted(installed.schema)
    return (
        f"The schema {schema} of {name} may not be used."
        f" In the database {dbname}: GRANT USAGE ON SCHEMA {schema} TO {words.quoted(user)};"
    )


def find(connection: psycopg.Connection, name: str) -> Installed | None:
    """Return how an extension is installed in this database, None if it is not."""
    row = connection.execute(FIND_SQL, {"name": name}).fetchone()
    return Installed(*row) if row else None


def plain_databases(connection: psycopg.Connection) -> list[str]:
    """Return the databases that have no encoding: any text can be read in them."""
    return [name for (name,) in connection.execute(PLAIN_SQL).fetchall()]


def find_reset(connection: psycopg.Connection) -> Reset | None:
    """Return how pg_stat_statements is reset, None where this database does not have it."""
    with connection.cursor(row_factory=class_row(Reset)) as cursor:
        return cursor.execute(RESET_SQL, {"extension": STATEMENTS}).fetchone()


CALLABLE_SQL: LiteralString = (
    """
SELECT coalesce(bool_and(pg_catalog.has_function_privilege(p.oid, 'EXECUTE')), false)
"""
    + ITS_FUNCTIONS
    + """ WHERE e.extname = %(name)s
"""
)


def may_call(connection: psycopg.Connection, name: str) -> bool:
    """Return whether the login may execute every function of an extension in this database."""
    row = connection.execute(CALLABLE_SQL, {"name": name}).fetchone()
    return bool(row and row[0])


def in_schema(text: str, installed: Installed | None) -> sql.Composed:
    """Return a probe's text with `{schema}` as the extension's schema."""
    if installed is None:
        return sql.Composed([sql.SQL(text)])
    return sql.SQL(text).format(schema=sql.Identifier(installed.schema))
