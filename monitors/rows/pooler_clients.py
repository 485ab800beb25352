"""The clients of a pooler that have work, each with its server; and who stands behind a backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from monitors.findings.behind import server_of
from monitors.history.freshness import clocks
from monitors.history.latest import read_as_of, read_latest
from monitors.history.window import Window
from monitors.kinds import PGBOUNCER
from monitors.models import Target
from monitors.probe import Reading
from monitors.rows.tables import rows_at

COLUMNS = (
    "database",
    "user",
    "state",
    "application_name",
    "addr",
    "port",
    "wait_seconds",
    "connect_time",
    "request_time",
    "remote_pid",
    "ptr",
    "client_id",
)
"""Keys of the export, in order."""
WAITING = "waiting"


class ClientRow(TypedDict):
    """One client of a pooler that waits for a server or has one."""

    database: str
    user: str
    state: str
    application_name: str
    addr: str
    port: int
    wait_seconds: float  # 0: it has a server
    connect_time: str  # with its zone, by the pooler's clock
    request_time: str
    remote_pid: int | None  # of the backend that works for it
    ptr: str
    client_id: int | None  # None before 1.24
    pooler: str  # the name of its target
    read_at: datetime  # our clock


def clients_of(target: Target, window: Window) -> list[ClientRow]:
    """Return a pooler's clients with work, the longest wait first."""
    clients = rows_at("pooler_clients", target, window)
    servers = rows_at("pooler_servers", target, window)
    return joined(target, clients, servers, None if window.is_live else window.end)


def joined(
    pooler: Target, clients: Iterable[Reading], servers: Iterable[Reading], at: datetime | None
) -> list[ClientRow]:
    """Return clients with the backends that work for them; none before both were read."""
    read = [clocks(pooler, name, at).get(0) for name in ("pooler_clients", "pooler_servers")]
    known = [moments[0] for moments in read if moments is not None]
    if len(known) < len(read):
        return []
    pids = {row["ptr"]: row["remote_pid"] for row in servers}
    rows = [client_row(pooler, row, pids.get(row["link"]), min(known)) for row in clients]
    return sorted(rows, key=lambda row: (-row["wait_seconds"], row["database"], row["ptr"]))


def client_row(
    pooler: Target, row: Reading, remote_pid: int | None, read_at: datetime
) -> ClientRow:
    """Return one client."""
    return {
        "database": row["database"],
        "user": row["user"],
        "state": row["state"],
        "application_name": row["application_name"] or "",
        "addr": row["addr"],
        "port": row["port"],
        "wait_seconds": row["wait_seconds"] or 0.0,
        "connect_time": row["connect_time"],
        "request_time": row["request_time"],
        "remote_pid": remote_pid or None,
        "ptr": row["ptr"],
        "client_id": row["client_id"],
        "pooler": pooler.name,
        "read_at": read_at,
    }


def clients_behind(
    target: Target, at: datetime | None = None, poolers: Sequence[Target] | None = None
) -> dict[int, ClientRow]:
    """Return {pid of a backend of a server: the pooler's client that it works for}.

    Of the registered poolers that lead to the server, or of those among `poolers` (whom the
    reader may see); with `at`, as it was read by a past moment. A pooler gives a backend to
    another client after each transaction: `is_same_work` tells whether it still works for it.
    """
    known = Target.objects.filter(kind=PGBOUNCER, enabled=True, deleting_at=None)
    found: dict[int, ClientRow] = {}
    for pooler in known if poolers is None else poolers:
        databases = read("pooler_databases", pooler, at)
        leads = {row["name"] for row in databases if server_of(pooler, row, [target]) == target}
        if not leads:
            continue
        servers = [row for row in read("pooler_servers", pooler, at) if row["database"] in leads]
        for row in joined(pooler, read("pooler_clients", pooler, at), servers, at):
            if row["remote_pid"] is not None:
                found[row["remote_pid"]] = row
    return found


def is_same_work(client: ClientRow, xact_start: datetime | None, skew: timedelta) -> bool:
    """Tell whether a backend's transaction was open when the pooler said whose it is.

    `skew` is what the server's clock is ahead of ours. Only then it is that client's.
    """
    return xact_start is not None and xact_start <= client["read_at"] + skew


def read(probe_name: str, pooler: Target, at: datetime | None) -> Sequence[Reading]:
    """Return a probe's rows as last read, or by a past moment."""
    if at is None:
        return read_latest(probe_name, pooler.pk)
    return read_as_of(probe_name, pooler.pk, at)
