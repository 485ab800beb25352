"""Connections to targets: the only place that opens one.

Every connection has time limits, an empty search_path, a name that says whose
it is, and nothing of this process's environment: libpq would fall back to a
password file, a service file or client keys of ours and offer them to
whoever answers at the address.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import psycopg

from monitors.pg import dial, hosts, pinned, text
from monitors.pg.errors import Unreachable, reason_of

CONNECT_TIMEOUT_SECONDS = 3
UNSAFE_ENVIRONMENT = ("PG", "KRB5")
NO_PASSWORDS = "/nonexistent/howdah-knows-no-passwords"  # else libpq reads ~/.pgpass
MAINTENANCE = "postgres"
"""The database that nobody drops, renames or copies: a session may stay in it."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Address:
    """Where and as whom to connect."""

    host: str
    port: int
    user: str
    dbname: str
    sslmode: str
    require_auth: str
    password: str | None = field(default=None, repr=False)

    def in_database(self, dbname: str) -> Address:
        """Return the same login in another database."""
        return replace(self, dbname=dbname)


def default_sslmode(host: str) -> str:
    """Return `disable` for loopback addresses, `verify-full` for all others."""
    return "disable" if host in LOOPBACK or host.startswith("127.") else "verify-full"


def default_require_auth(host: str, sslmode: str) -> str:
    """Return libpq's require_auth where a target names none.

    Without a verified server only SCRAM proves that it knows the password;
    with one, anything but sending it in clear text will do.
    """
    safe = sslmode == "verify-full" or default_sslmode(host) == "disable"
    return "!password" if safe else "scram-sha-256"


def open_target(  # noqa: PLR0913 - each limit is named by its caller
    address: Address,
    *,
    purpose: str,
    statement_timeout_ms: int,
    lock_timeout_ms: int,
    read_only: bool,
    deadline_seconds: float = 8,
    client_connection_check: bool = False,
    counted: bool = False,
) -> psycopg.Connection:
    """Return a new autocommit connection that returns tuples.

    `purpose` ends in its application_name, `howdah:<purpose>`. A server that
    vanishes from under a statement of ours ends that statement when
    `client_connection_check` is on (PostgreSQL 14+, Linux). `counted` refuses a
    login whose work leaves no trace in the statistics. Raises Unreachable.
    """
    wanted = {
        "statement_timeout": str(statement_timeout_ms),
        "lock_timeout": str(lock_timeout_ms),
    }
    if read_only:  # else the server's own default holds: who made it read only meant us too
        wanted["default_transaction_read_only"] = "on"
    wanted |= pinned.PINNED
    parameters = parameters_of(address, purpose) | {"options": pinned.options(wanted)}
    strip_environment()
    connection = dial.dial(parameters, within(deadline_seconds))
    try:
        refuse_old(connection)
        with deadline(connection, deadline_seconds):
            pinned.pin(
                connection,
                wanted,
                lambda: another(parameters, deadline_seconds / 2),
                counted=counted,
            )
            prepare(connection, client_connection_check=client_connection_check)
    except Unreachable:
        connection.close()
        raise
    except psycopg.Error as error:
        connection.close()
        raise Unreachable(reason_of(error)) from None
    return connection


def parameters_of(address: Address, purpose: str) -> dict[str, str | int | None]:
    """Return what libpq is told of an address, and by which name we come; raises Unreachable."""
    parameters: dict[str, str | int | None] = {
        "host": address.host,
        "hostaddr": hosts.allowed_address(address.host),
        "port": address.port,
        "user": address.user,
        "dbname": address.dbname,
        "password": address.password or "",
        "sslmode": address.sslmode,
        "require_auth": address.require_auth or default_require_auth(address.host, address.sslmode),
        "gssencmode": "disable",
        "passfile": NO_PASSWORDS,
        "sslcertmode": "disable",
        "tcp_user_timeout": 3000,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": f"howdah:{purpose}"[:63],
        "client_encoding": "UTF8",
    }
    if address.sslmode in {"verify-ca", "verify-full"}:
        parameters["sslrootcert"] = root_certificates()
    return parameters


@contextlib.contextmanager
def another(
    parameters: Mapping[str, str | int | None], seconds: float
) -> Iterator[psycopg.Connection]:
    """Lend a second connection like one that was just opened; raises Unreachable."""
    connection = dial.dial(parameters, within(seconds))
    try:
        with deadline(connection, seconds):
            yield connection
    finally:
        connection.close()


def within(seconds: float) -> float:
    """Return how long connecting may take of so many seconds."""
    return max(2, min(CONNECT_TIMEOUT_SECONDS, seconds))


OLDEST_MAJOR = 14


def refuse_old(connection: psycopg.Connection) -> None:
    """Raise Unreachable for a version that no probe has SQL for."""
    major = connection.info.server_version // 10000
    if major < OLDEST_MAJOR:
        message = f"PostgreSQL {major} is too old: {OLDEST_MAJOR} is the oldest that is read."
        raise Unreachable(message)


def prepare(connection: psycopg.Connection, *, client_connection_check: bool) -> None:
    """Give a new connection what only some servers and databases need."""
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        read_any_bytes(connection)
    if client_connection_check:
        with contextlib.suppress(psycopg.errors.InvalidParameterValue):
            # Refused by systems without the means, macOS for one.
            connection.execute("SET client_connection_check_interval = 1000")


ENCODING_ERRORS = (
    UnicodeDecodeError,
    psycopg.errors.CharacterNotInRepertoire,
    psycopg.errors.UntranslatableCharacter,
)
"""What reading text of another database's encoding raises; `read_any_bytes` helps."""


def read_any_bytes(connection: psycopg.Connection) -> None:
    """Let a connection take text in whatever encoding it is; bytes that are not UTF-8 are replaced.

    Slower, since each text passes through Python: only where it must be.
    """
    connection.execute("SET client_encoding = 'SQL_ASCII'")
    for name in ("text", "varchar", "name", "bpchar", '"char"'):
        connection.adapters.register_loader(name, text.TolerantText)
        connection.adapters.register_loader(name, text.TolerantBinaryText)


BEGIN_SQL = """
SELECT pg_catalog.set_config('statement_timeout', %s, true), pg_catalog.clock_timestamp()
"""


def forbid_nested_loops(connection: psycopg.Connection) -> None:
    """Keep the planner from nested loops until the transaction ends."""
    connection.execute("SET LOCAL enable_nestloop = off")


def begin_read(connection: psycopg.Connection, statement_timeout_ms: int) -> datetime:
    """Limit the statements of the transaction that stands; returns the target's clock."""
    row = connection.execute(BEGIN_SQL, [str(statement_timeout_ms)], binary=True).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    moment: datetime = row[1]
    return moment


def clock_of(connection: psycopg.Connection) -> datetime:
    """Return the target's clock of this moment."""
    row = connection.execute("SELECT pg_catalog.clock_timestamp()", binary=True).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    moment: datetime = row[0]
    return moment


def strip_environment() -> None:
    """Remove from this process what libpq would use behind our back."""
    for name in [n for n in os.environ if n.startswith(UNSAFE_ENVIRONMENT)]:
        del os.environ[name]


BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def root_certificates() -> str:
    """Return the file of trusted certificates: HOWDAH_SSL_ROOT_CERT, the system's, or `system`.

    The libpq of psycopg's wheel brings its own OpenSSL, which does not know
    where the system keeps its certificates.
    """
    named = os.environ.get("HOWDAH_SSL_ROOT_CERT", "")
    return named or next((path for path in BUNDLES if Path(path).exists()), "system")


class Watchdog:
    """Shuts sockets down whose deadline has passed.

    Neither statement_timeout nor keepalives free a thread from a peer that
    acknowledges and never answers, and psycopg's cancellation asks that very
    peer. One thread serves all connections of the process.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadlines: dict[int, tuple[float, int]] = {}
        self._fired: set[int] = set()
        self._next = 0
        self._thread: threading.Thread | None = None

    def watch(self, fileno: int, seconds: float) -> int:
        """Start the clock for a socket; returns a ticket for `forget`."""
        with self._condition:
            self._next += 1
            self._deadlines[self._next] = (time.monotonic() + seconds, fileno)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            self._condition.notify()
            return self._next

    def forget(self, ticket: int) -> bool:
        """Stop the clock; returns whether the socket had been shut down."""
        with self._condition:
            self._deadlines.pop(ticket, None)
            fired = ticket in self._fired
            self._fired.discard(ticket)
            return fired

    def _run(self) -> None:
        while True:
            with self._condition:
                now = time.monotonic()
                for ticket, (at, fileno) in list(self._deadlines.items()):
                    if at <= now:
                        del self._deadlines[ticket]
                        self._fired.add(ticket)
                        shut_down(fileno)
                nearest = min((at for at, _ in self._deadlines.values()), default=None)
                self._condition.wait(None if nearest is None else max(0.01, nearest - now))


def shut_down(fileno: int) -> None:
    """End both directions of a socket that somebody else owns and will close."""
    copy = os.dup(fileno)
    with contextlib.suppress(OSError), socket.socket(fileno=copy) as peer:
        peer.shutdown(socket.SHUT_RDWR)


WATCHDOG = Watchdog()


@contextlib.contextmanager
def deadline(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Bound everything done with a connection inside; raises Unreachable when it was cut."""
    ticket = WATCHDOG.watch(connection.pgconn.socket, seconds)
    try:
        yield
    except psycopg.Error:
        if WATCHDOG.forget(ticket):
            message = f"The server did not answer within {seconds:.0f} s."
            raise Unreachable(message) from None
        raise
    finally:
        WATCHDOG.forget(ticket)
