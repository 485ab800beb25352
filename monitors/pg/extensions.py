"""Where an extension is installed, and in which version: found, never assumed.

Source: https://www.postgresql.org/docs/current/catalog-pg-extension.html
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

FIND_SQL = """
SELECT e.extversion, n.nspname::text
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname = %(name)s
"""


@dataclass(frozen=True)
class Installed:
    """An extension in one database."""

    version: str  # 1.11
    schema: str


def find(connection: psycopg.Connection, name: str) -> Installed | None:
    """Return how an extension is installed in this database, None if it is not."""
    row = connection.execute(FIND_SQL, {"name": name}).fetchone()
    return Installed(*row) if row else None


def in_schema(text: str, installed: Installed | None) -> sql.Composed:
    """Return a probe's text with `{schema}` as the extension's schema."""
    if installed is None:
        return sql.Composed([sql.SQL(text)])  # type: ignore[arg-type]
    return sql.SQL(text).format(schema=sql.Identifier(installed.schema))  # type: ignore[arg-type]
