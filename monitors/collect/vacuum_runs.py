"""Keeps a record of every vacuum and analyze that ran, by hand or by autovacuum.

When a snapshot of `tables` is stored, counters that grew say that something ran,
and the server's own times say when the last one ended; samples of `progress` say
how it went. A snapshot in which nothing ran costs one query.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, transaction

from monitors.collect.rewrites import (
    PROGRESS_REACH,
    SEEN_LAST,
    rewrites_of,
    runs_in_progress,
    settle_rewrites,
)
from monitors.collect.run_facts import SLACK, Seen, name_people, phases_of
from monitors.history.reading import Place
from monitors.models import HISTORY, Snapshot, VacuumRun
from monitors.models.history import Change

log = logging.getLogger(__name__)

KEPT = timedelta(days=365)
COMMANDS = {
    VacuumRun.Kind.VACUUM: "VACUUM",
    VacuumRun.Kind.AUTOVACUUM: "VACUUM",
    VacuumRun.Kind.ANALYZE: "ANALYZE",
    VacuumRun.Kind.AUTOANALYZE: "ANALYZE",
}
COUNTED = tuple(COMMANDS)


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
    # Where it was written anew meanwhile, nobody knows what this found and what that had removed.
    is_anew = old is not None and old["relfilenode"] != now["relfilenode"]
    before = old if old is not None and not is_anew else {}
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
            n_dead_before=before.get("n_dead_tup"),
            n_dead_after=now["n_dead_tup"],
            size_before=before.get("size_bytes"),
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


def prune(now: datetime) -> None:
    """Forget runs that are older than a year."""
    VacuumRun.objects.filter(seen_at__lt=now - KEPT).delete()
