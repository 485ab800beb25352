"""Storage options of a table and what its thresholds follow from; who owns it.

Source: https://www.postgresql.org/docs/current/sql-createtable.html#SQL-CREATETABLE-STORAGE-PARAMETERS
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

TABLE_SQL = """
SELECT c.relkind::text AS relkind,
       c.reltuples::float8 AS reltuples,
       c.relpages AS relpages,
       (pg_catalog.to_jsonb(c) ->> 'relallfrozen')::bigint AS relallfrozen,
       coalesce(c.reloptions, '{}') AS reloptions,
       coalesce(t.reloptions, '{}') AS toast_reloptions,
       t.oid IS NOT NULL AS has_toast,
       r.rolname::text AS owner,
       r.rolsuper AS owner_superuser,
       pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE') AS owns,
       current_user::text AS login
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
  LEFT JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid
 WHERE c.oid = %(relid)s::oid
"""

SETTINGS_SQL = """
SELECT s.name,
       s.setting
  FROM pg_catalog.pg_settings AS s
 WHERE s.name = ANY (%(names)s)
   AND s.source NOT IN ('client', 'session', 'user', 'database user')
"""


@dataclass(frozen=True)
class TableOptions:
    """One table's options and sizes, as the catalog has them."""

    relkind: str
    reltuples: float
    relpages: int
    relallfrozen: int | None  # 18+
    reloptions: list[str]  # name=value
    toast_reloptions: list[str]
    has_toast: bool
    owner: str
    owner_superuser: bool
    owns: bool  # the login may act as the owner
    login: str

    @property
    def texts(self) -> dict[str, str]:
        """{name: text} of what is set, a TOAST table's with `toast.` before its name."""
        pairs = [("", option) for option in self.reloptions]
        pairs += [("toast.", option) for option in self.toast_reloptions]
        split = ((prefix, *option.partition("=")) for prefix, option in pairs)
        return {f"{prefix}{name}": value for prefix, name, _, value in split}


def read(connection: psycopg.Connection, relid: int) -> TableOptions | None:
    """Return a table's options, None where it is gone; one read of catalogs."""
    with connection.cursor(row_factory=class_row(TableOptions)) as cursor:
        return cursor.execute(TABLE_SQL, {"relid": relid}).fetchone()


def settings(connection: psycopg.Connection, names: Iterable[str]) -> dict[str, str]:
    """Return {name: setting} of those that the server knows, in the setting's own unit.

    What the login carries is not the server's value and left out.
    """
    rows = connection.execute(SETTINGS_SQL, {"names": list(names)}).fetchall()
    return dict(rows)
