"""Who holds the clients' connections: groups, limits, ages, those that rest, and what may be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from monitors.advisor import (
    IDLE_IN_TRANSACTION,
    RUNNING,
    Hurt,
    marked,
    seconds_since,
    spelled,
)
from monitors.findings import recent
from monitors.history.freshness import clocks
from monitors.history.window import Window
from monitors.models import ProbeState, Target
from monitors.pg.errors import SERVER_FULL
from monitors.probe import Reading
from monitors.rows.tables import read_at_of, rows_at
from monitors.rules import connections
from monitors.rules.connections import IDLE

GROUPS: Mapping[str, str] = {
    "application_name": "Application",
    "usename": "User",
    "client_addr": "Host",
    "datname": "Database",
    "state": "State",
    "ssl": "TLS",
}
"""Columns by which connections are summed up, with their titles."""

NAMELESS: Mapping[str, str] = {
    "application_name": "(no name)",
    "usename": "(not known)",
    "client_addr": "(local socket)",
    "datname": "(none)",
    "state": "(not known)",
    "ssl": "(no TLS)",
}
"""What a group is called of which the server says ''."""

COLUMNS = (
    "grouped_by",
    "name",
    "backends",
    "used_pct",
    "active",
    "idle",
    "idle_in_transaction",
    "young",
    "long_idle",
    "oldest_backend_start",
    "youngest_backend_start",
    "idle_since",
    "read_at",
)
"""Keys of the export, in order."""

IDLE_COLUMNS = (
    "pid",
    "backend_start",
    "application_name",
    "usename",
    "datname",
    "client_addr",
    "idle_since",
    "idle_seconds",
    "connected_seconds",
)
LIMIT_COLUMNS = ("kind", "name", "used", "connection_limit", "used_pct")

AGES = ((60, "under 1 min"), (600, "1 to 10 min"), (3600, "10 min to 1 h"), (86400, "1 h to 1 d"))
"""Seconds below which a connection is of an age; what is older is of OLDEST."""
OLDEST = "over 1 d"


class GroupRow(TypedDict):
    """The client backends that have one thing in common."""

    grouped_by: str  # of GROUPS
    name: str  # '' where the server says none, `(others)` of the smallest groups
    label: str  # the same to be read
    backends: int
    used_pct: float | None  # of the usable connections
    active: int
    idle: int
    idle_in_transaction: int
    young: int  # connected within a minute
    long_idle: int  # idle for over ten minutes
    oldest_backend_start: datetime | None
    youngest_backend_start: datetime | None
    idle_since: datetime | None  # of the one that has been idle longest
    read_at: datetime | None


class IdleRow(TypedDict):
    """A client's backend that does nothing, outside of a transaction."""

    pid: int
    backend_start: datetime
    application_name: str | None
    usename: str | None
    datname: str | None
    client_addr: str | None
    idle_since: datetime
    idle_seconds: float
    connected_seconds: float
    ours: bool
    rolsuper: bool | None
    guard: Mapping[str, str]  # arguments of terminate_backend


class LimitRow(TypedDict):
    """A limit of connections of a role or a database, with its use."""

    kind: str  # role or database
    name: str
    used: int
    connection_limit: int
    used_pct: float | None  # None: the limit is 0


class AgeRow(TypedDict):
    """How many connections are of an age."""

    label: str
    backends: int
    pct: float


@dataclass(frozen=True)
class Use:
    """How many connections there are, and how many there may be; None where that is not known."""

    used: int | None
    usable: int | None
    max_connections: int | None
    reserved: int | None
    states: Mapping[str, int]
    refused_since: datetime | None
    """Since when the server has had no slot left for a new connection of Howdah's."""
    is_blind: bool
    """Whether it thus can't count connections any more: the figures are of before."""
    hurt: Hurt | None
    """When the last usable one is taken, at the rate of the last hour."""

    @property
    def pct(self) -> float | None:
        """The share of the usable ones that is taken."""
        return 100 * self.used / self.usable if self.used is not None and self.usable else None

    @property
    def is_full(self) -> bool:
        """Whether ordinary clients are refused."""
        known = self.used is not None and self.usable is not None
        return self.refused_since is not None or bool(
            known and (self.used or 0) >= (self.usable or 0)
        )

    @property
    def idle(self) -> int:
        """Those that do nothing."""
        return self.states.get(IDLE, 0)

    @property
    def in_transaction(self) -> int:
        """Those that do nothing with a transaction open."""
        return sum(self.states.get(state, 0) for state in IDLE_IN_TRANSACTION)


def use_of(target: Target, window: Window) -> Use:
    """Return the use of connections now, or at the end of a window in the past.

    Of a past moment the target has to be as it was then (`findings.past.as_of`).
    """
    rows = rows_at("sessions", target, window)
    states: dict[str, int] = {}
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + (row["backends"] or 0)
    used = connections.taken(rows) if read_at_of(target, window, "sessions") else None
    usable = connections.usable(target.max_connections, target.reserved_connections)
    refused = refused_by(target) if window.is_live else {}
    dated = None
    if used is not None and usable:
        rate = recent.connections(target, window.end)
        dated = connections.exhausted(used, usable, rate, window.end)
    return Use(
        used,
        usable,
        target.max_connections,
        target.reserved_connections,
        states,
        min(refused.values(), default=None),
        "sessions" in refused,
        dated,
    )


def refused_by(target: Target) -> dict[str, datetime]:
    """Return since when which probes could not be read, since the server had no slot for Howdah."""
    rows = ProbeState.objects.filter(target=target, reason=SERVER_FULL)
    found = rows.order_by("-failing_since").values_list("probe", "failing_since")
    return {probe: since for probe, since in found if since is not None}  # the first comes last


def groups_of(target: Target, window: Window, by: str, usable: int | None) -> list[GroupRow]:
    """Return the client backends summed up by one of GROUPS, the largest group first."""
    read_at = read_at_of(target, window, "connections").get(0)
    parts: dict[str, list[Reading]] = {}
    for row in rows_at("connections", target, window):
        parts.setdefault(row[by], []).append(row)
    groups = [group_row(by, name, rows, usable, read_at) for name, rows in parts.items()]
    return sorted(groups, key=lambda group: (-group["backends"], group["name"]))


def group_row(
    by: str, name: str, rows: list[Reading], usable: int | None, read_at: datetime | None
) -> GroupRow:
    """Return one group of some rows of the probe."""
    backends = connections.count_of(rows)
    return {
        "grouped_by": by,
        "name": name,
        "label": name or NAMELESS[by],
        "backends": backends,
        "used_pct": 100 * backends / usable if usable else None,
        "active": in_states(rows, RUNNING),
        "idle": in_states(rows, (IDLE,)),
        "idle_in_transaction": in_states(rows, IDLE_IN_TRANSACTION),
        "young": connections.count_of(rows, "young"),
        "long_idle": connections.count_of(rows, "long_idle"),
        "oldest_backend_start": min(told(rows, "oldest_backend_start"), default=None),
        "youngest_backend_start": max(told(rows, "youngest_backend_start"), default=None),
        "idle_since": min(told(rows, "idle_since"), default=None),
        "read_at": read_at,
    }


def in_states(rows: Iterable[Reading], states: Iterable[str]) -> int:
    """Return how many backends of some rows are in one of some states."""
    among = frozenset(states)
    return connections.count_of(row for row in rows if row["state"] in among)


def told(rows: Iterable[Reading], column: str) -> list[datetime]:
    """Return the moments of a column, without those that are not known."""
    return [row[column] for row in rows if row[column] is not None]


def clients_of(target: Target, window: Window) -> tuple[list[dict[str, Any]], datetime]:
    """Return the backends of clients as `activity` read them, with `ours`, and the server's time then."""
    rows = marked(rows_at("activity", target, window), target.logins)
    read = clocks(target, "activity", None if window.is_live else window.end).get(0)
    now = read[1] if read else window.end
    return [row for row in rows if row["backend_type"] == "client backend"], now


def idle_of(clients: Iterable[Reading], now: datetime) -> list[IdleRow]:
    """Return those that are idle outside of a transaction, the longest first."""
    rows = [
        IdleRow(
            pid=row["pid"],
            backend_start=row["backend_start"],
            application_name=row["application_name"],
            usename=row["usename"],
            datname=row["datname"],
            client_addr=row["client_addr"],
            idle_since=row["state_change"],
            idle_seconds=seconds_since(row["state_change"], now),
            connected_seconds=seconds_since(row["backend_start"], now),
            ours=row["ours"],
            rolsuper=row["rolsuper"],
            guard={name: spelled(row[name]) for name in ("pid", "backend_start", "state_change")},
        )
        for row in clients
        if row["state"] == IDLE and row["state_change"] is not None
    ]
    return sorted(rows, key=lambda row: (row["idle_since"], row["pid"]))


def ages_of(clients: Iterable[Reading], now: datetime) -> list[AgeRow]:
    """Return how many clients' connections are of which age, the youngest first."""
    counts = dict.fromkeys((*(label for _, label in AGES), OLDEST), 0)
    for row in clients:
        seconds = (now - row["backend_start"]).total_seconds()
        counts[next((label for most, label in AGES if seconds < most), OLDEST)] += 1
    whole = sum(counts.values()) or 1
    return [AgeRow(label=one, backends=n, pct=100 * n / whole) for one, n in counts.items()]


def limits_of(target: Target, window: Window, clients: Iterable[Reading]) -> list[LimitRow]:
    """Return the limits of roles and databases that have one, the fullest first.

    Superusers are bound by none, so the probe reads none of theirs.
    """
    backends = list(clients)
    found = [
        limit_row("role", row["rolname"], row["rolconnlimit"], backends, "usename")
        for row in rows_at("logins", target, window)
        if row["rolconnlimit"] is not None and row["rolconnlimit"] >= 0
    ]
    found += [
        limit_row("database", row["datname"], row["datconnlimit"], backends, "datname")
        for row in rows_at("databases", target, window)
        if row["datconnlimit"] is not None and row["datconnlimit"] >= 0
    ]
    return sorted(found, key=lambda row: (-(row["used_pct"] or 0), row["kind"], row["name"]))


def limit_row(
    kind: str, name: str, limit: int, backends: Iterable[Reading], column: str
) -> LimitRow:
    """Return one limit with how many backends count against it."""
    used = sum(row[column] == name for row in backends)
    pct = 100 * used / limit if limit else None
    return LimitRow(kind=kind, name=name, used=used, connection_limit=limit, used_pct=pct)


def biggest_idle(groups: Iterable[GroupRow]) -> GroupRow | None:
    """Return the group with most that rest for long, else with most idle; None without any."""
    resting = [group for group in groups if group["idle"]]
    return max(resting, key=lambda one: (one["long_idle"], one["idle"]), default=None)
