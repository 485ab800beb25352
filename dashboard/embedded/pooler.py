"""A PgBouncer before the demonstration's server, where this machine has one: with a pool of two."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from dashboard.embedded import processes
from dashboard.embedded.databases import COLLECTOR, OPERATOR
from dashboard.embedded.processes import Child

PORT = 54327
SHOP = "shop"
CONFIGURATION = """\
[databases]
shop = host=127.0.0.1 port={server_port} pool_size=2
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
auth_type = scram-sha-256
auth_file = {users}
stats_users = {collector}
admin_users = {operator}
log_connections = 0
log_disconnections = 0
"""
MISSING = "This machine has no pgbouncer: the demonstration goes without a pooler."


def program() -> Path | None:
    """Return the program, None where the machine has none."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


def start(
    which: Path, folder: Path, port: int, server_port: int, passwords: Mapping[str, str]
) -> Child:
    """Start it, as another user where we are root: it refuses to run as root, as PostgreSQL does."""
    folder.mkdir(mode=0o700, exist_ok=True)
    users, ini = folder / "users.txt", folder / "pgbouncer.ini"
    logins = (SHOP, COLLECTOR, OPERATOR)
    processes.write_private(users, "".join(f'"{one}" "{passwords[one]}"\n' for one in logins))
    settings = {"port": port, "server_port": server_port, "users": users}
    text = CONFIGURATION.format(collector=COLLECTOR, operator=OPERATOR, **settings)
    processes.write_private(ini, text)
    account = processes.unprivileged()
    if account:
        for path in (folder, users, ini):
            os.chown(path, account.uid, account.gid)
    return processes.start(
        "pgbouncer",
        [which, ini],
        log=folder.with_suffix(".log"),
        account=account,
        stop_signal=signal.SIGKILL,  # others wait for the clients to leave, and it keeps nothing
    )
