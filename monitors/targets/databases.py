"""The databases of a target: which of them it takes in, and those that its server shows."""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase

from monitors.history import store
from monitors.history.reading import Place, Reading
from monitors.models import (
    HISTORY,
    Database,
    Target,
)
from monitors.probe import Probe


def is_included(target: Target, datname: str) -> bool:
    """Return whether a target's patterns take a database in (globs; none means all)."""
    if any(fnmatchcase(datname, pattern) for pattern in target.exclude):
        return False
    return not target.include or any(fnmatchcase(datname, p) for p in target.include)


def note_databases(target: Target, probe: Probe, reading: Reading, taken_at: datetime) -> None:
    """Keep the list of a target's databases in step with what its server shows.

    Of those that are dropped, or watched no more, every object leaves the present.
    """
    columns = probe.sample.columns()
    rows = (dict(zip(columns, row, strict=True)) for row in reading.rows)
    found = {
        row["datid"]: row["datname"]
        for row in rows
        if row["datallowconn"] and not row["datistemplate"]
    }
    left = []
    for database in Database.objects.filter(target=target):
        name = found.pop(database.datid, None)
        was = (database.datname, database.included, database.gone_at)
        if name is not None:
            database.datname, database.included = name, is_included(target, name)
            database.gone_at = None
        else:
            database.gone_at = database.gone_at or taken_at
        if was == (database.datname, database.included, database.gone_at):
            continue
        database.save()
        if not database.included or database.gone_at is not None:
            left.append(database)
    Database.objects.bulk_create(
        Database(target=target, datid=oid, datname=name, included=is_included(target, name))
        for oid, name in found.items()
    )
    for database in left:
        for history in HISTORY.values():
            if history.probe.per_database:
                place = Place(history, target.pk, database.pk)
                store.leave(place, taken_at, reading.target_at)
