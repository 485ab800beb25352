"""Autovacuum explained for one table: each trigger, how far it is, and where its settings come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from monitors.history.window import Window
from monitors.models import Target
from monitors.probe import Reading
from monitors.rows import vacuuming
from monitors.rows.tables import rows_at
from monitors.rules import autovacuum, autovacuum_queue

TRIGGERS = (
    ("vacuum", "vacuum", "dead rows", "n_dead_tup", "vacuum"),
    (
        "vacuum_insert",
        "vacuum",
        "rows inserted since a vacuum",
        "n_ins_since_vacuum",
        "vacuum_insert",
    ),
    ("analyze", "analyze", "rows changed since an analyze", "n_mod_since_analyze", "analyze"),
)
"""Score, what starts, of what, which count, which limit."""

ON_STANDBY = (
    "Whether it is due is not known here: limits are by the settings of this standby, and autovacuum "
    "goes by those of the primary and by its counts."
)


class TriggerRow(TypedDict):
    """One count of a table, and the limit past which autovacuum starts."""

    starts: str
    what: str  # is counted
    count: float | None  # None: not known
    limit: float | None  # None: it never starts for that
    pct: float | None  # of the limit
    left: float | None  # what is still missing until it starts, None if it has
    is_past: bool
    score: float | None


class PartRow(TypedDict):
    """A table, or its TOAST table, with what autovacuum would do now."""

    name: str  # TOAST, or ''
    triggers: list[TriggerRow]
    enabled: bool  # else only a vacuum to prevent wraparound comes
    score: float | None  # None: not known
    reason: str
    do_vacuum: bool
    do_analyze: bool
    for_wraparound: bool


class Explanation(TypedDict):
    """The panel of a table."""

    parts: list[PartRow]
    options: list[autovacuum_queue.InForce]
    toast_options: list[str]
    words: str
    by_score: bool  # autovacuum takes tables in the order of their scores


def explain(target: Target, window: Window, row: Reading, toast: Reading | None) -> Explanation:
    """Return the panel of a table and its TOAST table."""
    sources = {one["name"]: one for one in rows_at("settings", target, window)}
    settings = vacuuming.settings_of(target, sources)
    ages = rows_at("databases", target, window)
    following = {
        "next_xid": max((one["next_xid"] for one in ages if one["next_xid"]), default=None),
        "next_mxid": next((one["next_mxid"] for one in ages if one.get("next_mxid")), None),
    }
    parts = [part_of("", row, None, target, settings, following)]
    if toast is not None:
        parts.append(part_of("TOAST", toast, row, target, settings, following))
    options = autovacuum_queue.in_force(row, None, settings, sources, target.server_version)
    own = toast["reloptions"] if toast is not None else None
    return {
        "parts": parts,
        "options": options if target.settings or sources else [],
        "toast_options": own or [],
        "words": ON_STANDBY
        if target.in_recovery
        else " ".join(words_of(part, enabled=parts[0]["enabled"]) for part in parts),
        "by_score": autovacuum_queue.sorts_by_score(settings, target.server_version),
    }


def part_of(
    name: str,
    row: Reading,
    main: Reading | None,
    target: Target,
    settings: Mapping[str, str],
    following: Mapping[str, int | None],
) -> PartRow:
    """Return one table's triggers, and what they come to."""
    limits = autovacuum_queue.limits_of(row, main, settings, target.server_version)
    scores = autovacuum_queue.scores_of(row, limits, settings, **following)
    counted = {**row, "n_dead_tup": autovacuum_queue.counted_dead(row)}
    triggers = [
        trigger_of(starts, what, counted[count], getattr(limits, limit), getattr(scores, score))
        for score, starts, what, count, limit in TRIGGERS
        if not (name and starts == "analyze")
    ]
    xid_age = autovacuum.xid_age(following["next_xid"], row["relfrozenxid"])
    mxid_age = autovacuum_queue.mxid_age(following["next_mxid"], row["relminmxid"])
    triggers += [
        trigger_of("forced vacuum", "age of relfrozenxid", xid_age, limits.xid, scores.xid),
        trigger_of("forced vacuum", "age of relminmxid", mxid_age, limits.mxid, scores.mxid),
    ]
    return {
        "name": name,
        "triggers": triggers,
        "enabled": limits.enabled,
        "score": scores.score if autovacuum_queue.is_counted(row) else None,
        "reason": autovacuum_queue.REASONS.get(scores.reason, ""),
        "do_vacuum": scores.do_vacuum,
        "do_analyze": scores.do_analyze,
        "for_wraparound": scores.for_wraparound,
    }


def trigger_of(
    starts: str, what: str, count: float | None, limit: float | None, score: float | None
) -> TriggerRow:
    """Return one line of the panel."""
    past = None if count is None or not limit else 100 * count / max(limit, 1)
    left = None if count is None or limit is None or count > limit else int(limit) - count + 1
    return {
        "starts": starts,
        "what": what,
        "count": count,
        "limit": limit,
        "pct": past,
        "left": left,
        "is_past": count is not None and limit is not None and count > limit,
        "score": score,
    }


def words_of(part: PartRow, *, enabled: bool) -> str:
    """Return in a sentence what autovacuum would do now."""
    subject = "Its TOAST table" if part["name"] else "This table"
    if part["for_wraparound"]:
        return f"{subject} is due for a vacuum to prevent wraparound, which nothing turns off."
    if not enabled:
        return "" if part["name"] else "Autovacuum is off here: only wraparound would bring it."
    would = (("vacuum", part["do_vacuum"]), ("analyze", part["do_analyze"]))
    doing = [word for word, is_due in would if is_due]
    if doing:
        return f"{subject} is due for {' and '.join(doing)}: {part['reason']}."
    return "" if part["name"] else "This table is not due."
