"""Vacuums and analyzes that run: how far they are, how fast, and who holds them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from django.utils import timezone

from monitors.advisor import TRANSFERS, backend_name, is_client, marked, table_name
from monitors.models import HISTORY, Database, Target, VacuumRun
from monitors.probe import Reading
from monitors.rows.vacuum_parts import VACUUM_KINDS, rows_at, rows_ever, skew_of
from monitors.rules import vacuum_progress

RUNNING_COLUMNS = (
    "pid",
    "command",
    "datname",
    "table",
    "relid",
    "autovacuum",
    "wraparound",
    "usename",
    "started_at",
    "seconds",
    "phase",
    "pct",
    "index_vacuum_count",
    "indexes_processed",
    "indexes_total",
    "dead_rows",
    "dead_bytes",
    "dead_memory_pct",
    "delay_pct",
    "pages_per_second",
    "eta_seconds",
    "eta_error_pct",
    "eta_of",
    "why_slow",
)
SPEED_REACH = timedelta(hours=2)
"""How far back a running vacuum's samples are read."""
HELD_BEFORE = timedelta(seconds=60)
"""A transaction that is so much older than a vacuum keeps it from removing rows."""


class RunningRow(TypedDict):
    """A command that runs; None where the server, of its version or to this login, does not say."""

    pid: int
    command: str
    datname: str
    table: str | None  # None, as the next two: its table was not read yet
    datid: int | None
    main_relid: int | None  # of the table that has a page
    relid: int | None
    autovacuum: bool | None
    wraparound: bool | None
    usename: str | None
    started_at: datetime | None
    seconds: float
    phase: str
    pct: float | None  # of its phase
    index_vacuum_count: int | None
    indexes_processed: int | None
    indexes_total: int | None
    dead_rows: int | None  # in memory
    dead_bytes: int | None
    dead_memory_pct: float | None  # of what it may use
    delay_pct: float | None  # of its time, slept for the cost limit
    pages_per_second: float | None  # of the heap
    eta_seconds: float | None
    eta_error_pct: float | None  # None: too few predictions to tell
    eta_tested: int  # predictions that the error is taken from
    eta_of: str  # run or phase, '' without
    why_slow: str


@dataclass(frozen=True)
class Named:
    """The table that a command works on."""

    table: str
    datid: int
    database_id: int
    main_relid: int
    reloptions: list[str] | None


def running_of(
    target: Target, at: datetime | None, settings: Mapping[str, str]
) -> list[RunningRow]:
    """Return running maintenance, oldest first, with speed, ETA and why it is slow."""
    rows = [row for row in rows_at("progress", target, at) if row["command"] not in TRANSFERS]
    if not rows:
        return []
    names = names_of(target, rows, at)
    samples = samples_of(target, rows, at)
    workers = len({row["pid"] for row in rows if row["autovacuum"] and row["command"] == "VACUUM"})
    open_ones = marked(rows_at("activity", target, at), target.logins)
    clock = (at or timezone.now()) - skew_of(target)
    lines: list[RunningRow] = []
    for row in rows:
        named = names.get((row["datname"], row["relid"]))
        mine = samples.get((row["pid"], row["command"], row["started_at"]), [])
        cost = vacuum_progress.cost_of(
            settings,
            named.reloptions if named else None,
            autovacuum=bool(row["autovacuum"]),
            workers=workers,
        )
        holder = holder_of(row, open_ones) if row["command"] == "VACUUM" else ""
        earlier = phases_before(target, named, row, at) if named and mine else {}
        eta = vacuum_progress.eta_of(mine, after=earlier)
        dead = row["num_dead_item_ids"]
        lines.append(
            {
                "pid": row["pid"],
                "command": row["command"],
                "datname": row["datname"],
                "table": named.table if named else None,
                "datid": named.datid if named else None,
                "main_relid": named.main_relid if named else None,
                "relid": row["relid"],
                "autovacuum": row["autovacuum"],
                "wraparound": row["wraparound"],
                "usename": row["usename"],
                "started_at": row["started_at"],
                "seconds": vacuum_progress.elapsed(row, clock),
                "phase": row["phase"],
                "pct": vacuum_progress.pct_of(row),
                "index_vacuum_count": row["index_vacuum_count"],
                "indexes_processed": row["indexes_processed"],
                "indexes_total": row["indexes_total"],
                "dead_rows": row["num_dead_tuples"] if dead is None else dead,
                "dead_bytes": vacuum_progress.memory_bytes(row),
                "dead_memory_pct": vacuum_progress.memory_pct(row),
                "delay_pct": vacuum_progress.delay_pct(row, clock),
                "pages_per_second": vacuum_progress.pages_a_second(mine),
                "eta_seconds": eta.seconds if eta else None,
                "eta_error_pct": eta.error_pct if eta else None,
                "eta_tested": eta.tested if eta else 0,
                "eta_of": ("run" if eta.whole else "phase") if eta else "",
                "why_slow": vacuum_progress.why_slow(row, mine, clock, cost=cost, holder=holder),
            }
        )
    lines.sort(key=lambda line: -line["seconds"])
    return lines


def samples_of(
    target: Target, rows: Sequence[Reading], at: datetime | None
) -> dict[tuple[Any, ...], list[Reading]]:
    """Return the recent samples of each running command, oldest first."""
    end = at or timezone.now()
    samples = HISTORY["progress"].samples._default_manager.filter(
        target_id=target.pk,
        pid__in={row["pid"] for row in rows},
        relid__isnull=False,
        taken_at__gte=end - SPEED_REACH,
        taken_at__lte=end,
    )
    found: dict[tuple[Any, ...], list[Reading]] = {}
    for row in samples.order_by("taken_at").values():
        found.setdefault((row["pid"], row["command"], row["started_at"]), []).append(row)
    return found


def names_of(
    target: Target, rows: Sequence[Reading], at: datetime | None
) -> dict[tuple[str, int], Named]:
    """Return {(datname, relid): table} of what is worked on."""
    wanted = {row["relid"] for row in rows if row["relid"]}
    ours = {one.pk: one for one in Database.objects.filter(target=target)}
    found: dict[tuple[str, int], Named] = {}
    mains = rows_ever(target, at, "relid", wanted)
    toast = rows_ever(target, at, "toastrelid", wanted)
    own = {(row["database_id"], row["relid"]): row["reloptions"] for row in mains}
    for row, of in [(row, "relid") for row in mains] + [(row, "toastrelid") for row in toast]:
        database = ours.get(row["database_id"])
        if database is None or row["relname"] is None:
            continue
        name = table_name(row)
        relid = row[of]
        found[(database.datname, relid)] = Named(
            table=name if of == "relid" else f"TOAST of {name}",
            datid=database.datid,
            database_id=database.pk,
            main_relid=row["relid"],
            reloptions=own.get((database.pk, relid)) or row["reloptions"],
        )
    return found


def phases_before(
    target: Target, named: Named, row: Reading, at: datetime | None
) -> dict[str, float]:
    """Return the phases of the table's last run that was watched, {} where there is none."""
    if row["command"] != "VACUUM":
        return {}
    runs = VacuumRun.objects.filter(
        target_id=target.pk,
        database_id=named.database_id,
        relid=row["relid"],
        kind__in=VACUUM_KINDS,
        seen_at__lte=at or timezone.now(),
    )
    phases = runs.exclude(phases={}).values_list("phases", flat=True).first()
    return dict(phases or {})


def holder_of(row: Reading, activity: Iterable[Reading]) -> str:
    """Return who keeps a vacuum from removing what died lately, '' where nobody is known."""
    started_at = row["started_at"]
    if started_at is None:
        return ""
    held = [
        one
        for one in activity
        if one["backend_xmin"] is not None
        and one["datname"] == row["datname"]
        and is_client(one)
        and one["xact_start"] is not None
        and one["xact_start"] < started_at - HELD_BEFORE
        and one["pid"] != row["pid"]
    ]
    oldest = min(held, key=lambda one: one["xact_start"], default=None)
    return (
        f"The transaction of {backend_name(oldest)[0].lower()}{backend_name(oldest)[1:]}"
        if oldest
        else ""
    )
