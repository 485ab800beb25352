"""The audit as its page and exports show it: one row an entry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TypedDict, cast
from uuid import UUID

from django.db.models import QuerySet

from monitors.audit.chain import HASHED
from monitors.models import AuditEntry

COLUMNS = ("id", *HASHED)
"""Keys of an export, in order."""


class AuditRow(TypedDict):
    """One entry; '' where it says nothing."""

    id: int
    at: datetime
    kind: str  # intent, outcome or event
    what: str
    who: str
    source: str
    target_name: str
    object_name: str
    action_id: UUID | None  # None: of no action
    sql: str
    reason: str
    result: str
    detail: dict[str, object]


def read_all(entries: QuerySet[AuditEntry]) -> Iterator[AuditRow]:
    """Yield the row of each entry, some hundred at a time."""
    for row in entries.values(*COLUMNS).iterator(chunk_size=500):
        yield cast("AuditRow", row)
