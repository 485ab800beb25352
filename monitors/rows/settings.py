"""The settings of a target as rows of a table, and the other settings they are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from monitors.findings.verdict import LEVELS, Verdict
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import configuration
from monitors.rows.tables import read_at_of
from monitors.rules import setting
from monitors.rules.settings_advice import Advice

Row = dict[str, Any]

COLUMNS = (
    "name",
    "setting",
    "unit",
    "source",
    "sourcefile",
    "boot_val",
    "is_changed",
    "pending_restart",
    "context",
    "vartype",
    "category",
    "short_desc",
    "read_at",
)
"""Keys of an export, in order."""

FILTERS = {
    "changed": "Changed",
    "pending": "Await a restart",
    "autovacuum": "Autovacuum and vacuum",
    "memory": "Memory",
    "wal": "WAL and checkpoints",
    "logging": "Logging",
    "connections": "Connections",
    "all": "All",
}


def settings_at(target: Target, window: Window) -> list[Row]:
    """Return the settings as of a window's end, with what is worked out from each."""
    rows = configuration.settings_of(target, None if window.is_live else window.end)
    read_at = read_at_of(target, window, "settings").get(0)
    return [row_of(row, read_at) for row in rows]


def row_of(row: Mapping[str, Any], read_at: datetime | None) -> Row:
    """Return one setting with its values in words."""
    return {
        **row,
        "value": setting.words_of(row["setting"], row["unit"]),
        "default": setting.words_of(row["boot_val"], row["unit"]),
        "is_changed": setting.is_changed(row),
        "awaits_restart": setting.awaits_restart(row),
        "ours": row["setting"] is None,
        "file": (row["sourcefile"] or "").replace("\\", "/").rpartition("/")[2],
        "needs": setting.CONTEXTS.get(row["context"], row["context"]),
        "read_at": read_at,
    }


def filtered(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the settings of one of `FILTERS`."""
    tests: dict[str, Callable[[Row], bool]] = {
        "changed": lambda row: row["is_changed"],
        "pending": lambda row: row["awaits_restart"],
        "all": lambda _row: True,
    }
    group = setting.GROUPS.get(name)
    return [row for row in rows if (group(row["name"]) if group else tests[name](row))]


@dataclass(frozen=True)
class Other:
    """What the settings are held against: another target, another moment, or both."""

    target: Target
    at: datetime | None  # None: as of now
    window: Window  # that ends then


def verdict_with(verdict: Verdict, advice: Sequence[Advice]) -> Verdict:
    """Return a page's verdict that is no better than the worst advice beside it."""
    told = [one for one in advice if one.level != "info"]
    if not told or LEVELS.index(verdict.level) >= LEVELS.index(told[0].level):
        return verdict
    found = f" {verdict.text}" if verdict.level != "good" else ""
    return replace(verdict, level=told[0].level, text=f"{told[0].title}{found}", finding=None)
