"""Reaches a server, and tells by its SQLSTATE why it lets nobody in.

psycopg knows no SQLSTATE of a failure while connecting, and words are in the
server's language. libpq puts both, and the function that refused, into its
message where it is told to be verbose before the first byte is sent, which
psycopg has no call for.

Source: https://www.postgresql.org/docs/current/libpq-control.html#LIBPQ-PQSETERRORVERBOSITY
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import selectors
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from monitors import words
from monitors.pg.errors import NO_ANSWER, Unreachable, refusal

log = logging.getLogger(__name__)

DEFAULT, VERBOSE = 1, 2
OVER = frozenset({pq.PollingStatus.OK, pq.PollingStatus.FAILED})
LIBRARIES = ("../psycopg_binary.libs/libpq-*", ".dylibs/libpq*")
"""Where psycopg's wheels for Linux and macOS keep the libpq that they brought."""


def dial(parameters: Mapping[str, str | int | None], seconds: float) -> psycopg.Connection:
    """Return a new autocommit connection; raises Unreachable, also after so many seconds."""
    known = {name: value for name, value in parameters.items() if value is not None}
    pgconn = pq.PGconn.connect_start(make_conninfo("", **known).encode())
    try:
        set_verbosity(pgconn, VERBOSE)
        finish(pgconn, seconds, known)
        set_verbosity(pgconn, DEFAULT)
    except Unreachable:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    connection = psycopg.Connection(pgconn)
    connection.autocommit = True
    return connection


def finish(pgconn: pq.abc.PGconn, seconds: float, known: Mapping[str, str | int]) -> None:
    """Drive a connection that was started with these parameters to its end; raises Unreachable."""
    ends = time.monotonic() + seconds
    status = int(pq.PollingStatus.WRITING)
    while status not in OVER and pgconn.status != pq.ConnStatus.BAD:
        wait(pgconn.socket, status, ends - time.monotonic())
        status = pgconn.connect_poll()
    if status != pq.PollingStatus.OK:
        raise refusal(
            pgconn.get_error_message(),
            encrypted=known["sslmode"] not in {"disable", "allow"},
            database=words.quoted(str(known["dbname"])),
            login=words.quoted(str(known["user"])),
        )


def wait(fileno: int, status: int, seconds: float) -> None:
    """Wait until a socket is ready for what libpq wants next; raises Unreachable."""
    event = selectors.EVENT_READ if status == pq.PollingStatus.READING else selectors.EVENT_WRITE
    with selectors.DefaultSelector() as selector:
        selector.register(fileno, event)
        if seconds <= 0 or not selector.select(seconds):
            raise Unreachable(NO_ANSWER)


def set_verbosity(pgconn: pq.abc.PGconn, verbosity: int) -> None:
    """Say how much libpq puts into a connection's messages, where that can be told to it."""
    library = libpq()
    if library is not None:
        library.PQsetErrorVerbosity(pgconn.pgconn_ptr, verbosity)  # type: ignore[attr-defined]


@functools.cache
def libpq() -> ctypes.CDLL | None:
    """Return the very library that psycopg uses, None where it can't be found.

    Then a refusal is told in the server's own words.
    """
    try:
        library = ctypes.CDLL(library_path())
    except OSError as error:
        log.warning("libpq is not found, so refusals are told in the server's words: %s", error)
        return None
    library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def library_path() -> str:
    """Return the file of psycopg's libpq: its wheel's own, or the system's where that is used.

    Never another one: it would be given a connection of which it knows nothing.
    Raises OSError.
    """
    if pq.__impl__ != "binary":
        return str(pq.misc.find_libpq_full_path())
    found = importlib.util.find_spec("psycopg_binary")
    folder = Path(found.origin).parent if found and found.origin else None
    paths = [path for pattern in LIBRARIES for path in folder.glob(pattern)] if folder else []
    if not paths:
        message = "psycopg's wheel has no libpq of its own where it usually is"
        raise OSError(message)
    return str(paths[0])
