"""VACUUM a table: its dead rows become free space; reads and writes go on.

Source: https://www.postgresql.org/docs/current/sql-vacuum.html
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from monitors import horizon, table_action
from monitors.action import Action, Arguments, Guarded, Identity, Kind, Measured, Parameter
from monitors.advisor import counted
from monitors.pg import horizon as live_horizon, relations

LOCK = "ShareUpdateExclusiveLock"
STAY_SHARE = 0.1  # of the dead rows before; fewer that stay died while it ran
OPTIONS = {"analyze": "ANALYZE", "freeze": "FREEZE", "skip_locked": "SKIP_LOCKED"}


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the oid is still the same table."""
    relation = table_action.same_table(connection, identity)
    return table_action.seen(connection, relation, LOCK)


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return VACUUM with the options that were asked for."""
    options = [sql.SQL(word) for name, word in OPTIONS.items() if arguments.get(name) == "true"]
    chosen = sql.SQL("({}) ").format(sql.SQL(", ").join(options)) if options else sql.SQL("")
    return sql.SQL("VACUUM {}{}").format(chosen, relations.identifier(identity))


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return rows, vacuum counts and size; afterwards also who kept dead rows, where many stay."""
    if before is None:
        return relations.measure(connection, identity["relid"])
    after = relations.measure_after(connection, identity["relid"], before, "vacuum_count")
    stay, were = after.get("n_dead_tup") or 0, before.get("n_dead_tup") or 0
    if stay > STAY_SHARE * were:
        holder = live_horizon.oldest(connection)
        after["held_by"] = horizon.name_of(holder) if holder is not None else ""
    return after


def effect(before: Measured, after: Measured) -> str:
    """Return what became of dead rows and size, and who kept those that stay."""
    became = relations.effect(before, after, rows=True)
    if "held_by" not in after:
        return became
    stay = counted(after["n_dead_tup"], "dead row")
    if not after["held_by"]:
        return f"{became}; {stay} stay, of a transaction that has ended by now: vacuum again"
    return f"{became}; {stay} stay: {after['held_by']} holds the horizon"


ACTION = Action(
    name="vacuum",
    verb="Vacuum",
    parameters=(
        table_action.DATABASE,
        table_action.TABLE,
        table_action.RELID,
        Parameter(name="analyze", kind=Kind.BOOL, help="also renew the planner's statistics"),
        Parameter(name="freeze", kind=Kind.BOOL, help="also freeze all rows"),
        Parameter(name="skip_locked", kind=Kind.BOOL, help="don't wait for the table's lock"),
    ),
    queue="long",
    right="maintain",
    statement_timeout_ms=6 * 3600 * 1000,
    lock_timeout_ms=5000,
    lock=LOCK,
    rule=table_action.one_table,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
)
