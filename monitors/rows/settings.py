"""The settings of a target as rows of a table, and the other settings they are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypedDict

from monitors.findings.verdict import LEVELS, Verdict
from monitors.history.window import Window
from monitors.models import Target
from monitors.probe import Reading
from monitors.rows import configuration
from monitors.rows.tables import read_at_of
from monitors.rules import setting
from monitors.rules.settings_advice import Advice

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


class SettingRow(TypedDict):
    """One setting as pg_settings has it, with what is worked out from it."""

    name: str
    setting: str | None  # in its unit; None: Howdah's own session sets it
    unit: str | None
    source: str | None  # None where `setting` is
    sourcefile: str | None
    boot_val: str | None
    is_changed: bool
    pending_restart: bool
    context: str
    vartype: str
    category: str
    short_desc: str
    read_at: datetime | None  # None: nothing was read by then
    value: str  # in words
    default: str
    awaits_restart: bool
    ours: bool  # Howdah's own session sets it
    file: str  # the name of its file, '' where none sets it
    needs: str  # what a change needs


def settings_at(target: Target, window: Window) -> list[SettingRow]:
    """Return the settings as of a window's end, with what is worked out from each."""
    rows = configuration.settings_of(target, None if window.is_live else window.end)
    read_at = read_at_of(target, window, "settings").get(0)
    return [row_of(row, read_at) for row in rows]


def row_of(row: Reading, read_at: datetime | None) -> SettingRow:
    """Return one setting with its values in words."""
    context: str = row["context"]
    return {
        "name": row["name"],
        "setting": row["setting"],
        "unit": row["unit"],
        "source": row["source"],
        "sourcefile": row["sourcefile"],
        "boot_val": row["boot_val"],
        "is_changed": setting.is_changed(row),
        "pending_restart": row["pending_restart"],
        "context": context,
        "vartype": row["vartype"],
        "category": row["category"],
        "short_desc": row["short_desc"],
        "read_at": read_at,
        "value": setting.words_of(row["setting"], row["unit"]),
        "default": setting.words_of(row["boot_val"], row["unit"]),
        "awaits_restart": setting.awaits_restart(row),
        "ours": row["setting"] is None,
        "file": (row["sourcefile"] or "").replace("\\", "/").rpartition("/")[2],
        "needs": setting.CONTEXTS.get(context, context),
    }


def pick(rows: Sequence[SettingRow], name: str) -> list[SettingRow]:
    """Return the settings of one of `FILTERS`."""
    tests: dict[str, Callable[[SettingRow], bool]] = {
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
