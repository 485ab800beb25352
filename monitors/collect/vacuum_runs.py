"""Keeps a record of every vacuum and analyze that ran, by hand or by autovacuum.

When a snapshot of `tables` is stored, counters that grew say that something ran,
and the server's own times say when the last one ended; samples of `progress` say
how it went. A snapshot in which nothing ran costs one query.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import Q

from monitors.history.reading import Place
from monitors.models import HISTORY, Action, Database, Snapshot, VacuumRun
from monitors.models.history import Change
from monitors.probe import Row

log = logging.getLogger(__name__)

KEPT = timedelta(days=365)
PROGRESS_REACH = timedelta(days=2)
"""How far back the samples of a run are looked for; a longer one keeps its end alone."""
SEEN_LAST = timedelta(seconds=60)
"""How long before its end a run was last seen at most; longer ago, it was another one."""
SLACK = timedelta(seconds=2)
"""Between the end of a run as its server says it and as our clock and samples do."""
MANUAL = {
    VacuumRun.Kind.VACUUM: ("vacuum",),
    VacuumRun.Kind.ANALYZE: ("analyze", "vacuum"),
    VacuumRun.Kind.VACUUM_FULL: ("vacuum_full",),
    VacuumRun.Kind.CLUSTER: ("cluster",),
    VacuumRun.Kind.REPACK: ("repack",),
    VacuumRun.Kind.REWRITE: ("vacuum_full", "cluster", "repack"),
}
"""Which of our actions does it."""
COMMANDS = {
    VacuumRun.Kind.VACUUM: "VACUUM",
    VacuumRun.Kind.AUTOVACUUM: "VACUUM",
    VacuumRun.Kind.ANALYZE: "ANALYZE",
    VacuumRun.Kind.AUTOANALYZE: "ANALYZE",
}
COUNTED = tuple(COMMANDS)
REWRITES = {
    "VACUUM FULL": VacuumRun.Kind.VACUUM_FULL,
    "CLUSTER": VacuumRun.Kind.CLUSTER,
    "REPACK": VacuumRun.Kind.REPACK,
}
"""What no counter counts, by the command of `progress`."""

Changed = tuple[Change, Row | None, Row]
"""As a comparison of snapshots has it: why, the row before, the row now."""


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


def note(place: Place, snapshot: Snapshot, seen: Seen, datname: str) -> None:
    """Write what ran since the last snapshot; never raises for what it can't write.

    One query where nothing ran, one more where autovacuum alone was at work.
    """
    read = {"tables": runs_in_tables, "progress": runs_in_progress}.get(place.history.probe.name)
    if read is None:
        return
    try:
        with transaction.atomic():
            if snapshot.probe == "tables":
                settle_rewrites(place, snapshot)
            found = read(place, snapshot, seen, datname)
            if found:
                VacuumRun.objects.bulk_create(found)
    except (DatabaseError, ArithmeticError, LookupError, TypeError, ValueError):
        log.exception("Vacuums of target %s are not recorded", place.target_id)


def runs_in_tables(place: Place, snapshot: Snapshot, seen: Seen, datname: str) -> list[VacuumRun]:
    """Return a row for each table and kind whose counter grew."""
    names = (*place.history.sample.columns(), *place.history.sample.refined)
    counters = [names.index(f"{kind}_count") for kind in COUNTED]
    found: list[Found] = []
    for change, before, now in seen.changed:
        if change in {Change.BASELINE, Change.UNKNOWN} or not any(now[i] for i in counters):
            continue
        if change == Change.CHANGED and before and all(before[i] == now[i] for i in counters):
            continue
        old = dict(zip(names, before, strict=True)) if before is not None else None
        found += runs_of(place, snapshot, seen, old, dict(zip(names, now, strict=True)))
    if found:
        refine(place, found, datname)
    rewrites = rewrites_of(place, snapshot, seen, names)
    runs = [*(one.run for one in found), *rewrites]
    name_people(place, runs, datname, snapshot)
    return runs


def rewrites_of(
    place: Place, snapshot: Snapshot, seen: Seen, names: Sequence[str]
) -> list[VacuumRun]:
    """Return a row for each table that has a new file with pages, where nobody saw it being written.

    TRUNCATE gives a new file too, and leaves it empty. No counter tells them apart: those of rows
    are gone after a crash, and ALTER TABLE leaves neither relpages nor reltuples.
    """
    file = names.index("relfilenode")
    pairs = [
        (dict(zip(names, before, strict=True)), dict(zip(names, now, strict=True)))
        for _, before, now in seen.changed
        if before and before[file] and now[file] and before[file] != now[file]
    ]
    pairs = [(old, now) for old, now in pairs if now["relkind"] in {"r", "m"} and is_filled(now)]
    if not pairs:
        return []
    known = VacuumRun.objects.filter(
        target_id=place.target_id,
        database_id=place.database_id,
        relid__in=[now["relid"] for _, now in pairs],
        kind__in=set(REWRITES.values()),
        ended_at__gte=(seen.before_at or snapshot.taken_at) - SLACK,
    )
    written = set(known.values_list("relid", flat=True))
    return [
        VacuumRun(
            target_id=place.target_id,
            database_id=place.database_id,
            relid=now["relid"],
            schemaname=now["schemaname"],
            relname=now["relname"],
            relkind=now["relkind"],
            kind=VacuumRun.Kind.REWRITE,
            exactness=VacuumRun.Exactness.SEEN,
            after_at=seen.before_at,
            ended_at=snapshot.target_at or snapshot.taken_at,
            wraparound=False,
            n_dead_before=old["n_dead_tup"],
            n_dead_after=now["n_dead_tup"],
            size_before=old["size_bytes"],
            size_after=now["size_bytes"],
            seen_at=snapshot.taken_at,
        )
        for old, now in pairs
        if now["relid"] not in written
    ]


def is_filled(now: Mapping[str, Any]) -> bool:
    """Tell whether a table's file has pages, by what wrote it or by its size where that was read."""
    return bool(now["relpages"]) or now["filled_file"] == now["relfilenode"]


@dataclass(frozen=True)
class Found:
    """A run, and when one of its kind had ended last on its table before."""

    run: VacuumRun
    former_at: datetime | None


def runs_of(
    place: Place,
    snapshot: Snapshot,
    seen: Seen,
    old: dict[str, Any] | None,
    now: dict[str, Any],
) -> list[Found]:
    """Return what ran on one table between two of its rows."""
    runs = []
    for kind in COUNTED:
        count, took = grown(old, now, kind, seen.before_at)
        ended_at = now[f"last_{kind}"]
        if not count or ended_at is None:
            continue
        exact = took is not None and count == 1
        run = VacuumRun(
            target_id=place.target_id,
            database_id=place.database_id,
            relid=now["relid"],
            schemaname=now["schemaname"],
            relname=now["relname"],
            relkind=now["relkind"],
            kind=kind,
            exactness=VacuumRun.Exactness.TIMED if count == 1 else VacuumRun.Exactness.COUNTED,
            count=count,
            after_at=seen.before_at,
            started_at=ended_at - timedelta(milliseconds=took or 0) if exact else None,
            ended_at=ended_at,
            seconds=None if took is None else took / 1000,
            by="autovacuum" if kind.startswith("auto") else "",
            wraparound=None if kind == VacuumRun.Kind.AUTOVACUUM else False,
            n_dead_before=old["n_dead_tup"] if old else None,
            n_dead_after=now["n_dead_tup"],
            size_before=old["size_bytes"] if old else None,
            size_after=now["size_bytes"],
            seen_at=snapshot.taken_at,
        )
        runs.append(Found(run, old[f"last_{kind}"] if old else None))
    return runs


def grown(
    old: dict[str, Any] | None, now: dict[str, Any], kind: str, before_at: datetime | None
) -> tuple[int, float | None]:
    """Return how many of a kind ran, and the milliseconds that they took together (18+, else None).

    The server's time of the last one must have moved too: a reset sets both back and is no run.
    """
    after, total = int(now[f"{kind}_count"] or 0), now[f"total_{kind}_time"]
    last_at = now[f"last_{kind}"]
    if old is None:
        if last_at is None or (before_at is not None and last_at <= before_at):
            return 0, None
        # An empty TOAST table is not read: of one that appears, earlier runs are counted too.
        return (1, None) if now["relkind"] == "t" and after > 1 else (after, total)
    if last_at is None or last_at == old[f"last_{kind}"]:
        return 0, None
    before = int(old[f"{kind}_count"] or 0)
    if after <= before:  # they began anew
        return after, total
    former = old[f"total_{kind}_time"]
    if total is None or former is None or total < former:
        return after - before, None
    return after - before, total - former


def refine(place: Place, found: Sequence[Found], datname: str) -> None:
    """Add what the samples of `progress` saw of each run: one query, two where people are about."""
    samples = HISTORY["progress"].samples._default_manager.filter(
        target_id=place.target_id,
        datname=datname,
        command__in=set(COMMANDS.values()),
        taken_at__gte=found[0].run.seen_at - PROGRESS_REACH,
    )
    rows = list(
        samples.filter(relid__in={one.run.relid for one in found}).order_by("taken_at").values()
    )
    by_hand = [row for row in rows if not row["autovacuum"]]
    statements = {(row["pid"], row["started_at"]) for row in by_hand}
    others = list(
        samples.filter(
            pid__in={pid for pid, _ in statements}, started_at__in={at for _, at in statements}
        ).values("pid", "started_at", "relid", "command", "target_at")
        if statements
        else ()
    )
    for one in found:
        mine = [row for row in rows if may_be_of(row, one)]
        if mine and one.run.ended_at - mine[-1]["target_at"] <= SEEN_LAST:
            name = (mine[-1]["pid"], mine[-1]["started_at"])
            mine = [row for row in mine if (row["pid"], row["started_at"]) == name]
            add_progress(one.run, mine, later_part=is_later_part(mine[0], others))


def may_be_of(row: dict[str, Any], one: Found) -> bool:
    """Tell whether a progress sample is of a run, or of one that ended before it unseen."""
    run = one.run
    return bool(
        row["relid"] == run.relid
        and row["command"] == COMMANDS[VacuumRun.Kind(run.kind)]
        and bool(row["autovacuum"]) == run.kind.startswith("auto")
        and row["target_at"] <= run.ended_at + SLACK
        and (one.former_at is None or row["target_at"] > one.former_at)
        and row["started_at"] is not None
        and row["started_at"] <= run.ended_at
    )


def is_later_part(first: dict[str, Any], others: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a statement had worked on something else before: its start is not this one's."""
    return any(
        (row["pid"], row["started_at"]) == (first["pid"], first["started_at"])
        and (row["relid"], row["command"]) != (first["relid"], first["command"])
        and row["target_at"] < first["target_at"]
        for row in others
    )


def add_progress(run: VacuumRun, samples: list[dict[str, Any]], *, later_part: bool) -> None:
    """Add start, who, passes and phases as samples of the run, oldest first, saw them."""
    first = samples[0]
    began = first["target_at"] if later_part else first["started_at"]
    if run.started_at is None and began <= run.ended_at:
        run.started_at, run.start_is_estimate = began, later_part
        if run.count == 1 and run.seconds is None and not later_part:
            run.seconds = (run.ended_at - began).total_seconds()
    run.by = run.by or first["usename"] or ""
    if run.kind == VacuumRun.Kind.AUTOVACUUM:
        run.wraparound = any(row["wraparound"] for row in samples)
    if first["command"] == "VACUUM":
        run.passes = max(row["index_vacuum_count"] or 0 for row in samples)
    run.phases = phases_of(samples)


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


def runs_in_progress(
    place: Place, snapshot: Snapshot, seen: Seen, _datname: str
) -> list[VacuumRun]:
    """Return the rewrites (VACUUM FULL, CLUSTER, REPACK) that are no longer running: no counter has them."""
    over = [key for key in seen.gone if key[1] in REWRITES]
    if not over:
        return []
    rows = HISTORY["progress"].samples._default_manager.filter(
        target_id=place.target_id,
        pid__in={pid for pid, *_ in over},
        command__in=set(REWRITES),
        relid__isnull=False,
        taken_at__gte=snapshot.taken_at - PROGRESS_REACH,
        taken_at__lt=snapshot.taken_at,
    )
    samples = list(rows.order_by("taken_at").values())
    databases = dict(
        Database.objects.filter(target_id=place.target_id, gone_at=None).values_list(
            "datname", "pk"
        )
    )
    found = []
    for pid, command, *_ in over:
        mine = [row for row in samples if (row["pid"], row["command"]) == (pid, command)]
        mine = [row for row in mine if row["started_at"] == mine[-1]["started_at"]]
        if mine and mine[-1]["datname"] in databases:
            database_id = databases[mine[-1]["datname"]]
            found.append(rewrite_of(place, database_id, mine, snapshot))
            take_over(found[-1])
            name_people(place, found[-1:], mine[-1]["datname"], snapshot)
    return found


def take_over(run: VacuumRun) -> None:
    """Replace what a snapshot of tables wrote of a rewrite before its end was seen; keep its figures."""
    unseen = VacuumRun.objects.filter(
        target_id=run.target_id,
        database_id=run.database_id,
        relid=run.relid,
        kind__in={VacuumRun.Kind.REWRITE, *REWRITES.values()},
        phases={},  # nobody saw it running
        after_at__lte=run.ended_at,
        ended_at__gte=run.started_at or run.ended_at,
    )
    first = unseen.order_by("ended_at").first()
    if first is None:
        return
    run.size_after, run.n_dead_after = first.size_after, first.n_dead_after
    run.seen_at = first.seen_at
    if run.after_at:
        run.ended_at = max(min(run.ended_at, first.ended_at), run.after_at)
    unseen.delete()


def settle_rewrites(place: Place, snapshot: Snapshot) -> None:
    """Add what became of rewrites that ended before a snapshot of tables; forget those without effect.

    One that failed or was cancelled leaves the table its file: as of a vacuum that was cancelled,
    nothing is recorded.
    """
    read_at = snapshot.target_at or snapshot.taken_at
    open_runs = VacuumRun.objects.filter(
        target_id=place.target_id,
        database_id=place.database_id,
        kind__in=set(REWRITES.values()),
        size_after=None,
        ended_at__gt=read_at - PROGRESS_REACH,
        ended_at__lte=read_at,
    )
    for run in open_runs:
        before, now = table_before(run), latest_of(run)
        if not now or now["relfilenode"] is None:
            continue
        if before and before["relfilenode"] == now["relfilenode"]:
            run.delete()
        elif now["size_bytes"] is not None:
            run.size_after, run.n_dead_after = now["size_bytes"], now["n_dead_tup"]
            run.seen_at = snapshot.taken_at
            run.save(update_fields=["size_after", "n_dead_after", "seen_at"])


NEEDED = ("relfilenode", "n_dead_tup", "size_bytes")
"""What a record of a rewrite takes from a reading of its table."""


def latest_of(run: VacuumRun) -> dict[str, Any]:
    """Return `NEEDED` of a run's table as it was read last, {} where it is gone or never was read."""
    found = HISTORY["tables"].latest._default_manager.filter(gone_at=None, **place_of(run))
    return found.values(*NEEDED).first() or {}


def table_before(run: VacuumRun) -> dict[str, Any]:
    """Return `NEEDED` of a run's table as it was read last before the run began, {} where it never was.

    Samples are kept for some days: what has none of before and did not change since is as read last.
    """
    began, tables = run.started_at or run.after_at or run.ended_at, HISTORY["tables"]
    samples = tables.samples._default_manager.filter(target_at__lte=began, **place_of(run))
    row = samples.order_by("-target_at").values("change", *NEEDED).first()
    if row is not None:
        return row if row["change"] != Change.GONE else {}
    latest = tables.latest._default_manager.filter(changed_at__lte=began, **place_of(run))
    return latest.filter(gone_at=None).values(*NEEDED).first() or {}


def place_of(run: VacuumRun) -> dict[str, int]:
    """Return what names a run's table in the history."""
    return {"target_id": run.target_id, "database_id": run.database_id, "relid": run.relid}


def rewrite_of(
    place: Place, database_id: int, samples: list[dict[str, Any]], snapshot: Snapshot
) -> VacuumRun:
    """Return a rewrite that was seen while it ran; it ended after its last sample."""
    first, last = samples[0], samples[-1]
    run = VacuumRun(
        target_id=place.target_id,
        database_id=database_id,
        relid=last["relid"],
        kind=REWRITES[last["command"]],
        exactness=VacuumRun.Exactness.SEEN,
        after_at=last["target_at"],
        started_at=first["started_at"],
        ended_at=snapshot.target_at or snapshot.taken_at,
        by=first["usename"] or "",
        wraparound=False,
        phases=phases_of(samples),
        seen_at=snapshot.taken_at,
    )
    before = table_before(run)
    named = HISTORY["tables"].latest._default_manager.filter(**place_of(run))
    names = named.values("schemaname", "relname", "relkind").first() or {}
    for name, value in names.items():
        setattr(run, name, value)
    run.n_dead_before, run.size_before = before.get("n_dead_tup"), before.get("size_bytes")
    return run


def prune(now: datetime) -> None:
    """Forget runs that are older than a year."""
    VacuumRun.objects.filter(seen_at__lt=now - KEPT).delete()
