"""Pure: what an action changed, what a lock means, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monitors.actions import ACTIONS
from monitors.models import Action

LABELS = {
    "n_dead_tup": "Dead rows",
    "n_live_tup": "Live rows",
    "n_mod_since_analyze": "Changes since analyze",
    "n_ins_since_vacuum": "Inserts since vacuum",
    "reltuples": "Rows that the planner assumes",
    "relpages": "Pages",
    "relallvisible": "All-visible pages",
    "size_bytes": "Size",
    "total_bytes": "Size with indexes",
    "table_bytes": "Table size",
    "index_bytes": "Index size",
    "blocked": "Backends that it blocks",
    "blocking": "Backends that it blocks",
    "released": "Backends released",
    "xid_age": "XID age",
}

NEUTRAL = frozenset({"n_live_tup", "relallvisible", "reltuples"})
"""Metrics of which less is not better."""
COUNTS = frozenset({"vacuum_count", "autovacuum_count", "analyze_count", "autoanalyze_count"})
"""Metrics that only tell that the server has counted the action."""

LOCKS = {
    "accessexclusive": "Nobody can read or write the table meanwhile.",
    "exclusive": "Others can read the table, nobody can write to it.",
    "sharerowexclusive": "Others can read the table, nobody can write to it.",
    "share": "Others can read the table, nobody can write to it.",
    "shareupdateexclusive": "Reads and writes go on; other maintenance of the table waits.",
    "rowexclusive": "Reads and writes go on.",
    "accessshare": "Reads and writes go on.",
}


@dataclass(frozen=True)
class Change:
    """One number before and after; `unit` is bytes, seconds, text or '' (a count)."""

    label: str
    unit: str
    before: Any
    after: Any
    change_pct: float | None
    """None where nothing can be compared."""
    less_is_better: bool

    @property
    def is_same(self) -> bool:
        """Whether nothing changed."""
        return bool(self.before == self.after)

    @property
    def shows_pct(self) -> bool:
        """Whether the change is more than a rounding."""
        return self.change_pct is not None and abs(self.change_pct) >= 1

    @property
    def is_better(self) -> bool:
        """Whether the number went down, where that is what the action is for."""
        return self.less_is_better and self.change_pct is not None and self.change_pct < 0


def is_signal(name: str) -> bool:
    """Whether a name is that of an action that sends a backend a signal."""
    return name in ACTIONS and ACTIONS[name].is_signal


def statement_of(action: Action) -> str:
    """Return an action's statement in short: a signal's is its function, not the guard around it."""
    if is_signal(action.name):
        return f"pg_{action.name}({action.arguments.get('pid', '')})"
    return action.sql or f"{action.name} {action.object_name}"


def adds(action: Action) -> bool:
    """Whether an action's effect says what its outcome does not say already."""
    return bool(action.effect) and action.effect.lower() not in action.outcome.lower()


def unit_of(name: str, value: Any) -> str:
    """Return the unit that a number's name tells."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "text"
    for suffix in ("bytes", "seconds"):
        if name.endswith(suffix):
            return suffix
    return ""


def label_of(name: str) -> str:
    """Return a metric's name for people."""
    return LABELS.get(name, name.removesuffix("_bytes").replace("_", " ").capitalize())


def changes_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what was measured both before and after, in the order of before."""
    changes = []
    for name in [name for name in before if name in after]:
        old, new = before[name], after[name]
        if name in COUNTS or isinstance(old, list | dict) or isinstance(new, list | dict):
            continue
        unit = unit_of(name, new if new is not None else old)
        comparable = unit != "text" and old and new is not None
        pct = 100.0 * (new - old) / old if comparable else None
        changes.append(Change(label_of(name), unit, old, new, pct, name not in NEUTRAL))
    return changes


def lock_words(mode: str) -> str:
    """Return what a lock's mode means for everybody else; '' for an unknown one."""
    word = mode.lower().replace(" ", "").replace("_", "").removesuffix("lock")
    return LOCKS.get(word, "")
