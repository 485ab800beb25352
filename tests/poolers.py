"""Real PgBouncers before a server: Debian's own, and a later one where it was prepared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from dashboard.embedded import processes
from tests import debian
from tests.debian import Missing
from tests.servers import Server

VERSIONS = ("installed", "1.26")
"""The one that the system's package manager installed, 1.18 on Debian 12, and later ones."""


LOGINS = ("collector", "operator", "owner")
"""Whom the pooler lets in."""
CONSOLE = {"stats_users": "collector", "admin_users": "operator"}
"""Settings by which Howdah's logins may use its console."""


def program(version: str) -> Path:
    """Return a pgbouncer to run; raises Missing where it is not on this machine."""
    if version != "installed":
        return debian.found(f"pgbouncer-{version}") / "pgbouncer"
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        message = "No pgbouncer: apt-get install pgbouncer, without starting it."
        raise Missing(message)
    return Path(found)


@contextmanager
def pooling(
    which: Path, folder: Path, server: Server, logins: tuple[str, ...], **settings: str
) -> Iterator[Server]:
    """Run a pooler before a server for as long as the context lasts; gives its address.

    `settings` are those of its ini file beside the needed ones; `databases` are lines before `*`.
    """
    databases = settings.pop("databases", "")
    port = processes.free_port()
    users, ini, log = folder / "users.txt", folder / "pgbouncer.ini", folder / "pgbouncer.log"
    users.write_text("".join(f'"{login}" "{server.password}"\n' for login in logins))
    lines = {
        "listen_addr": server.host,
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": str(users),
        **settings,
    }
    ini.write_text(
        f"[databases]\n{databases}\n* = host={server.host} port={server.port}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    for file in (users, ini):  # it runs as another user where we are root
        file.chmod(0o644)
    child = processes.start("pgbouncer", [which, ini], log=log, account=processes.unprivileged())
    pooler = replace(server, port=port, log=str(log))
    try:
        if not processes.wait_until(lambda: answers(pooler, logins[0]), seconds=10):
            raise AssertionError(log.read_text())
        yield pooler
    finally:
        child.stop()


def answers(pooler: Server, login: str) -> bool:
    """Whether a pooler lets somebody in."""
    try:
        pooler.connect(user=login).close()
    except psycopg.OperationalError:
        return False
    return True
