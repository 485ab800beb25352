"""Which tables are due for vacuum, by the last snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from monitors.history import objects
from monitors.history.objects import Objects
from monitors.models import HISTORY, Database, Target
from monitors.rules import autovacuum

NEED_VACUUM_ROWS = 1000
"""n_dead_tup beyond which a table is worth a word."""
DUE_PCT = 100
"""Of autovacuum's threshold: past it, autovacuum would come."""
KINDS = frozenset({"r", "m"})
"""Ordinary tables and materialized views; TOAST tables go with their tables."""


@dataclass(frozen=True)
class Due:
    """One table that is due."""

    database: str
    relid: int
    n_dead_tup: int
    threshold_pct: float


def is_due(n_dead_tup: int | None, threshold_pct: float | None) -> bool:
    """Whether a table has many dead rows and more than autovacuum waits for."""
    return (n_dead_tup or 0) > NEED_VACUUM_ROWS and (threshold_pct or 0) > DUE_PCT


def due_tables(target: Target) -> list[Due]:
    """Return the tables of a target that are due, the furthest past its threshold first."""
    names = dict(
        Database.objects.filter(target=target, included=True, gone_at=None).values_list(
            "pk", "datname"
        )
    )
    found = []
    rows = Objects("tables", target.pk).rows(
        objects.among("relkind", KINDS),
        objects.above(objects.column("n_dead_tup"), NEED_VACUUM_ROWS),
        without=HISTORY["tables"].sample.counters,
    )
    for row in rows:
        if row["database_id"] not in names:
            continue
        limit = autovacuum.threshold_of(row, target.settings, target.server_version).vacuum
        past_pct = 100 * (row["n_dead_tup"] or 0) / max(limit, 1)
        if is_due(row["n_dead_tup"], past_pct):
            found.append(Due(names[row["database_id"]], row["relid"], row["n_dead_tup"], past_pct))
    return sorted(found, key=lambda due: due.threshold_pct, reverse=True)
