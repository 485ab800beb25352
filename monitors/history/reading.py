"""What was read of a place, and how it differs from what was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from monitors.models.history import Change, History
from monitors.probe import Row

Key = tuple[Any, ...]
Rows = dict[Key, tuple[Row, Row]]
"""By key: a row as the probe's SQL returned it, and its refined columns."""


@dataclass(frozen=True)
class Reading:
    """What a probe's SQL returned: rows in the order of `Sample.columns()`."""

    rows: Sequence[Row]
    target_at: datetime  # the target's clock
    reset_at: datetime | None = None
    reset_counter: int | None = None
    client_ms: float = 0
    target_ms: float = 0
    ended_at: datetime | None = None  # the target's clock when all rows had been read
    after: int | None = None
    """The place's sequence before the read began (`sequence_of`); None: not asked for."""


@dataclass(frozen=True)
class Place:
    """Which probe of which target and database; database_id 0 is the whole server."""

    history: History
    target_id: int
    database_id: int


@dataclass
class Comparison:
    """What changed since the last snapshot.

    `changed` are (change, previous row or None, row), both with the refined
    columns at the end; `rows` is what was known before, brought up to now.
    """

    rows: Rows
    changed: list[tuple[Change, Row | None, Row]] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)
    gone_rows: list[Row] = field(default_factory=list)
