"""Who waits for whom and for what: one row an edge from a waiter to one that it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from monitors import words
from monitors.history.latest import read_latest
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows.tables import databases_of
from monitors.rules import lock_words
from monitors.rules.lock_graph import Node, Place

COLUMNS = (
    "root_pid",
    "pid",
    "leader_pid",
    "backend_start",
    "blocker_pid",
    "gid",
    "hard",
    "locktype",
    "lock",
    "lock_database",
    "mode",
    "blocker_mode",
    "waitstart",
    "waited_seconds",
    "usename",
    "application_name",
    "datname",
    "read_at",
)
"""Keys of the export, in order."""

Row = Mapping[str, Any]
"""Of the probe."""
Waits = dict[Node, dict[Node, bool | None]]


class EdgeRow(TypedDict):
    """One waiter and one that it waits for; what is not known is None."""

    root_pid: int  # below which the waiter is shown; 0: a prepared transaction
    pid: int
    leader_pid: int  # of its parallel group, its own pid without one
    backend_start: datetime
    blocker_pid: int
    gid: str | None  # of a prepared transaction
    hard: bool | None  # False: the blocker only waits ahead in the queue
    locktype: str
    lock: str  # in words
    lock_database: str | None  # None too: of the whole server
    mode: str
    blocker_mode: str | None  # that the blocker holds, or waits for
    waitstart: datetime | None
    waited_seconds: float | None
    usename: str | None
    application_name: str | None
    datname: str | None
    read_at: datetime | None


@dataclass(frozen=True)
class Names:
    """What databases are called by oid, and relations by the oids of database and relation."""

    databases: Mapping[int, str]
    relations: Mapping[tuple[int, int], str]


def waits_of(rows: Iterable[Row]) -> Waits:
    """Return the graph of the probe's rows; of a parallel group any hard edge counts."""
    waits: Waits = {}
    for row in rows:
        blockers, blocker = waits.setdefault(row["leader_pid"], {}), blocker_of(row)
        blockers[blocker] = row["hard"] or blockers.get(blocker, row["hard"])
    return waits


def blocker_of(row: Row) -> Node:
    """Return the node of a row's blocker: a pid, or the gid of a prepared transaction."""
    node: Node = row["blocker_pid"] or row["gid"]
    return node


def names_of(target: Target, window: Window, rows: Iterable[Row]) -> Names:
    """Return the names that the probe could not read, as history knows them now."""
    databases = databases_of(target, window)
    oids = {pk: database.datid for pk, database in databases.items()}
    nameless = {row["relation"] for row in rows if row["relation"] and row["relname"] is None}
    found: dict[tuple[int, int], str] = {}
    if nameless:
        for key, name in (("indexrelid", "indexrelname"), ("relid", "relname")):
            probe = "tables" if key == "relid" else "indexes"
            for row in read_latest(probe, target.pk, key={key: sorted(nameless)}, gone=True):
                if row["database_id"] in oids and row[name]:
                    names = (row.get("schemaname"), row[name])
                    place = (oids[row["database_id"]], row[key])
                    found[place] = words.quoted(*(one for one in names if one))
    named = {database.datid: database.datname for database in databases.values()}
    return Names(named, found)


def edge_of(
    row: Row, places: Mapping[Node, Place], names: Names, read_at: datetime | None
) -> EdgeRow:
    """Return one row of the probe as an edge; one that has no place is a root in a circle."""
    place, waited = places.get(row["leader_pid"]), None
    top = place.root if place else row["leader_pid"]
    if row["waitstart"] is not None and read_at is not None:
        waited = max(0.0, (read_at - row["waitstart"]).total_seconds())
    relation = lock_words.name_relation(row, names.relations)
    return {
        "root_pid": top if isinstance(top, int) else 0,
        "pid": row["pid"],
        "leader_pid": row["leader_pid"],
        "backend_start": row["backend_start"],
        "blocker_pid": row["blocker_pid"],
        "gid": row["gid"] or None,
        "hard": row["hard"],
        "locktype": row["locktype"],
        "lock": lock_words.name_lock(row, relation),
        "lock_database": names.databases.get(row["lock_database"] or 0),
        "mode": row["mode"],
        "blocker_mode": row["blocker_mode"],
        "waitstart": row["waitstart"],
        "waited_seconds": waited,
        "usename": row["usename"],
        "application_name": row["application_name"],
        "datname": row["datname"],
        "read_at": read_at,
    }
