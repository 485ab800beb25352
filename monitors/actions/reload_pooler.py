"""Have a pooler read its configuration files again.

Source: https://www.pgbouncer.org/usage.html#reload
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from monitors import pooler_action
from monitors.action import Action, Arguments, Guarded, Identity, Refused
from monitors.kinds import PGBOUNCER


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return nothing: it is done to the whole pooler."""
    return {}


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Refused where the right is missing."""
    lacks = pooler_action.needs(connection)
    if lacks:
        raise Refused(lacks)
    return Guarded(
        facts=pooler_action.facts_of(pooler_action.pools(connection, None)),
        warnings=[
            "What is in the files now takes effect; what needs a restart does not. A mistake in"
            " them leaves the former values, and only the pooler's log tells."
        ],
    )


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the command."""
    return sql.SQL("{}").format(sql.SQL("RELOAD"))


ACTION = Action(
    name="reload_pooler",
    kind=PGBOUNCER,
    verb="Reload",
    icon="settings",
    parameters=(),
    queue="long",
    needs=pooler_action.needs,
    statement_timeout_ms=30_000,
    lock_timeout_ms=1000,
    after=("pooler_config", "pooler_databases"),
    object_name=pooler_action.object_name,
    resolve=resolve,
    guard=guard,
    statement=statement,
    measure=pooler_action.measure,
    effect=pooler_action.effect,
)
