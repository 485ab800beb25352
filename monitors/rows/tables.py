"""The tables of a target as its pages and exports show them: one row a table."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

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

Row = dict[str, Any]


def rows_at(
    probe_name: str,
    target: Target,
    window: Window,
    key: Key | None = None,
    without: Iterable[str] = (),
) -> list[Row]:
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


def tables_of(target: Target, window: Window, findings: Sequence[Finding], key: Key) -> list[Row]:
    """Return the tables that fit a key, as a snapshot of the window's end shows them; see `completed`."""
    rows = rows_at("tables", target, window, key)
    shown = [row for row in rows if row["relkind"] in SHOWN_KINDS]
    return completed(target, window, shown, findings)


def completed(
    target: Target, window: Window, rows: Iterable[Row], findings: Sequence[Finding]
) -> list[Row]:
    """Add to tables what pages and exports say of them; leaves out those of unknown databases.

    Keys: `COLUMNS`, the columns of the latest rows, and for the page `datid`, `table` (quoted
    as PostgreSQL would), `level`, and when autovacuum acts on it (`add_limits`).
    """
    databases, read = databases_of(target, window), read_at_of(target, window)
    next_xid, levels = newest_xid(target, window), levels_of(findings)
    found = [
        table_row(row, databases[row["database_id"]], target, read, next_xid)
        for row in rows
        if row["database_id"] in databases
    ]
    add_limits(target, found)
    for row in found:
        level = levels.get((row["database_id"], row["relid"]))
        row["level"] = level or level_of(row["threshold_pct"], row["n_dead_tup"])
    return found


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
    row: Row,
    database: Database,
    target: Target,
    read_at: Mapping[int, Any],
    next_xid: int | None,
) -> Row:
    """Add to a table's row what is computed from it, without limits; returns the same row."""
    row["database"] = database.datname
    row["datid"] = database.datid
    row["table"] = shown_name(row)
    if not unknowns.counts_rows(target.settings):
        row |= dict.fromkeys(COUNTS)
    row["dead_pct"] = share_pct(row["n_dead_tup"], row["n_live_tup"])
    row["autovacuum_enabled"] = is_enabled(target, row["reloptions"])
    if row["relkind"] == PARTITIONED:
        row["autovacuum_enabled"] = None  # it never comes for the whole, only for partitions
        row["size_bytes"] = None
    row["xid_age"] = autovacuum.xid_age(next_xid, row["relfrozenxid"])
    row["read_at"] = read_at.get(row["database_id"])
    return row


def is_enabled(target: Target, reloptions: Iterable[str] | None) -> bool | None:
    """Tell whether autovacuum looks at a table; None where the primary's settings decide.

    Storage options are replicated, settings are not.
    """
    if not target.in_recovery:
        return autovacuum.is_enabled(target.settings, reloptions)
    return None if autovacuum.is_enabled({}, reloptions) else False


def add_limits(target: Target, rows: Iterable[Row]) -> None:
    """Add to the rows of tables when autovacuum acts on them; None: that alone never triggers it."""
    for row in rows:
        limits = autovacuum.threshold_of(row, target.settings, target.server_version)
        dead = row["n_dead_tup"]
        comes = row["relkind"] != PARTITIONED
        row["vacuum_threshold"] = limits.vacuum if comes else None
        row["insert_threshold"] = limits.insert if comes else None
        row["analyze_threshold"] = limits.analyze
        row["threshold_pct"] = None if dead is None else 100 * dead / max(limits.vacuum, 1)


def share_pct(dead: int | None, live: int | None) -> float | None:
    """Return dead rows in percent of all rows, None where nothing is known or there is no row."""
    if dead is None or live is None or dead + live == 0:
        return None
    return 100 * dead / (dead + live)


def level_of(past_pct: float | None, dead: int | None) -> str:
    """Return notice where a vacuum is near; what is beyond it, findings judge."""
    few = past_pct is None or (dead or 0) <= NEED_VACUUM_ROWS
    return "" if few or (past_pct or 0) <= NEAR_PCT else "notice"


def worst_of(target: Target, window: Window, count: int) -> list[Row]:
    """Return the tables that had most dead rows at any time of a window, the worst first.

    A table that was vacuumed a moment ago is among them: its fall is what one looks for.
    Keys: those of the latest rows, `database` and `table`.
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
    most: dict[tuple[int, int], int] = {
        (row["database_id"], row["relid"]): row["most"] for row in past
    }

    def greatest(row: Row) -> int:
        return max(row["n_dead_tup"] or 0, most.get((row["database_id"], row["relid"]), 0))

    candidates = {(row["database_id"], row["relid"]): row for row in present}
    if others := most.keys() - candidates.keys():
        # TOAST tables and those that are gone are among them, so all are asked for.
        rows = known.rows(kinds, objects.among_keys(others))
        candidates |= {(row["database_id"], row["relid"]): row for row in rows}
    ranked = heapq.nlargest(count, candidates.values(), key=greatest)
    databases = databases_of(target, window)
    return [
        {**row, "database": databases[row["database_id"]].datname, "table": shown_name(row)}
        for row in ranked
        if greatest(row)
    ]


def shown_name(row: Row) -> str:
    """Return a table's name, quoted as PostgreSQL would, or its oid where it is not known."""
    return table_name(row) if row["relname"] else str(row["relid"])


def is_due(row: Mapping[str, Any]) -> bool:
    """Whether a table has passed autovacuum's threshold."""
    return due.is_due(row["n_dead_tup"], row["threshold_pct"])
