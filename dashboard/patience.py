"""A history database that hangs holds a web thread for so long and no longer."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import connections
from django.http import HttpRequest, HttpResponse

REQUEST_SECONDS = 35
"""More than the server's own statement_timeout: a server that lives answers first."""

Handler = Callable[[HttpRequest], HttpResponse]


@contextmanager
def at_most(seconds: float, database: Any = None) -> Iterator[None]:
    """Cut a connection to our database after so long; what waits on it raises OperationalError.

    A stopped server's machine still acknowledges what it is sent, so neither
    statement_timeout nor keepalives end the wait.
    """
    watched = connections["default"] if database is None else database
    timer = threading.Timer(seconds, cut, [watched])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def cut(database: Any) -> None:
    """Shut the socket of a connection, as its server would by going away."""
    raw = database.connection
    with suppress(OSError):
        if raw is not None and not raw.closed:
            # A copy of the descriptor: closing it leaves the connection its own.
            with socket.socket(fileno=os.dup(raw.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)


def bounded(get_response: Handler) -> Handler:
    """Django middleware: no request waits for the history database for ever."""

    def middleware(request: HttpRequest) -> HttpResponse:
        with at_most(REQUEST_SECONDS):
            return get_response(request)

    return middleware
