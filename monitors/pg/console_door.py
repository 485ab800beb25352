"""Opens the admin console of PgBouncer, and says what to do where it lets nobody in."""

from __future__ import annotations

import psycopg

from monitors.pg import connect, dial, text
from monitors.pg.connect import Address
from monitors.pg.console import DATABASE
from monitors.pg.errors import Unreachable

NOT_ADMITTED = (
    "PgBouncer does not let {user} into its console. In pgbouncer.ini:"
    " stats_users = {user}, then RELOAD."
)
NO_LOGIN = (
    "Password authentication failed: PgBouncer refuses {user}, or does not know it:"
    " check the password, and auth_file."
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


def is_alive(connection: psycopg.Connection, seconds: float) -> bool:
    """Tell whether a console that was opened before still answers."""
    try:
        with connect.deadline(connection, seconds):
            connection.execute("SHOW VERSION")
    except (psycopg.Error, Unreachable):
        return False
    return True
