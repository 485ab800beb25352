"""Have a database's connections to its server opened anew, each once its transaction has ended.

Source: https://www.pgbouncer.org/usage.html#reconnect-db
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import pooler_action
from monitors.action import Action, Arguments, Guarded, Identity
from monitors.kinds import PGBOUNCER


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed where the database is gone, Refused where the right is missing."""
    pooler_action.database_now(connection, identity)
    rows = pooler_action.pools(connection, identity["database"])
    servers = sum(pooler_action.console_servers(row) for row in rows)
    return Guarded(
        facts=[*pooler_action.facts_of(rows), ("Servers", f"{servers:,}")],
        warnings=["Each is closed when its client gives it back; no statement is cut off."],
    )


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the command."""
    return pooler_action.command("RECONNECT", identity)


ACTION = Action(
    name="reconnect_pool",
    kind=PGBOUNCER,
    verb="Reconnect",
    icon="sort",
    parameters=(pooler_action.DATABASE,),
    queue="long",
    needs=pooler_action.needs,
    statement_timeout_ms=10_000,
    lock_timeout_ms=1000,
    after=("pooler_pools", "pooler_servers"),
    object_name=pooler_action.object_name,
    resolve=pooler_action.resolve,
    guard=guard,
    statement=statement,
    measure=pooler_action.measure,
    effect=pooler_action.effect,
)
