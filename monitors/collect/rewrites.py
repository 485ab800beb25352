"""Rewrites (VACUUM FULL, CLUSTER, REPACK) in the record: no counter has them, a new file tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import timedelta
from typing import Any
from uuid import UUID

from monitors.collect.run_facts import SLACK, Seen, name_people, phases_of
from monitors.history.reading import Place
from monitors.models import HISTORY, Action, Database, Snapshot, Target, VacuumRun
from monitors.models.history import Change

PROGRESS_REACH = timedelta(days=2)
"""How far back the samples of a run are looked for; a longer one keeps its end alone."""
SEEN_LAST = timedelta(seconds=60)
"""How long before its end a run was last seen at most; longer ago, it was another one."""
REWRITES = {
    "VACUUM FULL": VacuumRun.Kind.VACUUM_FULL,
    "CLUSTER": VacuumRun.Kind.CLUSTER,
    "REPACK": VacuumRun.Kind.REPACK,
}
"""What no counter counts, by the command of `progress`."""


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
    take_turns(place)
    known = VacuumRun.objects.filter(
        target_id=place.target_id,
        database_id=place.database_id,
        relid__in=[now["relid"] for _, now in pairs],
        kind__in=set(REWRITES.values()),
        ended_at__gte=(seen.before_at or snapshot.taken_at) - SLACK,
    )
    # What an earlier snapshot has seen the end of gave the table the file of then, not this one.
    known = known.exclude(size_after__isnull=False, seen_at__lt=snapshot.taken_at)
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


def take_turns(place: Place) -> None:
    """Let snapshots of a target that see the same rewrite at once write it one after the other.

    Until the end of the transaction; who comes second sees what the first one wrote.
    """
    list(Target.objects.select_for_update(no_key=True).filter(pk=place.target_id).values("pk"))


def is_filled(now: Mapping[str, Any]) -> bool:
    """Tell whether a table's file has pages, by what wrote it or by its size where that was read."""
    return bool(now["relpages"]) or now["filled_file"] == now["relfilenode"]


def runs_in_progress(
    place: Place, snapshot: Snapshot, seen: Seen, _datname: str
) -> list[VacuumRun]:
    """Return the rewrites (VACUUM FULL, CLUSTER, REPACK) that are no longer running: no counter has them."""
    over = [key for key in seen.gone if key[1] in REWRITES]
    if not over:
        return []
    take_turns(place)
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
            run = rewrite_of(place, database_id, mine, snapshot)
            asked = copy(run)  # its end may yet be told better, and that names who it was
            name_people(place, [asked], mine[-1]["datname"], snapshot)
            if find_failed([asked]):
                continue
            take_over(run)
            name_people(place, [run], mine[-1]["datname"], snapshot)
            found.append(run)
    return found


def find_failed(runs: Iterable[VacuumRun]) -> set[UUID]:
    """Return the actions of runs that are known to have failed, so that these have no effect."""
    wanted = {run.action_id for run in runs if run.action_id}
    states = (Action.State.FAILED, Action.State.CANCELLED)
    rows = (
        Action.objects.filter(pk__in=wanted, state__in=states) if wanted else Action.objects.none()
    )
    return set(rows.values_list("pk", flat=True))


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
    without_effect = find_failed(open_runs)
    for run in open_runs:
        if run.action_id in without_effect:
            run.delete()
            continue
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
