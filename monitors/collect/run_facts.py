"""What every run in the record has, however it was seen: its phases, and who asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from monitors.history.reading import Place
from monitors.models import Action, Snapshot, VacuumRun
from monitors.models.history import Change
from monitors.probe import Row

Changed = tuple[Change, Row | None, Row]
"""As a comparison of snapshots has it: why, the row before, the row now."""
MANUAL = {
    VacuumRun.Kind.VACUUM: ("vacuum",),
    VacuumRun.Kind.ANALYZE: ("analyze", "vacuum"),
    VacuumRun.Kind.VACUUM_FULL: ("vacuum_full",),
    VacuumRun.Kind.CLUSTER: ("cluster",),
    VacuumRun.Kind.REPACK: ("repack",),
    VacuumRun.Kind.REWRITE: ("vacuum_full", "cluster", "repack"),
}
"""Which of our actions does it."""
SLACK = timedelta(seconds=2)
"""Between the end of a run as its server says it and as our clock and samples do."""


@dataclass
class Seen:
    """What a stored snapshot brought; filled by the store."""

    changed: Sequence[Changed] = ()
    gone: Sequence[Row] = ()
    before_at: datetime | None = None  # when the snapshot before was taken, the target's clock

    def take(
        self, changed: Sequence[Changed], gone: Sequence[Row], before_at: datetime | None
    ) -> None:
        """Remember what the store says."""
        self.changed, self.gone, self.before_at = changed, gone, before_at


def phases_of(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return {phase: seconds} from each phase's first sight to the next one's, in their order.

    The last phase ends with its last sight: how long it went on is not known.
    """
    found: dict[str, float] = {}
    for row, following in zip(samples, [*samples[1:], samples[-1]], strict=True):
        seconds = (following["target_at"] - row["target_at"]).total_seconds()
        found[row["phase"]] = round(found.get(row["phase"], 0.0) + seconds, 3)
    return found


def name_people(place: Place, runs: Iterable[VacuumRun], datname: str, snapshot: Snapshot) -> None:
    """Add who asked for what was done through Howdah; one query, none where all was autovacuum's."""
    manual = [run for run in runs if VacuumRun.Kind(run.kind) in MANUAL]
    if not manual:
        return
    skew = snapshot.taken_at - snapshot.target_at if snapshot.target_at else timedelta(0)
    actions = list(
        Action.objects.filter(
            target_id=place.target_id,
            name__in={name for names in MANUAL.values() for name in names},
            identity__relid__in=sorted({run.relid for run in manual}),
            started_at__lte=max(run.ended_at for run in manual) + skew + SLACK,
        )
        .filter(Q(finished_at__isnull=False) | Q(state=Action.State.RUNNING))
        .order_by("-started_at")
        .values(
            "id",
            "name",
            "identity",
            "arguments",
            "asked_by_name",
            "state",
            "started_at",
            "finished_at",
            "backend_start",
        )[:1000]
    )
    for run in manual:
        for action in actions:
            if (
                action["name"] in MANUAL[VacuumRun.Kind(run.kind)]
                and action["identity"].get("relid") == run.relid
                and action["arguments"].get("database", datname) == datname
                and may_have_done(action, run, skew)
            ):
                run.by, run.action_id = action["asked_by_name"], action["id"]
                if run.kind == VacuumRun.Kind.REWRITE:
                    run.kind = VacuumRun.Kind(action["name"])
                add_end(run, action, skew)
                add_start(run, action)
                break


def may_have_done(action: Mapping[str, Any], run: VacuumRun, skew: timedelta) -> bool:
    """Tell whether a run falls into the time of an action; `skew` is our clock less the target's.

    The end of one that was only seen lies between two looks, so the action may be over before the
    second. What watched it run knows its start; what saw a new file alone knows that it succeeded.
    """
    began, ended = action["started_at"], action["finished_at"]
    is_seen = run.exactness == VacuumRun.Exactness.SEEN
    earliest = run.after_at if is_seen and run.after_at else run.ended_at
    if began is None or began > run.ended_at + skew + SLACK:
        return False
    if ended is not None and ended < earliest + skew - SLACK:
        return False
    if not is_seen:
        return ended is None or run.ended_at + skew <= ended + SLACK
    if run.kind == VacuumRun.Kind.REWRITE:
        return action["state"] in {Action.State.RUNNING, Action.State.SUCCEEDED}
    connected = action["backend_start"]
    return connected is None or run.started_at is None or connected <= run.started_at


def add_end(run: VacuumRun, action: Mapping[str, Any], skew: timedelta) -> None:
    """Let a run that was only seen end with its action, where that was over before the next look."""
    if run.exactness != VacuumRun.Exactness.SEEN or action["finished_at"] is None:
        return
    ended_at = min(run.ended_at, action["finished_at"] - skew)
    run.ended_at = max(ended_at, run.after_at or ended_at)


def add_start(run: VacuumRun, action: Mapping[str, Any]) -> None:
    """Add when a run of ours began, where neither the server (before 18) nor a sample says it.

    Its session was opened for the one statement, just before: by the target's clock, milliseconds
    too early and with the wait for the table's lock.
    """
    began, names = action["backend_start"], MANUAL[VacuumRun.Kind(run.kind)]
    if began is None or began > run.ended_at or action["name"] != names[0] or run.count != 1:
        return
    if run.started_at is None:
        run.started_at, run.start_is_estimate = began, True
    if run.seconds is None:
        run.seconds = (run.ended_at - began).total_seconds()
