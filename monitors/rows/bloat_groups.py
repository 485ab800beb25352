"""Bloat in sums: one row a group of objects that are alike, and one a schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict, cast

from monitors.history.window import Window
from monitors.models import Target
from monitors.rows.bloat import METHODS, objects_of
from monitors.rows.tables import databases_of

COUNTED_BY = ("database_id", "schemaname", "relkind", "method", "not_estimated")
"""What `groups_of` tells apart: enough for every count and sum of the page."""


class GroupRow(TypedDict):
    """How many objects there are of one kind in a schema, and what they waste."""

    database_id: int
    database: str
    schemaname: str | None
    relkind: str | None
    method: str | None
    not_estimated: str | None
    objects: int
    size_bytes: int | None  # None: of none is it known
    size_bytes_known: int  # of how many
    bloat_bytes: int | None
    bloat_bytes_known: int


class SchemaRow(TypedDict):
    """One schema with what its tables and indexes waste; None where nothing is known."""

    database: str
    schemaname: str
    objects: int
    unknown: int  # objects of which nothing is known
    size_bytes: int
    table_bytes: int | None
    index_bytes: int | None
    bloat_bytes: int | None


def groups_of(target: Target, window: Window) -> list[GroupRow]:
    """Return how many objects there are of each kind, and what they waste, for counts and sums."""
    databases = databases_of(target, window)
    groups = objects_of(target, window).groups(COUNTED_BY, ("size_bytes", "bloat_bytes"))
    return [
        cast(GroupRow, {**group, "database": databases[group["database_id"]].datname})
        for group in groups
        if group["database_id"] in databases
    ]


def is_index(group: GroupRow) -> bool:
    """Whether the objects of a group are indexes."""
    return group["relkind"] == "i"


def sum_waste(groups: Iterable[GroupRow]) -> int | None:
    """Return the wasted bytes of the groups of which something is known; None: of none."""
    known = [group["bloat_bytes"] for group in groups if group["bloat_bytes"] is not None]
    return sum(known) if known else None


def count_objects(groups: Iterable[GroupRow]) -> int:
    """Return how many objects some groups hold."""
    return sum(group["objects"] for group in groups)


def by_schema(groups: Iterable[GroupRow]) -> list[SchemaRow]:
    """Return the schemas with what their tables and indexes waste, most first."""
    schemas: dict[tuple[str, str], list[GroupRow]] = {}
    for group in groups:
        schemas.setdefault((group["database"], group["schemaname"] or ""), []).append(group)
    found: list[SchemaRow] = [
        {
            "database": database,
            "schemaname": schema,
            "objects": count_objects(mine),
            "unknown": count_objects(mine) - sum(group["bloat_bytes_known"] for group in mine),
            "size_bytes": sum(group["size_bytes"] or 0 for group in mine),
            "table_bytes": sum_waste(group for group in mine if not is_index(group)),
            "index_bytes": sum_waste(group for group in mine if is_index(group)),
            "bloat_bytes": sum_waste(mine),
        }
        for (database, schema), mine in schemas.items()
    ]
    return sorted(found, key=lambda row: -(row["bloat_bytes"] or 0))


def methods_of(groups: Iterable[GroupRow]) -> list[tuple[str, int]]:
    """Return (word, how many objects are known by it), the most reliable first, unknown last."""
    counts: dict[str, int] = {}
    for group in groups:
        name = group["method"] or ""
        counts[name] = counts.get(name, 0) + group["objects"]
    named = [(word, counts[name]) for name, (word, _) in METHODS.items() if name in counts]
    return [*named, ("not known", counts[""])] if "" in counts else named
