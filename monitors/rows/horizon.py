"""The holders of the horizon as pages and exports show them: one row a holder, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

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


class Reach(TypedDict):
    """What a holder keeps vacuum from cleaning."""

    scope: str
    keeps: str  # the same as a sentence


class HolderRow(Reach):
    """One holder of the horizon; what is not known, or has no sense for its kind, is None."""

    kind: str  # of `rules.horizon.KINDS`
    holder: str  # pid, slot name or gid
    backend_start: datetime | None
    database: str | None  # None too: of none alone
    who: str | None  # user, kind of process, owner, or the slot's plugin
    application_name: str | None
    state: str | None
    active: bool | None  # of a slot: somebody reads it
    xmin: int | None  # 64 bit
    xmin_age: int  # transactions
    since: datetime | None
    held: str  # how long in words, '' where not known
    held_since: datetime | None
    held_since_earliest: datetime | None  # None: the history begins later
    held_seconds: float | None  # at least
    level: str  # by how long it is held
    name: str  # in words
    ours: bool  # one of Howdah's own sessions
    remedy: str
    statement: str  # '' where there is none that helps
    action: str  # the same
    arguments: Mapping[str, str]  # of the action
    read_at: datetime | None


def holders_of(target: Target, window: Window) -> list[HolderRow]:
    """Return who holds the horizon back now, or at the end of a window in the past.

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
    rows = []
    for row in holders:
        held = known.get((target.pk, row["horizon_xid"]))
        backend = backends.get(horizon.key_of(row)) if row["kind"] == horizon.SESSION else None
        remedy = horizon.remedy(row, backend, target.server_version)
        rows.append(holder_row(row, held, remedy, reach(row), now, read_at))
    return rows


def reach_of(row: Mapping[str, Any]) -> Reach:
    """Return a holder's scope, and in a sentence what it keeps."""
    return {"scope": horizon.scope_of(row), "keeps": horizon.kept_by(row)}


def reach_from_standby(target: Target, window: Window) -> Callable[[Mapping[str, Any]], Reach]:
    """Return `reach_of` for a standby: what its holders do to the primary, its settings decide."""
    known = configuration.settings_of(target, None if window.is_live else window.end)
    setting = next((one["setting"] for one in known if one["name"] == FEEDBACK), None)
    feedback = None if setting is None else autovacuum.is_on(setting)

    def reach(row: Mapping[str, Any]) -> Reach:
        return {
            "scope": horizon.scope_from_standby(row, feedback=feedback),
            "keeps": horizon.kept_from_standby(row, feedback=feedback),
        }

    return reach


def last_read(target: Target, window: Window) -> datetime | None:
    """Return when holders were read at the window's end, None: not, so that none says nothing."""
    reach = timedelta(seconds=STALE_INTERVALS * interval_of(target, "horizon"))
    found = Snapshot.objects.filter(
        target_id=target.pk,
        probe="horizon",
        state=Snapshot.State.OK,
        taken_at__lte=window.end,
        taken_at__gt=window.end - reach,
    )
    return found.order_by("-taken_at").values_list("taken_at", flat=True).first()


def holder_row(
    row: Mapping[str, Any],
    held: horizon.Held | None,
    remedy: horizon.Remedy,
    reach: Reach,
    now: datetime,
    read_at: datetime | None,
) -> HolderRow:
    """Return one marked holder with what is computed from its row."""
    seconds = held.seconds(now) if held else None
    hours = (seconds or 0) / 3600
    return {
        **reach,
        "kind": row["kind"],
        "holder": row["holder"],
        "backend_start": row["backend_start"],
        "database": row["datname"],
        "who": row["who"],
        "application_name": row["application_name"],
        "state": row["state"],
        "active": row["active"],
        "xmin": row["horizon_xid"],
        "xmin_age": row["xmin_age"],
        "since": row["since"],
        "held": held.words(now) if held else "",
        "held_since": held.latest if held else None,
        "held_since_earliest": held.earliest if held else None,
        "held_seconds": seconds,
        "level": next((level for least, level in OLD_HOURS if hours >= least), ""),
        "name": horizon.name_of(row, now),
        "ours": horizon.is_ours(row),
        "remedy": remedy.text,
        "statement": remedy.code,
        "action": remedy.action,
        "arguments": remedy.arguments,
        "read_at": read_at,
    }
