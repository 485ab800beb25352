"""Measuring of objects in a round's spare time: some of those that wait for it, the oldest first."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from monitors.history import settle
from monitors.history.reading import Key
from monitors.pg import connect, extensions
from monitors.pg.errors import reason_of
from monitors.pg.extensions import Installed
from monitors.probe import Measuring

log = logging.getLogger(__name__)
MEASURE_MARGIN = 2.0
"""Seconds of a round that measuring leaves to what comes after it."""
MEASURE_TIMEOUT_MS = 5000
"""For one object."""


def measurer(
    connection: psycopg.Connection, measuring: Measuring, left: float
) -> settle.Measure | None:
    """Return what measures objects within their budget, None where the extension is missing."""
    installed = extensions.find(connection, measuring.extension)
    if installed is None:
        return None
    ends = time.monotonic() + min(measuring.seconds, max(left - MEASURE_MARGIN, 0))

    return partial(measure_some, connection, measuring, installed, ends)


def measure_some(
    connection: psycopg.Connection,
    measuring: Measuring,
    installed: Installed,
    ends: float,
    wanted: list[Key],
) -> dict[Key, tuple[str, settle.Figures]]:
    """Measure objects in the order of their urgency until pages, number or time are used up."""
    found: dict[Key, tuple[str, settle.Figures]] = {}
    pages = 0
    for relid, relkind, cost in pick(connection, measuring, wanted):
        if time.monotonic() > ends or len(found) >= measuring.objects:
            break
        if pages + cost > measuring.pages:
            continue  # a smaller one may still fit
        pages += cost
        try:
            seen = measure_one(connection, measuring, installed, relid, relkind)
        except errors.InsufficientPrivilege:
            break
        except psycopg.Error as error:
            if connection.closed:
                raise
            # It costs this object its measurement: locked, dropped, damaged, its file missing.
            log.warning("Object %s is not measured: %s", relid, reason_of(error))
            continue
        if seen is not None:
            found[relid,] = (relkind, seen)
    return found


def pick(
    connection: psycopg.Connection, measuring: Measuring, wanted: list[Key]
) -> list[tuple[int, str, int]]:
    """Return (oid, relkind, pages to read) of what is not locked; limits what comes after it."""
    connect.begin_read(connection, MEASURE_TIMEOUT_MS)
    keys = [key[0] for key in wanted]
    try:
        with connection.transaction():
            return connection.execute(measuring.pick_sql, {"keys": keys}).fetchall()
    except (errors.LockNotAvailable, errors.QueryCanceled):
        return []


def measure_one(
    connection: psycopg.Connection,
    measuring: Measuring,
    installed: Installed,
    relid: int,
    relkind: str,
) -> dict[str, Any] | None:
    """Return the figures of one object in a savepoint of its own; raises psycopg.Error."""
    statement = extensions.in_schema(measuring.sql[relkind], installed)
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, {"key": relid}).fetchone()
