"""The tables of a target as its pages and exports show them: one row a table."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Max

from monitors import autovacuum, due
from monitors.advisor import Finding, table_name
from monitors.history import series
from monitors.history.window import Window
from monitors.models import HISTORY, Database, ProbeState, Target

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

UNLISTED = (
    *HISTORY["tables"].sample.counters,
    "last_seq_scan",
    "relallvisible",
    "relpersistence",
    *("target_id", "since_at", "changed_at", "gone_at"),
)
"""Columns that a list of tables neither shows nor judges by."""

LIMITS = ("vacuum_threshold", "insert_threshold", "analyze_threshold", "threshold_pct")
"""Keys that `add_limits` adds: they cost more than all others together."""

NEED_VACUUM_ROWS = due.NEED_VACUUM_ROWS
"""n_dead_tup beyond which a table is listed by default."""

NEAR_PCT = 80
"""Of autovacuum's threshold: soon due."""

SHORT = timedelta(hours=6)
"""Windows up to this are searched sample by sample, longer ones by their hours."""

SHOWN_KINDS = due.KINDS
"""Ordinary tables and materialized views; TOAST tables are shown with their tables."""

Row = dict[str, Any]


def rows_at(
    probe_name: str,
    target: Target,
    window: Window,
    key: series.Key | None = None,
    without: Iterable[str] = (),
) -> list[Row]:
    """Return a probe's rows now, or as they stood at the end of a window in the past.

    With a key, only those that have its values.
    """
    if window.is_live:
        return series.now(probe_name, target.pk, key=key, without=without)
    rows = series.at(probe_name, target.pk, window.end)
    return [row for row in rows if all(row[name] == value for name, value in (key or {}).items())]


def databases_of(target: Target) -> dict[int, Database]:
    """Return the target's databases by our own id."""
    return {database.pk: database for database in Database.objects.filter(target=target)}


def tables_of(
    target: Target, window: Window, findings: Sequence[Finding], key: series.Key | None = None
) -> list[Row]:
    """Return every table, or those that fit a key, that a snapshot of the window's end shows.

    Keys: `COLUMNS`, the columns of the latest rows (without a key, not `UNLISTED`), and for
    the page `datid`, `table` (quoted as PostgreSQL would), `level`, and the other keys of
    `LIMITS`. Without a key, only tables that need vacuum have `LIMITS`: `add_limits` adds them
    to others.
    """
    databases = databases_of(target)
    states = ProbeState.objects.filter(target=target, probe="tables", database__isnull=False)
    read_at = dict(states.values_list("database_id", "taken_at"))
    next_xid = newest_xid(target, window)
    rows = [
        table_row(row, databases[row["database_id"]], target, read_at, next_xid)
        for row in rows_at("tables", target, window, key, without=() if key else UNLISTED)
        if row["relkind"] in SHOWN_KINDS and row["database_id"] in databases
    ]
    add_limits(target, rows if key else [row for row in rows if needs_vacuum(row)])
    levels = levels_of(findings)
    for row in rows:
        level = levels.get((row["database_id"], row["relid"]))
        row["level"] = level or level_of(row.get("threshold_pct"), row["n_dead_tup"])
    return rows


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
    row["table"] = table_name(row) if row["relname"] else str(row["relid"])
    row["dead_pct"] = share_pct(row["n_dead_tup"], row["n_live_tup"])
    row["autovacuum_enabled"] = autovacuum.is_enabled(target.settings, row["reloptions"])
    row["xid_age"] = autovacuum.xid_age(next_xid, row["relfrozenxid"])
    row["read_at"] = read_at.get(row["database_id"])
    return row


def add_limits(target: Target, rows: Iterable[Row]) -> None:
    """Add to the rows of tables when autovacuum acts on them; None: that alone never triggers it."""
    for row in rows:
        limits = autovacuum.threshold(
            target.settings,
            row["reloptions"],
            reltuples=row["reltuples"],
            relpages=row["relpages"],
            relallfrozen=row["relallfrozen"],
            server_version=target.server_version,
            relkind=row["relkind"],
        )
        dead = row["n_dead_tup"]
        row["vacuum_threshold"] = limits.vacuum
        row["insert_threshold"] = limits.insert
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


def worst_of(target: Target, window: Window, tables: Sequence[Row], count: int) -> list[Row]:
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
    # A table is among them with more dead rows than the last of the present's worst, or not at all.
    present = heapq.nlargest(count, (row["n_dead_tup"] or 0 for row in tables))
    least = present[-1] if len(present) == count else 0
    past = seen.values("database_id", "relid").annotate(most=Max(field)).filter(most__gt=least)
    most: dict[tuple[int, int], int] = {
        (row["database_id"], row["relid"]): row["most"] for row in past
    }

    def greatest(row: Row) -> int:
        return max(row["n_dead_tup"] or 0, most.get((row["database_id"], row["relid"]), 0))

    ranked = heapq.nlargest(count, tables, key=greatest)
    return [row for row in ranked if greatest(row)]


def needs_vacuum(row: Mapping[str, Any]) -> bool:
    """Whether a table is listed by default."""
    return (row["n_dead_tup"] or 0) > NEED_VACUUM_ROWS


def is_due(row: Mapping[str, Any]) -> bool:
    """Whether a table has passed autovacuum's threshold."""
    # Tables that need no vacuum have no limits: they cost more than all else of a list.
    return needs_vacuum(row) and due.is_due(row["n_dead_tup"], row["threshold_pct"])
