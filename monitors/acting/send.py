"""Statements on their way: sent, watched, or sent again until their lock is free."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from monitors.acting.connections import MARGIN_SECONDS
from monitors.acting.watch import Watch
from monitors.action import Action as Spec
from monitors.pg import connect

LOOK_SECONDS = 1.0
RETRY_SECONDS = 0.5
SKIPPING = frozenset(
    {
        "analyze_rel",
        "cluster_is_permitted_for_relation",
        "cluster_rel",
        "expand_vacuum_rel",
        "reindex_relation",
        "repack_is_permitted_for_relation",
        "vacuum_is_permitted_for_relation",
        "vacuum_is_relation_owner",
        "vacuum_open_relation",
        "vacuum_rel",
        "ReindexMultipleTables",
        "ReindexPartitions",
        "ReindexRelationConcurrently",
    }
)
"""Functions of the server's source whose only warnings say that something is left out."""


@dataclass(frozen=True)
class Notice:
    """What the server said besides the result."""

    severity: str  # WARNING, whatever the server's language
    sqlstate: str
    text: str  # in the server's language: for people alone
    function: str  # of the server's source

    @property
    def skips(self) -> bool:
        """Whether it says that something was left out, for want of a right or a lock.

        VACUUM and ANALYZE report success all the same.
        """
        left_out = self.sqlstate in {"55P03", "42501"} or self.function in SKIPPING
        return self.severity == "WARNING" and left_out


def send(
    connection: psycopg.Connection, statement: sql.Composed, spec: Spec
) -> tuple[list[tuple[Any, ...]], list[Notice]]:
    """Send one statement and return its rows and notices; raises psycopg.Error, Unreachable."""
    notices: list[Notice] = []

    def note(diagnosis: psycopg.errors.Diagnostic) -> None:
        notices.append(noticed(diagnosis))

    connection.add_notice_handler(note)
    try:
        with connect.deadline(connection, spec.statement_timeout_ms / 1000 + MARGIN_SECONDS):
            cursor = connection.execute(statement.as_bytes(None))  # as shown: byte for byte
            rows = cursor.fetchall() if cursor.description else []
    finally:
        connection.remove_notice_handler(note)
    return rows, notices


def noticed(diagnosis: psycopg.errors.Diagnostic) -> Notice:
    """Return what a notice says."""
    return Notice(
        severity=diagnosis.severity_nonlocalized or "",
        sqlstate=diagnosis.sqlstate or "",
        text=" ".join(filter(None, [diagnosis.message_primary, diagnosis.message_detail])),
        function=diagnosis.source_function or "",
    )


def send_watched(
    connection: psycopg.Connection, statement: sql.Composed, spec: Spec, watch: Watch
) -> list[Notice]:
    """Send a long statement from a thread while this one watches; raises as `send` does."""
    with ThreadPoolExecutor(1, thread_name_prefix="action") as pool:
        sent: Future[tuple[list[tuple[Any, ...]], list[Notice]]] = pool.submit(
            send, connection, statement, spec
        )
        pause = 0.2
        while not wait([sent], timeout=pause).done:
            watch.look()
            pause = LOOK_SECONDS
        watch.rows, notices = sent.result()
        return notices


def send_patiently(
    connection: psycopg.Connection, statement: sql.Composed, spec: Spec, watch: Watch
) -> list[Notice]:
    """Send a long statement, and again where its lock was not free, as often as it says."""
    for _ in range(spec.tries - 1):
        try:
            return send_watched(connection, statement, spec, watch)
        except LockNotAvailable:
            if watch.stopped:
                raise
            watch.look()
            time.sleep(RETRY_SECONDS)
    return send_watched(connection, statement, spec, watch)
