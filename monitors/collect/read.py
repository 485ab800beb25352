"""One probe is read: its SQL is run, its rows are put in order, and literals are taken out of its texts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter

import psycopg
from psycopg import errors

from monitors.collect.live import text_key
from monitors.history import store
from monitors.history.reading import Key, Reading
from monitors.models import (
    Snapshot,
)
from monitors.pg import connect, extensions, text
from monitors.pg.extensions import Installed
from monitors.probe import Probe, Row


class UnknownColumns(Exception):
    """A probe's SQL returns columns that its sample does not declare."""


class Unsupported(Exception):
    """A probe has no SQL for the server's version."""


class Replaced(Exception):
    """A database was dropped, another one may have its name: the list of them is read again."""


class Denied(Exception):
    """A right is missing; its text says which one and the GRANT."""


class Hidden(Exception):
    """The server would answer without an error, and leave out what other roles do."""


FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (errors.InsufficientPrivilege, Snapshot.State.DENIED),
    (
        (
            errors.UndefinedTable,
            errors.UndefinedFunction,
            errors.UndefinedColumn,
            errors.ObjectNotInPrerequisiteState,  # not in shared_preload_libraries
        ),
        Snapshot.State.UNSUPPORTED,
    ),
    (errors.QueryCanceled, Snapshot.State.TIMEOUT),
)


def read(
    connection: psycopg.Connection,
    probe: Probe,
    statement: str,
    installed: Installed | None = None,
) -> Reading:
    """Run a probe's SQL inside the caller's transaction; raises psycopg.Error, UnknownColumns."""
    cpu = time.thread_time()
    if not probe.nested_loops:
        connect.forbid_nested_loops(connection)
    target_at = connect.begin_read(connection, probe.statement_timeout_ms)
    reset_at = reset_counter = None
    if probe.reset_sql:
        reset = extensions.in_schema(probe.reset_sql, installed)
        found = connection.execute(reset, binary=True).fetchone()
        reset_at, reset_counter = found or (None, None)
    began = time.perf_counter()
    cursor = connection.execute(extensions.in_schema(statement, installed), binary=True)
    waited = time.perf_counter() - began
    ended_at = connect.clock_of(connection) if probe.reset_sql else None
    rows = in_order(probe, [column.name for column in cursor.description or ()], cursor.fetchall())
    return Reading(
        rows,
        target_at,
        reset_at,
        reset_counter,
        client_ms=(time.thread_time() - cpu) * 1000,
        target_ms=waited * 1000,
        ended_at=ended_at,
    )


def in_order(probe: Probe, names: list[str], rows: list[Row]) -> list[Row]:
    """Return rows in the order of the sample's columns, None where a version has none."""
    columns = probe.sample.columns()
    unknown = set(names) - set(columns)
    if unknown or len(set(names)) != len(names):
        message = f"Probe {probe.name} returns columns that its sample lacks: {sorted(unknown)}."
        raise UnknownColumns(message)
    if tuple(names) == columns:
        return rows
    pick = itemgetter(*(names.index(n) if n in names else len(names) for n in columns))
    return [pick((*row, None)) for row in rows]


def without_unreplicated(probe: Probe, reading: Reading) -> Reading:
    """Return a standby's reading without what only its primary knows."""
    left_out = set(probe.sample.unreplicated)
    if not left_out:
        return reading
    known = [name not in left_out for name in probe.sample.columns()]
    rows = [
        tuple(value if there else None for value, there in zip(row, known, strict=True))
        for row in reading.rows
    ]
    return replace(reading, rows=rows)


def redact(probe: Probe, reading: Reading) -> tuple[Reading, dict[str, str]]:
    """Return a reading without literals, and its texts as they ran by `text_key`."""
    columns = probe.sample.columns()
    places = [columns.index(name) for name in probe.sample.redacted if name in columns]
    texts: dict[str, str] = {}
    rows = []
    for row in reading.rows:
        values = list(row)
        for place in places:
            if values[place]:
                texts[text_key(row[: len(probe.sample.key)])] = values[place][: text.MAX_STATEMENT]
                values[place] = text.redact(values[place])
        rows.append(tuple(values))
    return replace(reading, rows=rows), texts


def refiner(
    connection: psycopg.Connection,
    probe: Probe,
    installed: Installed | None,
    moves: Callable[[psycopg.Connection], bool],
) -> store.Refine:
    """Return what reads the refined columns of some objects.

    A lock that is not free within the lock_timeout costs them this once, not
    the snapshot. `moves` is asked where a text is in an encoding that this
    database can't hold, and tells whether to read all again in another one: then the error
    is raised. Else the texts are said to be unread.
    """
    keys = len(probe.sample.key)

    def fetch(statement: str, wanted: list[Key]) -> list[Row]:
        with connection.transaction():
            return connection.execute(
                extensions.in_schema(statement, installed),
                {"keys": [key[0] for key in wanted]},
                binary=True,
            ).fetchall()

    def refine(wanted: list[Key]) -> dict[Key, Row]:
        if not wanted:
            return {}
        try:
            found = without_literals(probe, fetch(probe.refine_sql, wanted))
        except (errors.LockNotAvailable, errors.QueryCanceled, errors.UndefinedTable):
            return {}
        except (errors.CharacterNotInRepertoire, errors.UntranslatableCharacter):
            if not probe.unread_sql:
                return {}
            if moves(connection):
                raise
            asked = set(wanted)
            found = [row for row in fetch(probe.unread_sql, wanted) if row[:keys] in asked]
        return {row[:keys]: row[keys:] for row in found}

    return refine


def without_literals(probe: Probe, rows: list[Row]) -> list[Row]:
    """Return rows of a key and refined columns with their texts redacted, and hashes of those.

    A hash of the text itself would tell a password to who tries many.
    """
    columns = (*probe.sample.key, *probe.sample.refined)
    texts = [columns.index(name) for name in probe.sample.redacted if name in columns]
    if not texts:
        return rows
    hashes = [columns.index(f"{columns[place]}_hash") for place in texts]
    found = []
    for row in rows:
        values = list(row)
        for place, hashed in zip(texts, hashes, strict=True):
            values[place] = text.redact(values[place])
            values[hashed] = hashlib.md5(values[place].encode(), usedforsecurity=False).hexdigest()
        found.append(tuple(values))
    return found
