"""The registered servers behind the pools of poolers: found by address, never assumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from monitors.advisor import IDLE_IN_TRANSACTION, RUNNING, Row, is_client, marked
from monitors.history.latest import read_as_of
from monitors.kinds import PGBOUNCER, POSTGRES
from monitors.models import HISTORY, Target
from monitors.pg import hosts
from monitors.rules.pooler import Behind

Pool = tuple[str, str]
"""Database and user, as the pooler calls them."""


def behind_of(
    target: Target, rows: Mapping[str, Sequence[Row]], at: datetime | None = None
) -> dict[Pool, Behind]:
    """Return what runs on the registered servers behind the pools for which clients wait.

    `rows` are those of the pooler's probes. Pools of a server that nobody registered, or two
    targets fit, are left out; so are those of one whose activity was never read. With `at`, as of a past moment.
    """
    waiting = [row for row in rows.get("pooler_pools", ()) if row["cl_waiting"]]
    if target.kind != PGBOUNCER or not waiting:
        return {}
    databases = {row["name"]: row for row in rows.get("pooler_databases", ())}
    known = list(Target.objects.filter(kind=POSTGRES, enabled=True, deleting_at=None))
    activity: dict[int, list[Row]] = {}
    found: dict[Pool, Behind] = {}
    for pool in waiting:
        database = databases.get(pool["database"])
        server = server_of(target, database, known) if database else None
        if server is None:
            continue
        if server.pk not in activity:
            activity[server.pk] = activity_of(server, at)
        if not activity[server.pk]:
            continue
        key = (pool["database"], pool["user"])
        mine = [
            row for row in rows.get("pooler_servers", ()) if (row["database"], row["user"]) == key
        ]
        found[key] = behind(server, activity[server.pk], mine)
    return found


def server_of(pooler: Target, database: Row, known: Iterable[Target]) -> Target | None:
    """Return the one target that a pooler's database leads to, None where none or several fit."""
    wanted = (host_of(pooler, database["host"]), database["port"])
    fits = [one for one in known if (canonical(one.host), one.port) == wanted]
    return fits[0] if len(fits) == 1 else None


def host_of(pooler: Target, host: str | None) -> str:
    """Return the host of a pooler's database as we would call it.

    A socket or a loopback address is the pooler's own machine.
    """
    own = not host or host.startswith(("/", "@")) or hosts.is_loopback(host)
    return canonical(pooler.host if own else host or "")


def canonical(host: str) -> str:
    """Return a host in one spelling; all names of this machine are one."""
    return "localhost" if hosts.is_loopback(host) else host.lower().rstrip(".")


def activity_of(server: Target, at: datetime | None) -> list[Row]:
    """Return a server's backends as last read, or at a past moment."""
    if at is not None:
        return list(marked(read_as_of("activity", server.pk, at), server.logins))
    rows = HISTORY["activity"].latest._default_manager.filter(target_id=server.pk, gone_at=None)
    return list(marked(rows.values(), server.logins))


def behind(server: Target, activity: Sequence[Row], servers: Sequence[Row]) -> Behind:
    """Return what a server does as a whole, and what the backends of one pool do."""
    pids = {row["remote_pid"] for row in servers if row["link"]}
    mine = [row for row in activity if row["pid"] in pids]
    return Behind(
        cores=server.cores,
        active=sum(is_client(row) and row["state"] in RUNNING for row in activity),
        backends=len(mine),
        idle_in_transaction=sum(row["state"] in IDLE_IN_TRANSACTION for row in mine),
    )
