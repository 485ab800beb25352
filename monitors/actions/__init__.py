"""Everything that Howdah may do to a target: the whole list, for a security review."""

from __future__ import annotations

from monitors.action import Action
from monitors.actions import (
    analyze,
    cancel_backend,
    cluster,
    create_extension,
    drop_leftover_index,
    kill_client,
    measure_bloat,
    pause_pool,
    reconnect_pool,
    reindex,
    release_backend,
    reload_pooler,
    repack,
    reset_statements,
    resume_pool,
    set_autovacuum,
    terminate_backend,
    vacuum,
    vacuum_full,
)
from monitors.kinds import POSTGRES

ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        cancel_backend.ACTION,
        terminate_backend.ACTION,
        release_backend.ACTION,
        analyze.ACTION,
        vacuum.ACTION,
        vacuum_full.ACTION,
        cluster.ACTION,
        repack.ACTION,
        set_autovacuum.ACTION,
        reindex.ACTION,
        drop_leftover_index.ACTION,
        measure_bloat.ACTION,
        create_extension.ACTION,
        reset_statements.ACTION,
        pause_pool.ACTION,
        resume_pool.ACTION,
        reconnect_pool.ACTION,
        kill_client.ACTION,
        reload_pooler.ACTION,
    )
}


def actions_of(kind: str) -> dict[str, Action]:
    """Return the actions on one kind of target, by name."""
    return {name: one for name, one in ACTIONS.items() if one.kind == kind}


def offered(major: int | None) -> frozenset[str]:
    """Return the names of the actions that a server of a major version has commands for."""
    return frozenset(
        name for name, one in actions_of(POSTGRES).items() if one.since <= (major or 0)
    )
