"""Hold a database's clients back for a while: none of its statements reaches the server until it is resumed.

PAUSE waits until the transactions that run have ended (in session mode: until the clients
have gone). After so many seconds the database is resumed, whatever became of the pause.

Source: https://www.pgbouncer.org/usage.html#pause-db
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import pooler_action, words
from monitors.action import Action, Arguments, Changed, Guarded, Identity, Kind, Measured, Parameter
from monitors.kinds import PGBOUNCER
from monitors.pg import console

LONGEST_SECONDS = 300


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed where it is paused already, Refused where the right is missing."""
    database = pooler_action.database_now(connection, identity)
    if database["paused"]:
        message = (
            f"{words.quoted(identity['database'])} is paused already; whoever did that resumes it."
        )
        raise Changed(message)
    rows = pooler_action.pools(connection, identity["database"])
    seconds = int(arguments["seconds"])
    warnings = [
        f"All its clients wait until it is resumed: by itself after {words.duration(seconds)}.",
        *too_long(connection, seconds),
    ]
    if any(row["pool_mode"] == "session" for row in rows):
        warnings.append(
            "In session mode it is not paused before its clients have gone; new statements of"
            " others wait meanwhile."
        )
    return Guarded(facts=pooler_action.facts_of(rows), warnings=warnings)


def too_long(connection: psycopg.Connection, seconds: int) -> list[str]:
    """Return that clients get an error before the end, where they do."""
    said = console.config_of(connection).get("query_wait_timeout", "")
    timeout = float(said) if said.replace(".", "", 1).isdigit() else 0.0
    if not timeout or seconds < timeout:
        return []
    return [f"Who waits gets an error after {words.duration(timeout)} (query_wait_timeout)."]


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return the pause."""
    return pooler_action.command("PAUSE", identity)


def release(arguments: Arguments, identity: Identity) -> sql.Composed:
    """Return what ends it."""
    return pooler_action.command("RESUME", identity)


def held_seconds(arguments: Arguments) -> float:
    """Return for how long it is paused."""
    return float(arguments["seconds"])


def effect(before: Measured, after: Measured) -> str:
    """Return how many clients wait once it is resumed."""
    waiting = after.get("waiting_count")
    return "" if waiting is None else f"resumed; clients waiting afterwards: {waiting:,}"


ACTION = Action(
    name="pause_pool",
    kind=PGBOUNCER,
    verb="Pause",
    icon="pause",
    parameters=(
        pooler_action.DATABASE,
        Parameter(
            name="seconds",
            kind=Kind.INT,
            help=f"after so many it is resumed by itself, at most {LONGEST_SECONDS}",
            default="30",
            minimum=1,
            maximum=LONGEST_SECONDS,
            option=True,
        ),
    ),
    queue="long",
    needs=pooler_action.needs,
    statement_timeout_ms=LONGEST_SECONDS * 1000,
    lock_timeout_ms=1000,
    destructive=True,
    after=("pooler_databases", "pooler_pools"),
    object_name=pooler_action.object_name,
    resolve=pooler_action.resolve,
    guard=guard,
    statement=statement,
    release=release,
    held_seconds=held_seconds,
    measure=pooler_action.measure,
    effect=effect,
)
