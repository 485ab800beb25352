"""PgBouncer's admin console: what it shows, read by the names of its columns, and its few commands.

It speaks the simple protocol alone: no transaction, no parameters, no prepared statement. There is no
statement_timeout: a deadline of ours ends what takes too long. SHOW FDS holds every client up
while it answers, and is not among what is asked.

Source: https://www.pgbouncer.org/usage.html#admin-console
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from monitors.pg import connect, dial, text
from monitors.pg.connect import Address
from monitors.pg.errors import Unreachable

DATABASE = "pgbouncer"
SHOWN = frozenset({"POOLS", "STATS", "DATABASES", "CLIENTS", "SERVERS", "CONFIG"})
NOT_ADMITTED = "PgBouncer does not let {user} into its console. In pgbouncer.ini: stats_users = {user}, then RELOAD."
NO_LOGIN = "Password authentication failed: PgBouncer refuses {user}, or does not know it: check the password, and auth_file."
NOT_ADMIN = (
    "{user} may look at the console, no more. In pgbouncer.ini: admin_users = {user}, then RELOAD."
)
NO_CONSOLE = (
    "What answers there is no PgBouncer console: give the address of the pooler, or register a"
    " PostgreSQL server as one."
)
REFUSED_LOGINS = ("authentication failed", "no such user")
"""What PgBouncer, which has one SQLSTATE for all, says to a wrong user or password."""


def open_console(address: Address, *, purpose: str, seconds: float = 8) -> psycopg.Connection:
    """Return a new connection to the console; raises Unreachable."""
    parameters = connect.parameters_of(address.in_database(DATABASE), purpose)
    connect.strip_environment()
    try:
        connection = dial.dial(parameters, connect.within(seconds))
    except Unreachable as error:
        raise Unreachable(reason_at_login(str(error), address.user)) from None
    if not is_console(connection):
        connection.close()
        raise Unreachable(NO_CONSOLE)
    connection.prepare_threshold = None
    connection.adapters.register_loader("text", text.TolerantText)  # names are what clients sent
    return connection


def is_console(connection: psycopg.Connection) -> bool:
    """Tell whether PgBouncer answered: it says so behind its version."""
    version = connection.info.parameter_status("server_version") or ""
    return version.endswith("/bouncer")


def reason_at_login(reason: str, user: str) -> str:
    """Return why the console let nobody in, from what it said."""
    low = reason.lower()
    if low.startswith("not allowed"):
        return NOT_ADMITTED.format(user=user)
    if any(said in low for said in REFUSED_LOGINS):
        return NO_LOGIN.format(user=user)
    if "database does not exist" in low:
        return NO_CONSOLE
    return reason


def version_of(connection: psycopg.Connection) -> tuple[int, str]:
    """Return the pooler's version as (12601, '1.26.1')."""
    said = connection.info.parameter_status("server_version") or ""
    return connection.info.server_version, said.removesuffix("/bouncer")


def show(connection: psycopg.Connection, what: str, seconds: float) -> list[dict[str, Any]]:
    """Return what the console shows, a dict a row; numbers are int.

    Raises psycopg.Error, and Unreachable where it takes longer than so many seconds.
    """
    if what not in SHOWN:
        message = f"SHOW {what} is not asked of a pooler."
        raise ValueError(message)
    with connect.deadline(connection, seconds):
        cursor = connection.execute(sql.SQL("SHOW {}").format(sql.SQL(what)).as_bytes(None))
        rows = cursor.fetchall()
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, map(whole, row), strict=True)) for row in rows]


def whole(value: Any) -> Any:
    """Return a number that comes as numeric as the whole number that it is."""
    return int(value) if isinstance(value, Decimal) else value


def is_alive(connection: psycopg.Connection, seconds: float) -> bool:
    """Tell whether a console that was opened before still answers."""
    try:
        with connect.deadline(connection, seconds):
            connection.execute("SHOW VERSION")
    except (psycopg.Error, Unreachable):
        return False
    return True


def config_of(connection: psycopg.Connection, seconds: float) -> dict[str, str]:
    """Return the pooler's settings by name; raises as `show` does."""
    return {row["key"]: row["value"] or "" for row in show(connection, "CONFIG", seconds)}


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
