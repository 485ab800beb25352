"""Set or reset a table's own autovacuum options and fillfactor; the old ones are kept to undo it.

Source: https://www.postgresql.org/docs/current/sql-createtable.html#SQL-CREATETABLE-STORAGE-PARAMETERS

Long, since every option with its bounds, and what undoes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from monitors import table_action
from monitors.action import (
    RESET,
    Action,
    Arguments,
    Changed,
    Guarded,
    Identity,
    Kind,
    Measured,
    Parameter,
    Refused,
)
from monitors.pg import options, relations, rights
from monitors.rules import autovacuum

LOCK = "ShareUpdateExclusiveLock"
WAIT_SECONDS = 2
NO_OPTION = "Choose an option: give it a value, or reset."

INT_MAX = 2**31 - 1
BILLION = 1_000_000_000
BOOLS = frozenset(
    {word[:end] for word in ("true", "false", "yes", "no") for end in range(1, len(word) + 1)}
    | {"on", "of", "off", "1", "0"}
)
"""Every text that PostgreSQL reads as a boolean: an undo gives back the very one that stood."""


def switch(name: str, text: str) -> Parameter:
    """Return a boolean storage option."""
    return Parameter(
        name=name,
        kind=Kind.CHOICE,
        choices=("true", "false"),
        spellings=BOOLS,
        help=text,
        resets=True,
        option=True,
    )


def whole(name: str, low: int, high: int, text: str, *, since: int = 0) -> Parameter:
    """Return a storage option that is a whole number."""
    return Parameter(
        name=name,
        kind=Kind.INT,
        minimum=low,
        maximum=high,
        help=text,
        resets=True,
        option=True,
        since=since,
    )


def decimal(name: str, text: str, *, high: int = 100, since: int = 0) -> Parameter:
    """Return a storage option from 0 to 100 or less with decimals."""
    return Parameter(
        name=name,
        kind=Kind.NUMBER,
        minimum=0,
        maximum=high,
        help=text,
        resets=True,
        option=True,
        since=since,
    )


# PostgreSQL's own bounds: src/backend/access/common/reloptions.c of 14 to 19.
SHARED = (
    switch(
        "autovacuum_enabled", "whether autovacuum works on it; against wraparound it always does"
    ),
    whole("autovacuum_vacuum_threshold", 0, INT_MAX, "dead rows, before the share is added"),
    decimal("autovacuum_vacuum_scale_factor", "dead rows as a share of all, 0.2 is a fifth"),
    whole(
        "autovacuum_vacuum_max_threshold",
        -1,
        INT_MAX,
        "dead rows at most, \N{MINUS SIGN}1: no cap",
        since=autovacuum.CAP_MAJOR,
    ),
    whole(
        "autovacuum_vacuum_insert_threshold",
        -1,
        INT_MAX,
        "inserted rows, \N{MINUS SIGN}1: inserts alone never trigger",
    ),
    decimal("autovacuum_vacuum_insert_scale_factor", "inserted rows as a share of all"),
    decimal("autovacuum_vacuum_cost_delay", "pause in ms whenever the cost limit is used up"),
    whole("autovacuum_vacuum_cost_limit", 1, 10_000, "cost that is used up before a pause"),
    whole("autovacuum_freeze_min_age", 0, BILLION, "age in transactions from which rows freeze"),
    whole("autovacuum_freeze_max_age", 100_000, 2 * BILLION, "age at which a vacuum is forced"),
    whole("autovacuum_freeze_table_age", 0, 2 * BILLION, "age at which all pages are scanned"),
    whole("autovacuum_multixact_freeze_min_age", 0, BILLION, "the same of multixacts"),
    whole("autovacuum_multixact_freeze_max_age", 10_000, 2 * BILLION, "the same of multixacts"),
    whole("autovacuum_multixact_freeze_table_age", 0, 2 * BILLION, "the same of multixacts"),
    whole(
        "log_autovacuum_min_duration",
        -1,
        INT_MAX,
        "log runs that took so many ms, \N{MINUS SIGN}1: none",
    ),
    Parameter(
        name="vacuum_index_cleanup",
        kind=Kind.CHOICE,
        choices=("auto", "on", "off"),
        spellings=frozenset({"true", "false", "yes", "no", "1", "0"}),
        help="whether a vacuum cleans the indexes",
        resets=True,
        option=True,
    ),
    switch("vacuum_truncate", "whether a vacuum gives empty pages at the end back to the disk"),
    decimal(
        "vacuum_max_eager_freeze_failure_rate",
        "share of all-visible pages that may be read in vain to freeze them early; 0: none is read",
        high=1,
        since=18,
    ),
)
"""Options of a table and of its TOAST table."""
OWN = (
    whole("autovacuum_analyze_threshold", 0, INT_MAX, "changed rows, before the share is added"),
    decimal("autovacuum_analyze_scale_factor", "changed rows as a share of all"),
    whole(
        "autovacuum_parallel_workers",
        -1,
        1024,
        "workers for its indexes, of autovacuum_max_parallel_workers; \N{MINUS SIGN}1: as the server says",
        since=19,
    ),
    whole(
        "log_autoanalyze_min_duration",
        -1,
        INT_MAX,
        "log analyzes that took so many ms, \N{MINUS SIGN}1: none",
        since=19,
    ),
    whole("fillfactor", 10, 100, "how full new pages get, in percent"),
)
TOAST = tuple(
    replace(parameter, name=f"toast.{parameter.name}", help=f"of its TOAST table: {parameter.help}")
    for parameter in SHARED
)
OPTIONS = {parameter.name: parameter for parameter in (*SHARED, *OWN, *TOAST)}


def chosen(arguments: Arguments) -> dict[str, str]:
    """Return {option: text or `reset`} of what was asked for, in the order of the list."""
    return {name: arguments[name] for name in OPTIONS if name in arguments}


def rule(arguments: Arguments) -> None:
    """Raise InvalidArguments unless one table is named in one way."""
    table_action.one_table(arguments)


def resolve(connection: psycopg.Connection, arguments: Arguments) -> dict[str, Any]:
    """Return the table's oid, names and owner; raises Refused for what is not there."""
    return table_action.resolve(connection, arguments)


def guard(connection: psycopg.Connection, arguments: Arguments, identity: Identity) -> Guarded:
    """Raise Changed where it is so already, Refused where version, kind or right forbid it."""
    relation = table_action.same_table(connection, identity)
    table = options.read(connection, relation.relid)
    if table is None:
        message = "The table is gone. Nothing was sent."
        raise Changed(message)
    wanted = chosen(arguments)
    if not wanted:
        stands = ", ".join(f"{name} = {text}" for name, text in table.texts.items())
        raise Refused(f"{NO_OPTION} Set now: {stands or 'none'}.")
    table_action.known_here(connection, [OPTIONS[name] for name in wanted])
    if relation.relkind == "p":
        message = f"{relation.name} is partitioned: its options are those of each partition."
        raise Refused(message)
    if not table.has_toast and any(name.startswith("toast.") for name in wanted):
        message = f"{relation.name} has no TOAST table: it has no toast. options."
        raise Refused(message)
    if not table.owns:
        raise Refused(reason_not_owned(connection, relation, table))
    before = table.texts
    if all(is_so(before, name, text) for name, text in wanted.items()):
        message = (
            f"Already so: {', '.join(words(name, before) for name in wanted)}. Nothing was sent."
        )
        raise Changed(message)
    seen = table_action.seen(connection, relation, LOCK)
    facts = [
        *seen.facts,
        *[(name, f"{old(before, name)} → {text}") for name, text in wanted.items()],
    ]
    facts += thresholds_fact(connection, table, wanted)
    return replace(seen, facts=facts, warnings=[*warnings(wanted), *seen.warnings])


def reason_not_owned(
    connection: psycopg.Connection, relation: relations.Relation, table: options.TableOptions
) -> str:
    """Return the statement that makes the operator login able to alter a table."""
    name = relation.name
    if table.owner_superuser:
        return (
            f"{name} belongs to the superuser {table.owner}: give it to another role first"
            f" (ALTER TABLE {name} OWNER TO …) and {table.login} membership in that one."
        )
    owners, login = (
        rights.table_owners(connection, relation.relid),
        rights.read_rights(connection),
    )
    needs = rights.owners_need(owners, "own", login, connection.info.server_version)
    return f"Only its owner may alter {name}; pg_maintain does not allow it. {rights.to_run(needs)}"


def is_so(before: dict[str, str], name: str, text: str) -> bool:
    """Return whether an option stands as it is asked for."""
    return name not in before if text == RESET else same(OPTIONS[name], before.get(name), text)


def same(parameter: Parameter, one: str | None, other: str) -> bool:
    """Return whether two texts of an option mean the same to PostgreSQL."""
    if one is None:
        return False
    if parameter.kind == Kind.CHOICE:
        return one == other or ("auto" not in (one, other) and truth(one) == truth(other))
    try:
        return float(one) == float(other)
    except ValueError:  # set in another way than ours: 0x10
        return False


def truth(text: str) -> bool:
    """Return what PostgreSQL reads in a boolean."""
    return autovacuum.is_on(text)


def old(before: dict[str, str], name: str) -> str:
    """Return an option's text, or that it is not set."""
    return before.get(name, "not set")


def words(name: str, before: dict[str, str]) -> str:
    """Return `autovacuum_enabled is not set`."""
    return f"{name} is {old(before, name)}"


def warnings(wanted: dict[str, str]) -> list[str]:
    """Return what a change does that its name does not say."""
    said = []
    if turns_off(wanted):
        said.append(
            "Autovacuum will leave this table alone until it must prevent wraparound:"
            " dead rows pile up, and statistics grow old."
        )
    if "fillfactor" in wanted:
        said.append("The fillfactor counts for pages that are written from now on.")
    return said


def turns_off(wanted: Arguments) -> bool:
    """Return whether autovacuum is switched off for the table or its TOAST table."""
    names = ("autovacuum_enabled", "toast.autovacuum_enabled")
    return any(
        name in wanted and wanted[name] != RESET and not truth(wanted[name]) for name in names
    )


def thresholds_fact(
    connection: psycopg.Connection, table: options.TableOptions, wanted: dict[str, str]
) -> list[tuple[str, str]]:
    """Return when autovacuum would come, now and afterwards, at this number of rows."""
    after = dict(table.texts)
    for name, text in wanted.items():
        if text == RESET:
            after.pop(name, None)
        else:
            after[name] = text
    changed = thresholds_moved(numbers(connection, table), numbers(connection, table, after))
    if changed:
        return [("Autovacuum", ", ".join(changed))]
    if table.reltuples < 0 and any(name.endswith("_scale_factor") for name in wanted):
        return [("Autovacuum", "as before, until the table's rows are counted: analyze it")]
    return []


def numbers(
    connection: psycopg.Connection,
    table: options.TableOptions,
    texts: dict[str, str] | None = None,
) -> Measured:
    """Return the thresholds of a table with its options or others, and the options."""
    texts = table.texts if texts is None else texts
    limits = autovacuum.threshold(
        options.settings(connection, autovacuum.DEFAULTS),
        [f"{name}={text}" for name, text in texts.items() if not name.startswith("toast.")],
        reltuples=table.reltuples,
        relpages=table.relpages,
        relallfrozen=table.relallfrozen,
        server_version=connection.info.server_version,
        relkind=table.relkind,
    )
    return {
        "vacuum_threshold": limits.vacuum,
        "insert_threshold": limits.insert,
        "analyze_threshold": limits.analyze,
        "autovacuum": "on" if limits.enabled else "off",
        "options": texts,
    }


def statement(arguments: Arguments, identity: Identity, server_version: int) -> sql.Composed:
    """Return one ALTER TABLE that sets and resets what was asked for."""
    wanted = chosen(arguments)
    sets = [
        sql.SQL("{} = {}").format(sql.Identifier(*name.split(".")), sql.Literal(text))
        for name, text in wanted.items()
        if text != RESET
    ]
    resets = [sql.Identifier(*name.split(".")) for name, text in wanted.items() if text == RESET]
    parts = []
    if sets:
        parts.append(sql.SQL("SET ({})").format(sql.SQL(", ").join(sets)))
    if resets:
        parts.append(sql.SQL("RESET ({})").format(sql.SQL(", ").join(resets)))
    return sql.SQL("ALTER TABLE {} {}").format(
        relations.identifier(identity), sql.SQL(", ").join(parts)
    )


def measure(
    connection: psycopg.Connection, identity: Identity, before: Measured | None
) -> Measured:
    """Return the thresholds and the options that are set; {} where the table is gone."""
    table = options.read(connection, identity["relid"])
    return {} if table is None else numbers(connection, table)


def effect(before: Measured, after: Measured) -> str:
    """Return which thresholds moved (`vacuum after 250 → 75 dead rows`), else which options."""
    moved = thresholds_moved(before, after)
    if moved:
        return ", ".join(moved)
    old_texts, new_texts = before.get("options", {}), after.get("options", {})
    changed = [
        f"{name} {old(old_texts, name)} → {old(new_texts, name)}"
        for name in OPTIONS
        if old_texts.get(name) != new_texts.get(name)
    ]
    return f"set {', '.join(changed)}" if changed else ""


def thresholds_moved(before: Measured, after: Measured) -> list[str]:
    """Return when autovacuum comes, before and after, of what is not the same."""
    kinds = (
        ("vacuum_threshold", "vacuum after", "dead rows"),
        ("insert_threshold", "vacuum after", "inserts"),
        ("analyze_threshold", "analyze after", "changes"),
    )
    parts = [
        f"{verb} {count(before.get(name))} → {count(after.get(name))} {unit}"
        for name, verb, unit in kinds
        if before.get(name) != after.get(name)
    ]
    if before.get("autovacuum") != after.get("autovacuum"):
        parts.append(f"autovacuum {before.get('autovacuum')} → {after.get('autovacuum')}")
    return parts


def count(value: float | None) -> str:
    """Return a threshold for people."""
    return "never" if value is None else f"{value:,.0f}"


def inverse(arguments: Arguments, identity: Identity, before: Measured) -> dict[str, Any]:
    """Return what gives each option the very text it had, or resets what was not set."""
    texts = before["options"]
    return {
        "name": "set_autovacuum",
        "arguments": {
            "database": arguments["database"],
            "relid": str(identity["relid"]),
            **{name: texts.get(name, RESET) for name in chosen(arguments)},
        },
    }


def adapt(spec: Action, arguments: Arguments) -> Action:
    """Return the action; switching autovacuum off asks for a confirmation."""
    return replace(spec, destructive=True) if turns_off(chosen(arguments)) else spec


def words_of(arguments: Mapping[str, object]) -> str:
    """Return what its button says: of one that does nothing but turn autovacuum on, just that."""
    own = {name: value for name, value in arguments.items() if "autovacuum" in name}
    return (
        "Turn autovacuum on for" if own == {"autovacuum_enabled": RESET} else "Set autovacuum for"
    )


ACTION = Action(
    name="set_autovacuum",
    verb="Set autovacuum",
    icon="settings",
    worded=words_of,
    parameters=(
        table_action.DATABASE,
        table_action.TABLE,
        table_action.RELID,
        *OPTIONS.values(),
    ),
    queue="long",
    after=("tables",),
    right="own",
    statement_timeout_ms=60_000,
    lock_timeout_ms=WAIT_SECONDS * 1000,
    tries=5,
    lock=LOCK,
    rule=rule,
    object_name=table_action.object_name,
    resolve=resolve,
    guard=guard,
    statement=statement,
    measure=measure,
    effect=effect,
    judged_later=True,
    adapt=adapt,
    inverse=inverse,
)
