"""PgBouncer's admin console: what it shows, read by the names of its columns, and its few commands.

It speaks the simple protocol alone: no transaction, no parameters, no prepared statement. There is no
statement_timeout: a deadline of ours ends what takes too long. SHOW FDS holds every client up
while it answers, and is not among what is asked.

Source: https://www.pgbouncer.org/usage.html#admin-console
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import pq, sql

DATABASE = "pgbouncer"
SHOWN = frozenset({"POOLS", "STATS", "DATABASES", "CLIENTS", "SERVERS", "CONFIG"})
NOT_ADMIN = (
    "{user} may look at the console, no more. In pgbouncer.ini: admin_users = {user}, then RELOAD."
)


def version_of(connection: psycopg.Connection) -> tuple[int, str]:
    """Return the pooler's version as (12601, '1.26.1')."""
    said = connection.info.parameter_status("server_version") or ""
    return connection.info.server_version, said.removesuffix("/bouncer")


def show(connection: psycopg.Connection, what: str) -> list[dict[str, Any]]:
    """Return what the console shows, a dict a row; numbers are int.

    Within the caller's deadline; raises psycopg.Error.
    """
    if what not in SHOWN:
        message = f"SHOW {what} is not asked of a pooler."
        raise ValueError(message)
    cursor = connection.execute(sql.SQL("SHOW {}").format(sql.SQL(what)).as_bytes(None))
    rows = cursor.fetchall()
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, map(whole, row), strict=True)) for row in rows]


def whole(value: Any) -> Any:
    """Return a number that comes as numeric as the whole number that it is."""
    return int(value) if isinstance(value, Decimal) else value


def config_of(connection: psycopg.Connection) -> dict[str, str]:
    """Return the pooler's settings by name; raises as `show` does."""
    return {row["key"]: row["value"] or "" for row in show(connection, "CONFIG")}


def is_admin(config: Mapping[str, str], user: str) -> bool:
    """Tell whether a user may do more on the console than look.

    Where nobody has to say who he is, everybody may.
    """
    return config.get("auth_type") == "any" or user in listed(config.get("admin_users", ""))


def listed(users: str) -> list[str]:
    """Return the words of a setting that lists users."""
    return [word.strip().strip('"') for word in users.split(",") if word.strip()]


def lines_for(collector: str, operator: str) -> str:
    """Return the lines of pgbouncer.ini that admit Howdah's logins."""
    lines = ["[pgbouncer]", f"stats_users = {collector}"]
    if operator:
        lines.append(f"admin_users = {operator}")
    lines.append(";; both users also stand in auth_file; then RELOAD, on the console")
    return "\n".join(lines)


NOTHING_TO_END = ("is not paused", "no such database")


def is_nothing_to_end(error: psycopg.Error) -> bool:
    """Tell whether a RESUME was refused since nothing is paused: it has one SQLSTATE for all."""
    said = (error.diag.message_primary or "").lower()
    return any(words in said for words in NOTHING_TO_END)


def send(connection: psycopg.Connection, command: bytes) -> None:
    """Send a command and wait for its end, within the caller's deadline; raises psycopg.Error."""
    connection.execute(command)


def begin(connection: psycopg.Connection, command: bytes) -> None:
    """Send a command without waiting for its end (`is_done`)."""
    connection.pgconn.send_query(command)
    connection.pgconn.flush()


def is_done(connection: psycopg.Connection, seconds: float) -> bool:
    """Wait so long for the end of a command that was begun; raises psycopg.Error where it failed."""
    pgconn = connection.pgconn
    readable, _, _ = select.select([pgconn.socket], [], [], seconds)
    if readable:
        pgconn.consume_input()
    if pgconn.is_busy():
        return False
    while (result := pgconn.get_result()) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    return True
