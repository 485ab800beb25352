"""The tables of a target as its pages and exports show them: one row a table."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict, cast

from django.db.models import Max

from monitors.advisor import Finding, table_name
from monitors.findings import unknowns
from monitors.history import objects
from monitors.history.freshness import read_at
from monitors.history.latest import read_as_of, read_latest
from monitors.history.objects import Objects, Term
from monitors.history.source import Key
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Target
from monitors.rows import due
from monitors.rules import autovacuum

COLUMNS = (
    "database",
    "schemaname",
    "relname",
    "relid",
    "n_live_tup",
    "n_dead_tup",
    "dead_pct",
    "n_mod_since_analyze",
    "n_ins_since_vacuum",
    "last_vacuum",
    "last_autovacuum",
    "last_analyze",
    "last_autoanalyze",
    "size_bytes",
    "vacuum_threshold",
    "threshold_pct",
    "autovacuum_enabled",
    "xid_age",
    "read_at",
)
"""Keys of the export, in order; computed ones carry their unit."""

COUNTS = ("n_live_tup", "n_dead_tup", "n_mod_since_analyze", "n_ins_since_vacuum")
"""Columns that are not known while track_counts is off."""

LIMITS = ("vacuum_threshold", "threshold_pct", "autovacuum_enabled")
"""Columns that our database can't order by: they are computed to the server's last bit."""

NEED_VACUUM_ROWS = due.NEED_VACUUM_ROWS
"""n_dead_tup beyond which a table is listed by default."""

NEAR_PCT = 80
"""Of autovacuum's threshold: soon due."""

SHORT = timedelta(hours=6)
"""Windows up to this are searched sample by sample, longer ones by their hours."""

PARTITIONED = "p"
SHOWN_KINDS = due.KINDS | {PARTITIONED}
"""Tables and materialized views; TOAST tables are shown with their tables."""


class TableReading(TypedDict):
    """What is taken over of a table as last read; None: the server did not say, or it was not read."""

    database_id: int  # our own id
    relid: int
    schemaname: str | None
    relname: str | None
    relkind: str
    relpersistence: str | None
    toastrelid: int | None  # 0: it has none
    reloptions: list[str] | None
    relpages: int | None
    reltuples: float | None  # -1: never vacuumed or analyzed
    relallvisible: int | None
    relallfrozen: int | None
    relfrozenxid: int | None
    relminmxid: int | None
    n_live_tup: int | None
    n_dead_tup: int | None
    n_mod_since_analyze: int | None
    n_ins_since_vacuum: int | None
    rewritten_dead_tup: int | None  # counted by the server, gone by a rewrite
    last_vacuum: datetime | None
    last_autovacuum: datetime | None
    last_analyze: datetime | None
    last_autoanalyze: datetime | None
    size_bytes: int | None  # with indexes and TOAST; of a partitioned one nothing
    gone_at: datetime | None  # of one that was dropped


class TableRow(TableReading):
    """One table as its pages and exports show it."""

    database: str
    datid: int
    table: str  # schema and name as PostgreSQL quotes them, its oid where they are not known
    dead_pct: float | None  # of all rows
    vacuum_threshold: float | None  # dead rows; None: that alone never triggers autovacuum
    threshold_pct: float | None  # dead rows of the threshold
    autovacuum_enabled: bool | None  # None: the primary's settings decide, or it never comes
    xid_age: int | None
    read_at: datetime | None
    level: str  # of its worst finding, notice where a vacuum is near, else ''


class DeadRow(TypedDict):
    """One of the tables that had most dead rows."""

    database_id: int
    relid: int
    database: str
    table: str


READ = tuple(TableReading.__annotations__)


def rows_at(
    probe_name: str,
    target: Target,
    window: Window,
    key: Key | None = None,
    without: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Return a probe's rows now, or as they stood at the end of a window in the past.

    With a key, only those that have its values.
    """
    if window.is_live:
        return read_latest(probe_name, target.pk, key=key, without=without)
    rows = read_as_of(probe_name, target.pk, window.end)
    return [row for row in rows if all(row[name] == value for name, value in (key or {}).items())]


def databases_of(target: Target, window: Window) -> dict[int, Database]:
    """Return the databases of the window's end, by our own id; read once for a request."""
    return target.databases_at(None if window.is_live else window.end)


def objects_of(target: Target, window: Window) -> Objects:
    """Return the tables of the window's end, TOAST tables too, for our database to choose from."""
    return Objects("tables", target.pk, None if window.is_live else window.end)


def of_kind(target: Target, window: Window) -> Term:
    """Return the condition of what a list shows: tables of databases that we know."""
    return objects.all_of(
        objects.among("relkind", sorted(SHOWN_KINDS)),
        objects.among("database_id", sorted(databases_of(target, window))),
    )


def tables_of(
    target: Target, window: Window, findings: Sequence[Finding], key: Key
) -> list[TableRow]:
    """Return the tables that fit a key, as a snapshot of the window's end shows them."""
    rows = rows_at("tables", target, window, key)
    shown = [row for row in rows if row["relkind"] in SHOWN_KINDS]
    return complete(target, window, shown, findings)


def complete(
    target: Target,
    window: Window,
    rows: Iterable[Mapping[str, Any]],
    findings: Sequence[Finding],
) -> list[TableRow]:
    """Return tables as read as pages and exports show them; leaves out those of unknown databases."""
    databases, read = databases_of(target, window), read_at_of(target, window)
    next_xid, levels = newest_xid(target, window), levels_of(findings)
    found = [
        table_row(row, databases[row["database_id"]], target, read, next_xid)
        for row in rows
        if row["database_id"] in databases
    ]
    for row in found:
        row["level"] = levels.get(key_of(row)) or row["level"]
    return found


def key_of(row: Mapping[str, Any]) -> tuple[int, int]:
    """Return what tells a table from every other one of its target."""
    return row["database_id"], row["relid"]


def read_at_of(target: Target, window: Window, probe_name: str = "tables") -> dict[int, datetime]:
    """Return when each database was last read by the window's end, by our own id."""
    return read_at(target, probe_name, None if window.is_live else window.end)


def orders_of(target: Target, window: Window) -> dict[str, Term]:
    """Return what our database can order tables by."""
    databases, read = databases_of(target, window), read_at_of(target, window)
    by_name = sorted(databases, key=lambda pk: databases[pk].datname.casefold())
    plain = (
        "relid",
        "n_live_tup",
        "n_dead_tup",
        "n_mod_since_analyze",
        "n_ins_since_vacuum",
        "last_vacuum",
        "last_autovacuum",
        "last_analyze",
        "last_autoanalyze",
        "size_bytes",
    )
    return {
        **{name: objects.column(name) for name in plain},
        **{name: objects.text_of(name) for name in ("schemaname", "relname")},
        "table": objects.name_of("schemaname", "relname"),
        "database": objects.place_in("database_id", by_name),
        "read_at": objects.place_in("database_id", sorted(read, key=lambda pk: read[pk])),
        "dead_pct": objects.share("n_dead_tup", "n_live_tup"),
        "xid_age": objects.age(
            "relfrozenxid", newest_xid(target, window), autovacuum.FIRST_NORMAL_XID
        ),
    }


def levels_of(findings: Sequence[Finding]) -> dict[tuple[int | None, int | None], str]:
    """Return {(database id, relid): level} of the worst finding on each table."""
    worst_last = reversed(findings)
    return {
        (one.database_id, one.relid): one.level
        for one in worst_last
        if one.relid and one.advisor != "bloat"
    }


def newest_xid(target: Target, window: Window) -> int | None:
    """Return the server's next transaction id, None before it was read."""
    rows = rows_at("databases", target, window)
    return max((row["next_xid"] for row in rows if row["next_xid"]), default=None)


def table_row(
    row: Mapping[str, Any],
    database: Database,
    target: Target,
    read_at: Mapping[int, datetime],
    next_xid: int | None,
) -> TableRow:
    """Return a table as read with what is computed of it; `level` is what it has without findings."""
    taken = {name: row[name] for name in READ}
    limit = autovacuum.threshold_of(row, target.settings, target.server_version).vacuum
    enabled = is_enabled(target, row["reloptions"])
    comes = row["relkind"] != PARTITIONED  # it never does for the whole, only for partitions
    if not unknowns.counts_rows(target.settings):
        taken |= dict.fromkeys(COUNTS)
    if not comes:
        taken["size_bytes"] = None
    read = cast(TableReading, taken)
    dead = read["n_dead_tup"]
    past_pct = None if dead is None else 100 * dead / max(limit, 1)
    return {
        **read,
        "database": database.datname,
        "datid": database.datid,
        "table": shown_name(row),
        "dead_pct": share_pct(dead, read["n_live_tup"]),
        "vacuum_threshold": limit if comes else None,
        "threshold_pct": past_pct,
        "autovacuum_enabled": enabled if comes else None,
        "xid_age": autovacuum.xid_age(next_xid, row["relfrozenxid"]),
        "read_at": read_at.get(row["database_id"]),
        "level": level_of(past_pct, dead),
    }


def is_enabled(target: Target, reloptions: Iterable[str] | None) -> bool | None:
    """Tell whether autovacuum looks at a table; None where the primary's settings decide.

    Storage options are replicated, settings are not.
    """
    if not target.in_recovery:
        return autovacuum.is_enabled(target.settings, reloptions)
    return None if autovacuum.is_enabled({}, reloptions) else False


def share_pct(dead: int | None, live: int | None) -> float | None:
    """Return dead rows in percent of all rows, None where nothing is known or there is no row."""
    if dead is None or live is None or dead + live == 0:
        return None
    return 100 * dead / (dead + live)


def level_of(past_pct: float | None, dead: int | None) -> str:
    """Return notice where a vacuum is near; what is beyond it, findings judge."""
    few = past_pct is None or (dead or 0) <= NEED_VACUUM_ROWS
    return "" if few or (past_pct or 0) <= NEAR_PCT else "notice"


def worst_of(target: Target, window: Window, count: int) -> list[DeadRow]:
    """Return the tables that had most dead rows at any time of a window, the worst first.

    A table that was vacuumed a moment ago is among them: its fall is what one looks for.
    """
    history = HISTORY["tables"]
    model, time, field = history.samples, "taken_at", "n_dead_tup"
    if window.length > SHORT and history.hours is not None:
        model, time, field = history.hours, "start_at", "n_dead_tup_max"
    seen = model._default_manager.filter(
        target_id=target.pk, **{f"{time}__gte": window.start, f"{time}__lt": window.end}
    )
    known, kinds = objects_of(target, window), of_kind(target, window)
    most_dead = objects.Order(objects.column("n_dead_tup"), greatest_first=True)
    present = known.rows(kinds, order=[most_dead], limit=count)
    # A table is among them with more dead rows than the last of the present's worst, or not at all.
    least = present[-1]["n_dead_tup"] or 0 if len(present) == count else 0
    past = seen.values("database_id", "relid").annotate(most=Max(field)).filter(most__gt=least)
    most: dict[tuple[int, int], int] = {key_of(row): row["most"] for row in past}

    def greatest(row: Mapping[str, Any]) -> int:
        return max(row["n_dead_tup"] or 0, most.get(key_of(row), 0))

    candidates = {key_of(row): row for row in present}
    if others := most.keys() - candidates.keys():
        # TOAST tables and those that are gone are among them, so all are asked for.
        rows = known.rows(kinds, objects.among_keys(others))
        candidates |= {key_of(row): row for row in rows}
    ranked = heapq.nlargest(count, candidates.values(), key=greatest)
    databases = databases_of(target, window)
    return [
        {
            "database_id": row["database_id"],
            "relid": row["relid"],
            "database": databases[row["database_id"]].datname,
            "table": shown_name(row),
        }
        for row in ranked
        if greatest(row)
    ]


def shown_name(row: Mapping[str, Any]) -> str:
    """Return a table's name, quoted as PostgreSQL would, or its oid where it is not known."""
    return table_name(row) if row["relname"] else str(row["relid"])


def is_due(row: TableRow) -> bool:
    """Whether a table has passed autovacuum's threshold."""
    return due.is_due(row["n_dead_tup"], row["threshold_pct"])
