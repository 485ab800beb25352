"""The settings of a target as rows of a table, and the other settings they are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from dashboard.listing import Row
from dashboard.requests import PageRequest, get_target, moment_of
from dashboard.table_rows import read_at_of
from monitors import configuration
from monitors.findings.judge import LEVELS, Verdict
from monitors.history.window import Window
from monitors.models import Target
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


def other_of(request: PageRequest, target: Target, window: Window) -> Other | None:
    """Return what `with` and `with_at` name, None where neither is given.

    Raises Http404 for a target that the person may not see, BadRequest for no time.
    """
    name, text = request.GET.get("with", ""), request.GET.get("with_at", "")
    if not name and not text:
        return None
    other = get_target(request, name) if name else target
    at = moment_of(text) if text else None if window.is_live else window.end
    ends = min(at, timezone.now()) if at else window.end
    return Other(other, at, replace(window, end=ends, is_live=at is None))


def with_words(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the words of the query that a form of the difference carries along."""
    kept = ("window", "from", "to", "at", "filter")
    return [(word, request.GET[word]) for word in kept if request.GET.get(word)]


def verdict_with(verdict: Verdict, advice: Sequence[Advice]) -> Verdict:
    """Return a page's verdict that is no better than the worst advice beside it."""
    told = [one for one in advice if one.level != "info"]
    if not told or LEVELS.index(verdict.level) >= LEVELS.index(told[0].level):
        return verdict
    found = f" {verdict.text}" if verdict.level != "good" else ""
    return replace(verdict, level=told[0].level, text=f"{told[0].title}{found}", finding=None)
