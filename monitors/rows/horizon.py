"""The holders of the horizon as pages and exports show them: one row a holder, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from monitors.advisor import marked
from monitors.history import xids
from monitors.history.freshness import STALE_INTERVALS, interval_of
from monitors.history.window import Window
from monitors.models import Snapshot, Target
from monitors.rows import configuration
from monitors.rows.tables import read_at_of, rows_at
from monitors.rules import autovacuum, horizon

COLUMNS = (
    "kind",
    "holder",
    "backend_start",
    "database",
    "scope",
    "who",
    "application_name",
    "state",
    "active",
    "xmin",
    "xmin_age",
    "since",
    "held_since",
    "held_since_earliest",
    "held_seconds",
    "remedy",
    "statement",
    "read_at",
)
"""Keys of the export, in order."""

OLD_HOURS = ((24, "critical"), (6, "warning"), (1, "notice"))
"""From how many hours on a hold is how bad; the advisor's own, where dead rows exist."""

FEEDBACK = "hot_standby_feedback"

Row = dict[str, Any]


def holders_of(target: Target, window: Window) -> list[Row]:
    """Return who holds the horizon back now, or at the end of a window in the past.

    Keys beside `COLUMNS` and the probe's: held (words, '' where not known), ours, level,
    name, keeps (a sentence), sessions' `action` and `arguments` ('' and {} where no action helps).
    On a standby those that it has itself: those of its primary are not known there.
    """
    now = window.end
    holders = marked(horizon.oldest_first(rows_at("horizon", target, window)), target.logins)
    known = xids.dated([(target.pk, row["horizon_xid"]) for row in holders], now)
    backends = {
        (row["pid"], row["backend_start"]): row
        for row in marked(rows_at("activity", target, window), target.logins)
    }
    read_at = read_at_of(target, window, "horizon").get(0)
    reach = reach_from_standby(target, window) if target.in_recovery else reach_of
    return [
        holder_row(
            dict(row),
            known.get((target.pk, row["horizon_xid"])),
            backends.get(horizon.key_of(row)) if row["kind"] == horizon.SESSION else None,
            target,
            now,
        )
        | {"read_at": read_at}
        | reach(row)
        for row in holders
    ]


def reach_of(row: Mapping[str, Any]) -> Row:
    """Return a holder's scope, and in a sentence what it keeps."""
    return {"scope": horizon.scope_of(row), "keeps": horizon.kept_by(row)}


def reach_from_standby(target: Target, window: Window) -> Callable[[Mapping[str, Any]], Row]:
    """Return `reach_of` for a standby: what its holders do to the primary, its settings decide."""
    known = configuration.settings_of(target, None if window.is_live else window.end)
    setting = next((one["setting"] for one in known if one["name"] == FEEDBACK), None)
    feedback = None if setting is None else autovacuum.is_on(setting)

    def reach(row: Mapping[str, Any]) -> Row:
        return {
            "scope": horizon.scope_from_standby(row, feedback=feedback),
            "keeps": horizon.kept_from_standby(row, feedback=feedback),
        }

    return reach


def was_read(target: Target, window: Window) -> bool:
    """Tell whether holders were read at the window's end: else that there are none says nothing."""
    reach = timedelta(seconds=STALE_INTERVALS * interval_of(target, "horizon"))
    return Snapshot.objects.filter(
        target_id=target.pk,
        probe="horizon",
        state=Snapshot.State.OK,
        taken_at__lte=window.end,
        taken_at__gt=window.end - reach,
    ).exists()


def holder_row(
    row: Row, held: horizon.Held | None, backend: Row | None, target: Target, now: datetime
) -> Row:
    """Return one holder with what is computed from its row."""
    remedy = horizon.remedy(row, backend, target.server_version)
    seconds = held.seconds(now) if held else None
    hours = (seconds or 0) / 3600
    return {
        **row,
        "database": row["datname"],
        "xmin": row["horizon_xid"],
        "held_since": held.latest if held else None,
        "held_since_earliest": held.earliest if held else None,
        "held_seconds": seconds,
        "held": held.words(now) if held else "",
        "remedy": remedy.text,
        "statement": remedy.code,
        "action": remedy.action,
        "arguments": remedy.arguments,
        "ours": horizon.is_ours(row),
        "name": horizon.name_of(row, now),
        "level": next((level for least, level in OLD_HOURS if hours >= least), ""),
    }
