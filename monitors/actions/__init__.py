"""Everything that Howdah may do to a target: the whole list, for a security review."""

from __future__ import annotations

from monitors.action import Action
from monitors.actions import (
    analyze,
    cancel_backend,
    create_extension,
    measure_bloat,
    reset_statements,
    terminate_backend,
    vacuum,
    vacuum_full,
)

ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        cancel_backend.ACTION,
        terminate_backend.ACTION,
        analyze.ACTION,
        vacuum.ACTION,
        vacuum_full.ACTION,
        measure_bloat.ACTION,
        create_extension.ACTION,
        reset_statements.ACTION,
    )
}
