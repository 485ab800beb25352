"""How the clients of each database connect, how their sessions end, and what goes wrong in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

from monitors.history import connecting
from monitors.history.window import Window
from monitors.models import Target
from monitors.rules import connections
from monitors.rules.connections import Churn, Guilty

SPAN = timedelta(hours=1)
"""The end of a window over which churn is counted; a shorter window is counted whole."""

COLUMNS = (
    "datname",
    "seconds",
    "sessions_per_second",
    "xacts_per_session",
    "session_seconds",
    "idle_in_transaction_pct",
    "sessions",
    "sessions_abandoned",
    "sessions_fatal",
    "sessions_killed",
    "temp_bytes",
    "temp_files",
    "deadlocks",
    "connects_most",
)
"""Keys of the export, in order."""


class ChurnRow(TypedDict):
    """What one database counted at the end of a window; None: it is not known."""

    datname: str
    seconds: float  # over which it is counted
    sessions_per_second: float
    xacts_per_session: float | None  # at most
    session_seconds: float | None  # how long a new session lives, at most
    idle_in_transaction_pct: float | None  # of the time of transactions
    sessions: int
    sessions_abandoned: int
    sessions_fatal: int
    sessions_killed: int
    temp_bytes: int
    temp_files: int
    deadlocks: int
    connects_most: str | None  # who, in words; None: no reading caught a new session
    guilty: Guilty | None


def counted(target: Target, window: Window) -> list[dict[str, Any]]:
    """Return what the databases' counters grew by at the end of a window."""
    return connecting.grown(target.pk, window.end, min(window.length, SPAN))


def churn_of(target: Target, window: Window, grown: Iterable[Mapping[str, Any]]) -> list[ChurnRow]:
    """Return each database by what it counted, the one with most new sessions first."""
    span = min(window.length, SPAN)
    seen = connecting.newcomers(target.pk, window.end, span, target.logins)
    rows = [
        churn_row(row, churn, connections.guilty_of(seen, row["datname"]))
        for row in grown
        if (churn := connections.churn_of(row, row["seconds"])) is not None and was_used(row)
    ]
    return sorted(rows, key=lambda row: (-row["sessions"], row["datname"]))


def was_used(row: Mapping[str, Any]) -> bool:
    """Tell whether anybody was in a database: templates and others are left out."""
    return bool(row["sessions"] or row["session_time"])


def churn_row(row: Mapping[str, Any], churn: Churn, guilty: Guilty | None) -> ChurnRow:
    """Return one database."""
    return ChurnRow(
        datname=row["datname"],
        seconds=row["seconds"],
        sessions_per_second=churn.per_second,
        xacts_per_session=churn.reuse,
        session_seconds=churn.lifetime,
        idle_in_transaction_pct=connections.idle_share(row),
        sessions=row["sessions"],
        sessions_abandoned=row["sessions_abandoned"],
        sessions_fatal=row["sessions_fatal"],
        sessions_killed=row["sessions_killed"],
        temp_bytes=row["temp_bytes"],
        temp_files=row["temp_files"],
        deadlocks=row["deadlocks"],
        connects_most=f"{guilty.name}, from {guilty.place}" if guilty else None,
        guilty=guilty,
    )


def whole_of(grown: Sequence[Mapping[str, Any]]) -> Churn | None:
    """Return the churn of all databases together, None where it is not known."""
    return connections.churn_of(sums_of(grown), grown[0]["seconds"]) if grown else None


def idle_share_of(grown: Sequence[Mapping[str, Any]]) -> float | None:
    """Return in which share of all transactions' time they did nothing, in percent."""
    return connections.idle_share(sums_of(grown)) if grown else None


def sums_of(grown: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what all databases together counted."""
    return {name: sum(row[name] or 0 for row in grown) for name in connecting.COUNTED}


def worst_of(rows: Iterable[ChurnRow]) -> ChurnRow | None:
    """Return the database whose clients connect most often, None where none did."""
    return max(
        (row for row in rows if row["sessions"]),
        key=lambda row: row["sessions"],
        default=None,
    )
