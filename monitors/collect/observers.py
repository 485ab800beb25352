"""Who is told of what a probe brought: the rest of the collector knows no probe by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from monitors.collect import vacuum_runs
from monitors.collect.run_facts import Seen
from monitors.history import relabel
from monitors.history.reading import Place, Reading
from monitors.history.store import Note
from monitors.models import Snapshot, Target
from monitors.probe import Probe
from monitors.rows.configuration import note_changes
from monitors.targets.databases import note_databases


@dataclass(frozen=True)
class Stored:
    """A reading that the history has taken."""

    target: Target
    place: Place
    reading: Reading
    snapshot: Snapshot
    seen: Seen
    dbname: str


def keep_databases(stored: Stored) -> None:
    """Keep the list of a target's databases in step."""
    probe = stored.place.history.probe
    note_databases(stored.target, probe, stored.reading, stored.snapshot.taken_at)


def keep_vacuums(stored: Stored) -> None:
    """Keep the record of vacuums and analyzes."""
    vacuum_runs.note(stored.place, stored.snapshot, stored.seen, stored.dbname)


WITHIN: Mapping[str, Note] = {"settings": note_changes, "pooler_config": note_changes}
"""{probe: what the store calls inside its transaction}; of others it notes what was renamed."""

AFTER: Mapping[str, Sequence[Callable[[Stored], None]]] = {
    "databases": (keep_databases,),
    "tables": (keep_vacuums,),
    "progress": (keep_vacuums,),
}
"""{probe: who is told once a reading is kept}, in this order."""


def noting(probe: Probe) -> Note:
    """Return what the store calls with the changes of a probe, inside its transaction."""
    return WITHIN.get(probe.name, relabel.note)


def tell(stored: Stored) -> None:
    """Tell those who draw something from a reading that was kept."""
    for observe in AFTER.get(stored.snapshot.probe, ()):
        observe(stored)
