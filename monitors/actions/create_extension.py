"""Install pg_stat_statements, which says what statements cost, or pgstattuple, which measures bloat.

Source: https://www.postgresql.org/docs/current/sql-createextension.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from monitors import words
from monitors.action import (
    Action,
    Arguments,
    Changed,
    Guarded,
    Identity,
    InvalidArguments,
    Kind,
    Measured,
    Parameter,
    Refused,
)
from monitors.pg import extensions

ALLOWED = ("pg_stat_statements", "pgstattuple")
"""An extension runs code in the server: no other is installed from here."""

PRELOADED = frozenset({"pg_stat_statements"})
"""Those that do nothing unless shared_preload_libraries loads them."""

WARNINGS = {
    "pg_stat_statements": "The view shows to members of pg_read_all_stats what everybody's"
    " statements are.",
    "pgstattuple": "Members of pg_stat_scan_tables, as pg_monitor is, may then read through any table"
    " to measure it; they see no row of it.",
}

SCHEMA_SQL = """
SELECT 1
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname = %(schema)s
"""

# Whose library is loaded is told by its settings: shared_preload_libraries
# itself is hidden from all but superusers and members of pg_read_all_settings.
FACTS_SQL = """
SELECT a.default_version AS version,
       coalesce(v.superuser, true)
       AND NOT (coalesce(v.trusted, false)
                AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'))
           AS superuser_only,
       r.rolsuper AS superuser,
       r.rolname::text AS rolname,
       pg_catalog.current_database()::text AS database,
       EXISTS (SELECT 1 FROM pg_catalog.pg_settings AS s WHERE s.name = %(setting)s) AS loaded,
       l.setting AS libraries,
       coalesce(l.pending_restart, false) AS pending_restart
  FROM pg_catalog.pg_available_extensions AS a
  JOIN pg_catalog.pg_roles AS r ON r.rolname = current_user
  LEFT JOIN pg_catalog.pg_available_extension_versions AS v
         ON v.name = a.name AND v.version = a.default_version
  LEFT JOIN pg_catalog.pg_settings AS l ON l.name = 'shared_preload_libraries'
 WHERE a.name = %(name)s
"""


@dataclass(frozen=True)
class Facts:
    """What decides whether an extension can be installed here."""

    version: str
    superuser_only: bool
    superuser: bool
    rolname: str
    database: str
    loaded: bool
    libraries: str | None  # None: hidden from the login
    pending_restart: bool


def rule(arguments: Arguments) -> None:
    """Raise InvalidArguments for an extension that is not on the list."""
    if arguments["extension"] not in ALLOWED:
        message = f"Only {', '.join(ALLOWED)} is installed from here."
        raise InvalidArguments(message)


def object_name(arguments: Arguments, identity: Identity) -> str:
    """Return `shop: pg_stat_statements`."""
    return f"{arguments['database']}: {arguments['extension']}"


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return extension and schema; raises Refused where the schema does not exist."""
    schema = arguments["schema"]
    if connection.execute(SCHEMA_SQL, {"schema": schema}).fetchone() is None:
        message = f"There is no schema {schema} in {arguments['database']}: name another one."
        raise Refused(message)
    return {"extension": arguments["extension"], "schema": schema}


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed where it is installed, Refused where it can't work or the right is missing."""
    name = identity["extension"]
    installed = extensions.find(connection, name)
    if installed is not None:
        message = (
            f"{name} {installed.version} is installed in {arguments['database']} already,"
            f" in the schema {installed.schema}: nothing is to be done."
        )
        raise Changed(message)
    facts = facts_of(connection, name)
    reason = reason_not_to_create(facts, name, statement(arguments, identity, 0).as_string(None))
    if reason:
        raise Refused(reason)
    return Guarded(
        facts=[
            ("Extension", f"{name} {facts.version}"),
            ("Database", facts.database),
            ("Schema", identity["schema"]),
            ("Loaded", loading(name)),
            ("To undo", f"DROP EXTENSION {words.quoted(name)}; in {facts.database}, by hand"),
        ],
        warnings=[WARNINGS[name]],
    )


def loading(name: str) -> str:
    """Return how its library is loaded."""
    return (
        "yes, by shared_preload_libraries" if name in PRELOADED else "when it is called: no restart"
    )


def facts_of(connection: psycopg.Connection, name: str) -> Facts:
    """Return what decides; raises Refused where the server has no such extension."""
    values = {"name": name, "setting": f"{name}.max"}
    with connection.cursor(row_factory=class_row(Facts)) as cursor:
        facts = cursor.execute(FACTS_SQL, values).fetchone()
    if facts is None:
        message = (
            f"The server has no files of {name}: install the package with its additional"
            " modules (postgresql-contrib) on the machine."
        )
        raise Refused(message)
    return facts


def reason_not_to_create(facts: Facts, name: str, statement: str) -> str:
    """Return why it can't be installed and what to do first, '' where it can."""
    unloaded = name in PRELOADED and not facts.loaded
    if unloaded and facts.pending_restart:
        return f"{name} is not loaded: shared_preload_libraries was changed, restart the server."
    if unloaded:
        return (
            f"{name} is not loaded, and without that it counts nothing. As a superuser run"
            f" {preload(facts.libraries, name)} and restart the server."
        )
    if facts.superuser_only and not facts.superuser:
        return (
            f"{name} is not a trusted extension: only a superuser may install it, {facts.rolname} is"
            f" none. Run as one, in {facts.database}: {statement};"
        )
    return ""


def preload(libraries: str | None, name: str) -> str:
    """Return the ALTER SYSTEM that adds a library; each is an element of its own."""
    if libraries is None:
        return (
            f"ALTER SYSTEM SET shared_preload_libraries = {literal(name)}; (and name in it what"
            " SHOW shared_preload_libraries; holds already)"
        )
    known = [library.strip().strip('"') for library in libraries.split(",") if library.strip()]
    listed = ", ".join(literal(library) for library in [*known, name])
    return f"ALTER SYSTEM SET shared_preload_libraries = {listed};"


def literal(text: str) -> str:
    """Return a text as SQL writes it, to be read by people."""
    return sql.Literal(text).as_string(None)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return CREATE EXTENSION; the schema is named, since our search_path is empty."""
    return sql.SQL("CREATE EXTENSION {} WITH SCHEMA {}").format(
        sql.Identifier(identity["extension"]), sql.Identifier(identity["schema"])
    )


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return the installed version, '' for none."""
    installed = extensions.find(connection, identity["extension"])
    return {"extension_version": installed.version if installed else ""}


def effect(before: Measured, after: Measured) -> str:
    """Return which version is there now."""
    version = after.get("extension_version")
    return f"version {version} is installed" if version else ""


ACTION = Action(
    name="create_extension",
    verb="Install",
    icon="actions",
    parameters=(
        Parameter(
            name="database",
            kind=Kind.DATABASE,
            required=True,
            help="the database to install it in; for pg_stat_statements one is enough, pgstattuple"
            " measures the database that it is in",
        ),
        Parameter(
            name="extension",
            kind=Kind.TEXT,
            help=f"which one: {', '.join(ALLOWED)}",
            default="pg_stat_statements",
        ),
        Parameter(
            name="schema",
            kind=Kind.TEXT,
            help="the schema to put it in",
            default="public",
        ),
    ),
    queue="long",
    right="superuser",
    statement_timeout_ms=60_000,
    lock_timeout_ms=5000,
    after=("statements", "bloat"),
    rule=rule,
    object_name=object_name,
    resolve=resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
)
