"""Vacuums that ran as pages and exports show them: one row a run, or several that were only counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from django.db.models import QuerySet

from monitors import words
from monitors.history.window import Window
from monitors.models import Database, Target, VacuumRun
from monitors.probe import Reading
from monitors.rows.vacuum_parts import rows_ever

COLUMNS = (
    "database",
    "schemaname",
    "relname",
    "relid",
    "toast_of",
    "kind",
    "count",
    "exactness",
    "after_at",
    "started_at",
    "start_is_estimate",
    "ended_at",
    "seconds",
    "by",
    "action_id",
    "wraparound",
    "n_dead_before",
    "n_dead_after",
    "size_before_bytes",
    "size_after_bytes",
    "seen_at",
    "passes",
    "phases",
)
"""Keys of the export, in order."""

MARKED = 200
"""Runs that a chart marks and a table's page lists; a window may hold thousands."""
WORDS = {
    VacuumRun.Kind.VACUUM: "VACUUM by hand",
    VacuumRun.Kind.ANALYZE: "ANALYZE by hand",
    VacuumRun.Kind.AUTOVACUUM: "autovacuum",
    VacuumRun.Kind.AUTOANALYZE: "autoanalyze",
    VacuumRun.Kind.REWRITE: "written anew",
}


class RunRow(TypedDict):
    """Vacuums or analyzes of one table: one, or several that were only counted; None is not known."""

    id: int
    database: str | None
    datid: int | None
    schemaname: str | None
    relname: str | None
    relid: int
    toast_of: str | None  # None: of no TOAST table
    main_relid: int  # of the table that has a page
    table: str
    kind: str
    words: str  # what ran
    count: int
    exactness: str  # how it is known: `VacuumRun.Exactness`
    after_at: datetime | None  # all of them ended after it
    started_at: datetime | None  # of the last one
    start_is_estimate: bool
    ended_at: datetime  # of the last one
    seconds: float | None  # of all together
    by: str  # '': not known
    action_id: UUID | None  # None: not through Howdah
    wraparound: bool | None
    n_dead_before: int | None
    n_dead_after: int | None
    size_before_bytes: int | None
    size_after_bytes: int | None
    seen_at: datetime  # our clock
    passes: int | None
    phases: dict[str, float]  # seconds


class RunMark(TypedDict):
    """A run as a mark of a chart."""

    at: datetime
    kind: str
    text: str
    url_id: None


def runs_in(target: Target, window: Window) -> QuerySet[VacuumRun]:
    """Return the runs that ended in a window and were known at its end, newest first."""
    return VacuumRun.objects.filter(
        target_id=target.pk,
        ended_at__gte=window.start,
        ended_at__lt=window.end,
        seen_at__lte=window.end,
    ).order_by("-ended_at", "-pk")


def runs_of_table(target: Target, window: Window, row: Reading) -> list[RunRow]:
    """Return the runs of a table and of its TOAST table in a window, newest first."""
    relids = [row["relid"], *([row["toastrelid"]] if row["toastrelid"] else [])]
    found = runs_in(target, window).filter(database_id=row["database_id"], relid__in=relids)
    return rows_of(target, window, found[:MARKED])


def rows_of(target: Target, window: Window, runs: Iterable[VacuumRun]) -> list[RunRow]:
    """Return runs with names, those of TOAST tables' main tables as at the window's end."""
    found = list(runs)
    databases = target.databases_by_id
    toast = {run.relid for run in found if run.relkind == "t"}
    at = None if window.is_live else window.end
    mains = {
        (row["database_id"], row["toastrelid"]): row
        for row in rows_ever(target, at, "toastrelid", toast)
    }
    return [row_of(run, databases, mains.get((run.database_id, run.relid))) for run in found]


def row_of(run: VacuumRun, databases: Mapping[int, Database], main: Reading | None) -> RunRow:
    """Return one run as a row; `main` is a TOAST table's main table."""
    database = databases.get(run.database_id)
    name = name_of(run.schemaname, run.relname) or str(run.relid)
    of = name_of(main["schemaname"], main["relname"]) if main else None
    return {
        "id": run.pk,
        "database": database.datname if database else None,
        "datid": database.datid if database else None,
        "schemaname": run.schemaname,
        "relname": run.relname,
        "relid": run.relid,
        "toast_of": of,
        "main_relid": main["relid"] if main else run.relid,
        "table": f"TOAST of {of}" if of else name,
        "kind": run.kind,
        "words": words_of(run),
        "count": run.count,
        "exactness": run.exactness,
        "after_at": run.after_at,
        "started_at": run.started_at,
        "start_is_estimate": run.start_is_estimate,
        "ended_at": run.ended_at,
        "seconds": run.seconds,
        "by": run.by,
        "action_id": run.action_id,
        "wraparound": run.wraparound,
        "n_dead_before": run.n_dead_before,
        "n_dead_after": run.n_dead_after,
        "size_before_bytes": run.size_before,
        "size_after_bytes": run.size_after,
        "seen_at": run.seen_at,
        "passes": run.passes,
        "phases": run.phases,
    }


def name_of(schemaname: str | None, relname: str | None) -> str | None:
    """Return schema.table as regclass reads it, None where the name is not known."""
    return f"{words.quoted(schemaname)}.{words.quoted(relname)}" if schemaname and relname else None


def words_of(run: VacuumRun) -> str:
    """Return what ran: autovacuum, ANALYZE by hand 2 times."""
    kind = VacuumRun.Kind(run.kind)
    words = WORDS.get(kind, str(kind.label))
    if run.wraparound:
        words = f"{words} to prevent wraparound"
    return words if run.count == 1 else f"{words} {run.count} times"


def marks_of(rows: Iterable[RunRow]) -> list[RunMark]:
    """Return runs as marks for the charts."""
    return [
        {"at": row["ended_at"], "kind": "vacuum", "text": row["words"], "url_id": None}
        for row in rows
    ]
