"""A target's settings: as they are or were, what changed, and how two sets of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypedDict

from django.db.models import Sum

from monitors.history.counters import read_sums
from monitors.history.latest import read_latest
from monitors.history.reading import Comparison, Place
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Mark, SettingChange, Target
from monitors.probe import Reading, Row
from monitors.probes.settings import SettingsSample
from monitors.rules import autovacuum, setting
from monitors.rules.settings_advice import Facts

Settings = list[Reading]
"""Of one target, by name."""


class ChangeRow(TypedDict):
    """A setting that changed between two snapshots; None where the server had no such setting."""

    at: datetime
    before_at: datetime
    name: str
    kind: str  # `setting.what_changed`
    setting_before: str | None
    setting: str | None
    unit: str | None
    source_before: str | None
    source: str | None
    sourcefile: str | None
    file: str  # its name alone, '' where no file sets it
    pending_restart: bool | None
    context: str | None
    was: str  # in words
    value: str
    words: str  # of the change


class DifferenceRow(TypedDict):
    """A setting that has another value in another set (`with_…`); None where one set has it not."""

    name: str
    setting: str | None
    unit: str | None
    source: str | None
    with_setting: str | None
    with_unit: str | None
    with_source: str | None
    difference: str  # value, only here or only there
    short_desc: str | None
    value: str | None  # in words
    with_value: str | None


NAMED = 3  # changes that a mark names; more are counted
KEPT = (*SettingsSample.facts, *SettingsSample.labels)
"""The columns that a change keeps of both sides."""
DIFFERENCE = (
    "name",
    "setting",
    "unit",
    "source",
    "with_setting",
    "with_unit",
    "with_source",
    "difference",
)
"""Keys of a difference, in the order of an export."""


def note_changes(
    place: Place, comparison: Comparison, taken_at: datetime, before_at: datetime | None
) -> None:
    """Keep what a snapshot of the settings shows as changed, and mark it on the charts.

    Runs inside the snapshot's transaction. The first snapshot is no change. Rows are
    kept for every difference, so that the past can be rebuilt; the mark speaks of
    values and of restarts that are awaited.
    """
    if before_at is None:
        return
    columns = place.history.sample.columns()
    found = [
        (row[0], kept_of(before, columns), kept_of(row, columns))
        for _change, before, row in comparison.changed
    ]
    gone = [key[0] for key in comparison.gone]
    latest = place.history.latest._default_manager
    left = latest.filter(target_id=place.target_id, name__in=gone).values_list(*columns)
    found += [(row[0], kept_of(row, columns), None) for row in left]
    SettingChange.objects.bulk_create(
        SettingChange(
            target_id=place.target_id,
            at=taken_at,
            before_at=before_at,
            name=name,
            before=before,
            after=after,
        )
        for name, before, after in found
    )
    text = mark_text(found)
    if text:
        Mark.objects.create(
            target_id=place.target_id, at=taken_at, kind=Mark.Kind.SETTING, text=text
        )


def kept_of(row: Row | None, columns: Sequence[str]) -> dict[str, Any] | None:
    """Return what a change keeps of a probe's row; None for no row.

    A pooler's settings have no unit and no source: those are None.
    """
    if row is None:
        return None
    named = dict(zip(columns, row, strict=False))
    return {name: named.get(name) for name in KEPT}


Change = tuple[str, Reading | None, Reading | None]
"""Name, before, after; None where the server had no such setting."""


def mark_text(found: Iterable[Change]) -> str:
    """Return one sentence for all that a snapshot shows as changed; empty where a chart needs none.

    An upgrade changes many at once: the first are named, the others counted.
    """
    kinds: dict[str, list[str]] = {}
    for name, before, after in sorted(found, key=lambda change: change[0]):
        kind = setting.what_changed(before, after)
        if name.startswith("server_version"):  # the mark of an upgrade says so
            continue
        kinds.setdefault(kind, []).append(setting.change_words(name, before, after))
    told = kinds.get("value", []) + kinds.get("pending", [])
    if not told:
        return ""
    parts = told[:NAMED]
    counted = (
        (len(told) - NAMED, "more changed"),
        (len(kinds.get("appeared", ())), "new"),
        (len(kinds.get("gone", ())), "gone"),
    )
    parts += [f"{count} {words}" for count, words in counted if count > 0]
    return f"Settings: {', '.join(parts)}."[:300]


def settings_of(
    target: Target, at: datetime | None = None, probe_name: str = "settings"
) -> Settings:
    """Return a target's settings by name as last read, or as they stood at a moment.

    The past is rebuilt from the present by taking back every change since, so it
    reaches back to the first snapshot, before which it is empty.
    """
    known = {row["name"]: row for row in read_latest(probe_name, target.pk, gone=True)}
    present = {name: row for name, row in known.items() if row["gone_at"] is None}
    if at is not None:
        first = min((row["since_at"] for row in known.values()), default=None)
        if first is None or at < first:
            return []
        later = SettingChange.objects.filter(target=target, at__gt=at).order_by("-at", "-pk")
        for change in later:
            if change.before is None:
                present.pop(change.name, None)
            else:
                now = known.get(change.name, {"name": change.name})
                present[change.name] = {**now, **change.before}
    return [present[name] for name in sorted(present)]


def changes_of(target: Target, window: Window) -> list[ChangeRow]:
    """Return what changed in a window, newest first; without what only Howdah's session changed."""
    rows = SettingChange.objects.filter(
        target=target, at__gte=window.start, at__lt=window.end
    ).order_by("-at", "name")
    return [describe(row) for row in rows if setting.what_changed(row.before, row.after)]


def last_change(target: Target, before: datetime) -> ChangeRow | None:
    """Return the newest change before a moment, None where there is none."""
    rows = SettingChange.objects.filter(target=target, at__lt=before).order_by("-at", "name")
    return next(
        (describe(row) for row in rows[:50] if setting.what_changed(row.before, row.after)), None
    )


def describe(change: SettingChange) -> ChangeRow:
    """Return a change as a row of the list and of exports."""
    before, after = change.before or {}, change.after or {}
    return {
        "at": change.at,
        "before_at": change.before_at,
        "name": change.name,
        "kind": setting.what_changed(change.before, change.after),
        "setting_before": before.get("setting"),
        "setting": after.get("setting"),
        "unit": after.get("unit") or before.get("unit"),
        "source_before": before.get("source"),
        "source": after.get("source"),
        "sourcefile": after.get("sourcefile"),
        "file": (after.get("sourcefile") or "").replace("\\", "/").rpartition("/")[2],
        "pending_restart": after.get("pending_restart"),
        "context": after.get("context") or before.get("context"),
        "was": setting.words_of(before.get("setting"), before.get("unit")),
        "value": setting.words_of(after.get("setting"), after.get("unit")),
        "words": setting.change_words(change.name, change.before, change.after),
    }


CHANGE = (
    "at",
    "before_at",
    "name",
    "kind",
    "setting_before",
    "setting",
    "unit",
    "source_before",
    "source",
    "pending_restart",
)
"""Keys of a change, in the order of an export."""


def difference_of(here: Sequence[Reading], there: Sequence[Reading]) -> list[DifferenceRow]:
    """Return the settings whose values differ between two sets, by name.

    What is not known on one side, because Howdah's own session sets it there, is left out.
    """
    left = {row["name"]: row for row in here}
    right = {row["name"]: row for row in there}
    found: list[DifferenceRow] = []
    for name in sorted(left.keys() | right.keys()):
        one, other = left.get(name), right.get(name)
        kind = setting.what_changed(one, other)
        if kind not in {"value", "appeared", "gone"}:
            continue
        mine, theirs = one or {}, other or {}
        found.append(
            {
                "name": name,
                "setting": mine.get("setting"),
                "unit": mine.get("unit"),
                "source": mine.get("source"),
                "with_setting": theirs.get("setting"),
                "with_unit": theirs.get("unit"),
                "with_source": theirs.get("source"),
                "difference": {"appeared": "only there", "gone": "only here"}.get(kind, kind),
                "short_desc": (one or theirs).get("short_desc"),
                "value": words_or_none(one),
                "with_value": words_or_none(other),
            }
        )
    return found


def words_or_none(row: Reading | None) -> str | None:
    """Return a setting's value in words; None where the server has no such setting."""
    return None if row is None else setting.words_of(row["setting"], row["unit"])


def facts_of(target: Target, window: Window) -> Facts:
    """Return the numbers that advice on settings rests on: of now, and of a window that ends now.

    What was never read is None, as is what a standby can't know. Reads the tables that have dead rows.
    """
    counted = not target.in_recovery
    tables = HISTORY["tables"].latest._default_manager.filter(
        target_id=target.pk, gone_at=None, database_id__in=included(target)
    )
    dead = list(
        tables.filter(n_dead_tup__gt=0).values(
            "reloptions", "reltuples", "relpages", "relallfrozen", "relkind", "n_dead_tup"
        )
    )
    size = tables.exclude(relkind="t").aggregate(size=Sum("size_bytes"))["size"]
    seconds = max((window.end - max(window.start, target.created_at)).total_seconds(), 1)
    wal = growth_of("statements", "wal_bytes", target, window)
    return Facts(
        server_version=target.server_version,
        tables_due=sum(1 for row in dead if is_due(row, target)) if counted else None,
        most_dead=max((row["n_dead_tup"] for row in dead), default=0) if counted else None,
        tables_bytes=size,
        temp_bytes=growth_of("databases", "temp_bytes", target, window),
        wal_bytes_per_second=None if wal is None else wal / seconds,
    )


def included(target: Target) -> list[int]:
    """Return our ids of the databases that are watched."""
    rows = Database.objects.filter(target=target, included=True, gone_at__isnull=True)
    return list(rows.values_list("pk", flat=True))


def is_due(row: Reading, target: Target) -> bool:
    """Tell whether a table has more dead rows than autovacuum waits for."""
    limits = autovacuum.threshold_of(row, target.settings, target.server_version)
    return limits.enabled and row["n_dead_tup"] > limits.vacuum


def growth_of(probe_name: str, counter: str, target: Target, window: Window) -> float | None:
    """Return what a counter grew by in a window, over all objects; None where nothing was read."""
    rows = read_sums(probe_name, target.pk, window, [counter])
    return float(sum(row[counter] for row in rows)) if rows else None
