"""Let the clients of a paused database go on.

Source: https://www.pgbouncer.org/usage.html#resume-db
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import pooler_action, words
from monitors.action import Action, Arguments, Changed, Guarded, Identity
from monitors.kinds import PGBOUNCER


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed where it is not paused, Refused where the right is missing."""
    if not pooler_action.database_now(connection, identity)["paused"]:
        message = f"{words.quoted(identity['database'])} is not paused: there is nothing to resume."
        raise Changed(message)
    rows = pooler_action.pools(connection, identity["database"])
    warnings = ["Whoever paused it may not be done: ask first, if it was not you."]
    return Guarded(facts=pooler_action.facts_of(rows), warnings=warnings)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the command."""
    return pooler_action.command("RESUME", identity)


ACTION = Action(
    name="resume_pool",
    kind=PGBOUNCER,
    verb="Resume",
    icon="arrow",
    parameters=(pooler_action.DATABASE,),
    queue="long",
    needs=pooler_action.needs,
    statement_timeout_ms=10_000,
    lock_timeout_ms=1000,
    after=("pooler_databases", "pooler_pools"),
    object_name=pooler_action.object_name,
    resolve=pooler_action.resolve,
    guard=guard,
    statement=statement,
    measure=pooler_action.measure,
    effect=pooler_action.effect,
)
