"""Backends by what they have in common, and the words by which some of them are picked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypedDict

from monitors.rows.backends import Backend

STATES: dict[str, tuple[str, Callable[[Backend], bool]]] = {
    "": ("Not idle", lambda one: not one.is_idle),
    "active": ("Active", lambda one: one.is_running),
    "transaction": ("Idle in transaction", lambda one: one.is_in_transaction),
    "waiting": ("Waiting", lambda one: one.is_running and bool(one.wait)),
    "blocked": ("Blocked", lambda one: bool(one.blocked_by)),
    "blocking": ("Blocking", lambda one: one.blocking > 0),
    "idle": ("Idle", lambda one: one.rests),
    "all": ("All", lambda one: True),
}
"""{word: what it is called, which backends it means}."""

GROUPS = {
    "application_name": "Application",
    "usename": "User",
    "client_addr": "Client",
    "datname": "Database",
    "query": "Statement",
    "wait": "Waits for",
    "state": "State",
}
"""What backends are grouped by: a column, or `wait` for type and event together."""

GROUP_COLUMNS = (
    "group",
    "value",
    "backends",
    "active",
    "in_transaction",
    "blocked",
    "longest_pid",
    "longest_seconds",
    "longest_xact_seconds",
)


class GroupRow(TypedDict):
    """Backends that are alike in one thing; a parallel statement counts once."""

    group: str  # a key of GROUPS
    value: str  # '' where they have none
    key: str  # what names the value in an address
    backends: int
    active: int
    in_transaction: int  # idle in one
    blocked: int
    longest: Backend | None  # whose running statement is the oldest, None where none runs
    longest_pid: int | None
    longest_seconds: float | None  # of that statement
    longest_xact_seconds: float | None  # of the oldest transaction


class IdleRow(TypedDict):
    """Idle backends of one application and user in one database."""

    application_name: str
    usename: str
    datname: str
    backends: int
    idle_seconds: float  # of the one that is idle longest


def is_in(state: str, backend: Backend) -> bool:
    """Tell whether a backend, or one of its workers, is what a key of STATES means."""
    _, test = STATES[state]
    return test(backend) or any(test(worker) for worker in backend.workers)


def value_of(backend: Backend, group: str) -> str:
    """Return what a backend has in a group, '' for nothing; a statement's literals are replaced."""
    value = backend.wait if group == "wait" else backend.row.get(group)
    return str(value or "")


def key_of(value: str, group: str) -> str:
    """Return what names a value in an address: of a statement a part of its hash."""
    if group != "query" or not value:
        return value
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def groups_of(backends: Iterable[Backend], group: str) -> list[GroupRow]:
    """Return backends by one of GROUPS, the greatest group first."""
    found: dict[str, list[Backend]] = {}
    for backend in backends:
        found.setdefault(value_of(backend, group), []).append(backend)
    rows = [row_of(group, value, alike) for value, alike in found.items()]
    return sorted(rows, key=lambda row: (-row["backends"], row["value"]))


def row_of(group: str, value: str, alike: list[Backend]) -> GroupRow:
    """Return the row of the backends that have one value."""
    running = [one for one in alike if one.is_running and one.query_seconds is not None]
    longest = max(running, key=lambda one: one.query_seconds or 0, default=None)
    open_for = [one.xact_seconds for one in alike if one.xact_seconds is not None]
    return {
        "group": group,
        "value": value,
        "key": key_of(value, group),
        "backends": len(alike),
        "active": sum(one.is_running for one in alike),
        "in_transaction": sum(one.is_in_transaction for one in alike),
        "blocked": sum(is_in("blocked", one) for one in alike),
        "longest": longest,
        "longest_pid": longest.pid if longest else None,
        "longest_seconds": longest.query_seconds if longest else None,
        "longest_xact_seconds": max(open_for, default=None),
    }


def fold_workers(backends: Iterable[Backend]) -> list[Backend]:
    """Return backends in their order, parallel workers not among them but with their leader.

    A worker whose leader is not among them stands for itself.
    """
    found = list(backends)
    by_pid = {backend.pid: backend for backend in found}
    alone = []
    for backend in found:
        leader = by_pid.get(backend.row.get("leader_pid") or 0)
        if leader is None or leader is backend:
            alone.append(backend)
        else:
            leader.workers.append(backend)
    return alone


def sum_up_idle(backends: Iterable[Backend]) -> list[IdleRow]:
    """Return what is idle by application and user, most backends first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    oldest: dict[tuple[str, str, str], float] = {}
    for backend in backends:
        if backend.is_client and backend.row.get("state") == "idle":
            group = (backend.application_name or "", backend.usename or "", backend.datname or "")
            counts[group] += 1
            oldest[group] = max(oldest.get(group, 0.0), backend.state_seconds or 0.0)
    return [
        {
            "application_name": application_name,
            "usename": usename,
            "datname": datname,
            "backends": count,
            "idle_seconds": oldest[application_name, usename, datname],
        }
        for (application_name, usename, datname), count in counts.most_common()
    ]
