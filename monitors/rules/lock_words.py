"""Pure: what a lock is called, and what releases those that wait for somebody.

Source: https://www.postgresql.org/docs/current/view-pg-locks.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monitors import words
from monitors.advisor import DISABLED, IDLE_IN_TRANSACTION, RUNNING
from monitors.rules.horizon import literal

CATALOGS = {
    1213: "pg_tablespace",
    1247: "pg_type",
    1255: "pg_proc",
    1260: "pg_authid",
    1262: "pg_database",
    2615: "pg_namespace",
    3079: "pg_extension",
    6000: "pg_replication_origin",
    6100: "pg_subscription",
}
"""Catalogs whose objects are locked by number, by their fixed oids."""
OF_RELATIONS = {
    "relation": "{}",
    "extend": "extension of {}",
    "page": "page {page} of {}",
    "tuple": "row ({page},{tuple}) of {}",
}
OTHERS = {
    "virtualxid": "virtual transaction {virtualxid}",
    "spectoken": "insertion of transaction {transactionid}",
    "object": "object {objid} of {catalog}",
}
AUTOVACUUM = "autovacuum worker"
CLIENT = "client backend"
WAYS_OUT = {
    "cancel": "Cancel the statement of {}.",
    "terminate": "Terminate {}: it runs no statement.",
    "prepared": "Finish it: COMMIT PREPARED or ROLLBACK PREPARED.",
    "autovacuum": "Autovacuum gives way by itself, except to prevent wraparound.",
    "hidden": "What it does is not known: only terminating {} surely helps.",
    "ended": "It had ended when this was read.",
    "none": "Howdah ends no such process.",
}
"""What to do, in short, with the pid."""


@dataclass(frozen=True)
class WayOut:
    """What releases the victims of a root.

    `kind` is cancel, terminate, prepared, autovacuum, hidden, ended or none; `action` is '' where Howdah has
    none for it, `statement` what to run by hand, '' where none helps.
    """

    kind: str
    action: str = ""
    statement: str = ""


def name_lock(row: Mapping[str, Any], relation: str) -> str:
    """Return what is locked in words; `relation` is the name of its relation, '' where it has none."""
    kind = row["locktype"]
    if kind in OF_RELATIONS:
        return OF_RELATIONS[kind].format(relation, page=row["page"], tuple=row["tuple"])
    if kind == "transactionid":
        return name_transaction(row, relation)
    if kind == "advisory":
        return f"advisory lock {name_advisory(row)}"
    catalog = CATALOGS.get(row["classid"], f"catalog {row['classid']}")
    return OTHERS.get(kind, "{locktype} lock").format(**row, catalog=catalog)


def name_transaction(row: Mapping[str, Any], relation: str) -> str:
    """Return the end of a transaction, and the row that it is waited for, where that is known."""
    end = f"transaction {row['transactionid']}"
    if not relation:
        return end
    return f"row ({row['page']},{row['tuple']}) of {relation}, changed by {end}"


def name_advisory(row: Mapping[str, Any]) -> str:
    """Return the key that an advisory lock was taken with: one bigint, or two integers."""
    high, low = row["classid"], row["objid"]
    if row["objsubid"] == 1:
        return str(signed(high << 32 | low, 64))
    return f"({signed(high, 32)}, {signed(low, 32)})"


def signed(number: int, bits: int) -> int:
    """Return an unsigned number as the signed one of so many bits: pg_locks shows keys as oids."""
    return number - (1 << bits) if number >> (bits - 1) else number


def find_way_out(
    *, gid: str | None, backend_type: str | None, state: str | None, ours: bool
) -> WayOut:
    """Return what releases those behind a root; `gid` is None unless it is a prepared transaction."""
    if gid is not None:
        statement = f"ROLLBACK PREPARED {literal(gid)};\n-- or: COMMIT PREPARED {literal(gid)};"
        return WayOut("prepared", statement=statement if gid else "")
    if backend_type == CLIENT and not ours:
        return of_client(state)
    return WayOut({None: "ended", AUTOVACUUM: "autovacuum"}.get(backend_type, "none"))


def of_client(state: str | None) -> WayOut:
    """Return what releases those behind a client's backend in a state."""
    if state in RUNNING:
        return WayOut("cancel", "cancel_backend")
    if state in IDLE_IN_TRANSACTION or state == "idle":
        return WayOut("terminate", "terminate_backend")
    if state == DISABLED:
        return WayOut("hidden")
    return WayOut("none")


def name_relation(row: Mapping[str, Any], known: Mapping[tuple[int, int], str]) -> str:
    """Return a lock's relation as regclass writes it, else by its oid; '' where it has none.

    `known` are names by oid of database and relation: of those that the collector was not in.
    """
    if row["relation"] is None:
        return ""
    if row["relname"] is not None:
        return words.quoted(row["schemaname"], row["relname"])
    place = (row["lock_database"], row["relation"])
    return known.get(place, f"relation {row['relation']}")


def name_object(row: Mapping[str, Any], relation: str) -> str:
    """Return what waits are summed up by: a relation whichever row it is, else the kind of lock."""
    if relation:
        return relation
    if row["locktype"] in {"transactionid", "spectoken"}:
        return "rows of a relation that is not known"
    if row["locktype"] == "virtualxid":
        return "ends of transactions"
    return name_lock(row, relation)
