"""VACUUM a table: its dead rows become free space; reads and writes go on.

Source: https://www.postgresql.org/docs/current/sql-vacuum.html
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from monitors import table_action, words
from monitors.action import (
    Action,
    Arguments,
    Guarded,
    Identity,
    InvalidArguments,
    Kind,
    Measured,
    Parameter,
)
from monitors.pg import horizon as live_horizon, relations
from monitors.rules import horizon, verdict

LOCK = "ShareUpdateExclusiveLock"
STAY_SHARE = 0.1  # of the dead rows before; fewer that stay died while it ran
LEAST_KB, MOST_KB = 128, 16 * 1024 * 1024  # the server's own bounds
WORKERS = 32


def flag(name: str, text: str, *, since: int = 0) -> Parameter:
    """Return an option that is off unless it is asked for."""
    return Parameter(name=name, kind=Kind.BOOL, help=text, option=True, since=since)


def choice(name: str, choices: tuple[str, ...], text: str, *, since: int = 0) -> Parameter:
    """Return an option that the server decides unless it is asked for."""
    return Parameter(
        name=name, kind=Kind.CHOICE, choices=choices, help=text, option=True, since=since
    )


OPTIONS = (
    flag("analyze", "also renew the planner's statistics"),
    flag("freeze", "also freeze all rows"),
    flag("skip_locked", "don't wait for the table's lock"),
    flag("disable_page_skipping", "read every page, also those known to be clean"),
    flag("skip_database_stats", "don't renew the database's transaction horizon", since=16),
    choice("index_cleanup", ("auto", "on", "off"), "whether dead rows leave the indexes too"),
    choice("truncate", ("on", "off"), "whether empty pages at the end go back to the disk"),
    choice("process_toast", ("on", "off"), "whether its TOAST table is vacuumed"),
    choice("process_main", ("on", "off"), "whether the table itself is vacuumed", since=16),
    Parameter(
        name="parallel",
        kind=Kind.INT,
        minimum=0,
        maximum=WORKERS,
        help="workers for the indexes at most, 0: none",
        option=True,
    ),
    Parameter(
        name="buffer_usage_limit",
        kind=Kind.INT,
        minimum=LEAST_KB,
        maximum=MOST_KB,
        help="shared buffers it uses at most, in kB",
        option=True,
        since=16,
    ),
)
"""Options of VACUUM, named as the manual names them; VERBOSE and FULL are not among them."""
WITHOUT_EFFECT = {"process_main": "off", "process_toast": "off"}


def rule(arguments: Arguments) -> None:
    """Raise InvalidArguments for no table, or for options that leave nothing to do."""
    table_action.one_table(arguments)
    if all(arguments.get(name) == word for name, word in WITHOUT_EFFECT.items()):
        message = "With process_main off and process_toast off nothing would be vacuumed."
        raise InvalidArguments(message)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed unless the oid is still the same table, Refused for an option it lacks."""
    relation = table_action.same_table(connection, identity)
    table_action.known_here(connection, [one for one in OPTIONS if one.name in arguments])
    seen = table_action.seen(connection, relation, LOCK)
    return replace(seen, warnings=[*seen.warnings, *warnings(arguments)])


def warnings(arguments: Arguments) -> list[str]:
    """Return what an option does that its name does not say."""
    said = []
    if arguments.get("index_cleanup") == "off":
        said.append("With index_cleanup off dead rows stay in the indexes: only for an emergency.")
    if arguments.get("disable_page_skipping") == "true":
        said.append("With disable_page_skipping every page is read: this takes far longer.")
    return said


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return VACUUM with the options that were asked for."""
    asked = [option for option in OPTIONS if arguments.get(option.name, "false") != "false"]
    options = [written(option, arguments[option.name]) for option in asked]
    chosen = sql.SQL("({}) ").format(sql.SQL(", ").join(options)) if options else sql.SQL("")
    return sql.SQL("VACUUM {}{}").format(chosen, relations.identifier(identity))


def written(option: Parameter, text: str) -> sql.Composable:
    """Return an option as VACUUM reads it; its name is one of OPTIONS, its text is cleaned."""
    word = sql.SQL(option.name.upper())
    if option.kind == Kind.BOOL:
        return word
    if option.name == "buffer_usage_limit":
        return sql.SQL("{} {}").format(word, sql.Literal(f"{text} kB"))
    value = sql.Literal(int(text)) if option.kind == Kind.INT else sql.Literal(text)
    return sql.SQL("{} {}").format(word, value)


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return rows, vacuum counts and size; afterwards also who kept dead rows, where many stay."""
    if before is None:
        return relations.measure(connection, identity["relid"])
    after = relations.measure_after(connection, identity["relid"], before, "vacuum_count")
    if after.get("vacuum_count") == before.get("vacuum_count"):
        return after  # it never came to the table's own rows (process_main): nobody kept them
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
    stay = words.count(after["n_dead_tup"], "dead row")
    if not after["held_by"]:
        return f"{became}; {stay} stay, of a transaction that has ended by now: vacuum again"
    return f"{became}; {stay} stay: {after['held_by']} holds the horizon"


ACTION = Action(
    name="vacuum",
    verb="Vacuum",
    icon="vacuum",
    parameters=(
        table_action.DATABASE,
        table_action.TABLE,
        table_action.RELID,
        *OPTIONS,
    ),
    queue="long",
    after=("tables",),
    right="vacuum",
    statement_timeout_ms=6 * 3600 * 1000,
    lock_timeout_ms=5000,
    lock=LOCK,
    several=True,
    rule=rule,
    object_name=table_action.object_name,
    resolve=table_action.resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
    judge=verdict.of_vacuum,
)
