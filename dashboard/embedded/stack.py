"""Every process of one start, in the order in which they need each other.

Long, since the order in which all parts start is one story.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dashboard.embedded import (
    assets,
    databases,
    pooler,
    postgres,
    prepare,
    processes,
    running,
    state,
    valkey,
)
from dashboard.embedded.forks import Forks
from dashboard.embedded.postgres import Cluster
from dashboard.embedded.processes import ROOT, Child, StartFailed, last_lines
from dashboard.embedded.running import Running
from dashboard.embedded.watched import Watched

WEB_PORT = 8000
HISTORY_PORT = 54329
DEMO_PORT = 54328
BROKER_PORT = 63799
HEALTHY_SECONDS = 60
WORKERS = {  # role: (queues, threads)
    "snapshots": ("snapshots.0", 16),
    "signals": ("signals", 4),
    "requests": ("requests,long", 24),
}
BEATING = "requests"
"""The worker that is beat too: its queue is where beat's ticks go, so each needs the other."""


@dataclass(frozen=True)
class Options:
    """What bin/up was asked for; `port` None: 8000, or a free one where that is busy."""

    port: int | None = None
    bind: str = "127.0.0.1"
    once: bool = False
    demo: bool = True
    insecure: bool = False


@dataclass
class Stack:
    """Every process of one start."""

    options: Options
    folder: Path
    clusters: list[Cluster] = field(default_factory=list)
    port: processes.HeldPort | None = None
    forks: Forks | None = None
    broker: Watched | None = None
    servers: list[Watched] = field(default_factory=list)
    children: list[Watched] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Start everything and wait until the whole chain has worked once."""
        running.forget(self.folder)
        (self.folder / "logs").mkdir(mode=0o700, exist_ok=True)
        port = self.take_port()
        given = [is_set(os.environ, name) for name in ("DATABASE_URL", "REDIS_URL")]
        if any(given) and not all(given):
            message = "Set both DATABASE_URL and REDIS_URL, or neither for the embedded servers."
            raise StartFailed(message)
        self.environment = self.own_environment()
        targets = {} if all(given) else self.start_servers()
        if "demo" in targets:
            targets |= self.start_pooler(targets["demo"])
            self.start_demo(targets["demo"], targets.get(prepare.POOL))
        self.fetch_assets()
        known = [
            prepare.Known(
                name=name,
                kind="pgbouncer" if name == prepare.POOL else "postgres",
                host="127.0.0.1",
                port=number,
                sslmode="disable",
            )
            for name, number in targets.items()
        ]
        migrated = self.is_migrated()
        if not migrated:
            self.bring_up_to_date(known)
        for history in self.clusters[:1]:
            databases.forget_workers(history)
        self.start_howdah(port)
        if migrated and not self.is_prepared(known):
            self.bring_up_to_date(known)
        self.wait_until_healthy(port)
        running.write(self.folder, self.description(port))

    def take_port(self) -> int:
        """Hold the port to listen on and return it; raise StartFailed where none can be had."""
        asked, host = self.options.port, self.options.bind
        try:
            self.port = processes.hold_port(WEB_PORT if asked is None else asked, host)
        except OSError as error:
            busy = error.errno == errno.EADDRINUSE
            if busy and asked is None:
                self.port = processes.hold_port(0, host)
            elif busy:
                message = f"Port {asked} is busy. Choose another one with --port."
                raise StartFailed(message) from error
            else:
                message = (
                    f"Can't listen on {host} ({error.strerror}). Choose another --bind or --port."
                )
                raise StartFailed(message) from error
        return self.port.number

    def own_environment(self) -> dict[str, str]:
        """Return the environment of our processes; what the caller set stays."""
        passwords = state.passwords(self.folder)
        made = {
            "DJANGO_SETTINGS_MODULE": "dashboard.settings",
            "HOWDAH_STATE_DIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "ALLOWED_HOSTS": ",".join(self.host_names()),
        }
        for name in ("SECRET_KEY", "HOWDAH_PUBLIC_KEY", "HOWDAH_PRIVATE_KEY"):
            if not is_set(os.environ, name):
                made[name] = passwords[name.removeprefix("HOWDAH_").lower()]
        return {**made, **os.environ}

    def host_names(self) -> list[str]:
        """Return the names under which browsers may ask for us."""
        names = ["localhost", "127.0.0.1", "[::1]", self.options.bind, socket.gethostname()]
        if self.options.bind in {"0.0.0.0", "::"}:  # noqa: S104 - asked for, and refused without TLS
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect(("192.0.2.1", 9))  # sends nothing; tells our own address
                    names.append(probe.getsockname()[0])
                except OSError:
                    pass
        return list(dict.fromkeys(names))

    def start_servers(self) -> dict[str, int]:
        """Start the embedded servers; return the ports of the targets among them."""
        passwords = state.passwords(self.folder)
        programs = postgres.embedded_programs()
        unicode = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        history = Cluster(
            name="history",
            folder=self.folder / "history",
            programs=programs,
            password=passwords["history_superuser"],
            settings=databases.HISTORY_SETTINGS,
            initdb_options=unicode,
        )
        self.clusters = [history]
        if self.options.demo:
            demo = Cluster(
                name="demo",
                folder=self.folder / "demo",
                programs=programs,
                password=passwords["demo_superuser"],
                settings=databases.DEMO_SETTINGS,
                initdb_options=unicode,
            )
            self.clusters.append(demo)
        self.start_clusters()
        broker_port = processes.free_port(BROKER_PORT)
        self.start_broker(broker_port)
        for position, cluster in enumerate(self.clusters):
            try:
                cluster.wait()
            except StartFailed:
                if processes.port_is_free(cluster.port):
                    raise  # nobody was faster: it is something else
                self.servers[position] = watched(partial(cluster.start, processes.free_port()))
                cluster.wait()
        try:
            self.wait_for_broker(broker_port)
        except StartFailed:
            if processes.port_is_free(broker_port):
                raise
            broker_port = processes.free_port()
            self.start_broker(broker_port)
            self.wait_for_broker(broker_port)
        self.prepare_databases()
        address = f"127.0.0.1:{history.port}/howdah"
        self.environment |= {
            "DATABASE_URL": f"postgresql://{databases.APP}:{passwords[databases.APP]}@{address}",
            "MIGRATE_DATABASE_URL": (
                f"postgresql://{databases.OWNER}:{passwords[databases.OWNER]}@{address}"
            ),
            "HOWDAH_APP_ROLE": databases.APP,
            "REDIS_URL": valkey.url(broker_port, passwords["broker"]),
            "HOWDAH_ALLOW_LOOPBACK_TARGETS": "true",
        }
        return {
            "howdah" if cluster is history else cluster.name: cluster.port
            for cluster in self.clusters
        }

    def start_broker(self, port: int) -> None:
        """Start the broker; `wait_for_broker` before its first use."""
        password = state.passwords(self.folder)["broker"]
        self.broker = watched(partial(valkey.start, self.folder, port, password))

    def wait_for_broker(self, port: int) -> None:
        """Wait until the broker answers; raise StartFailed when it won't."""
        if self.broker is not None:
            valkey.wait(self.broker.child, port, state.passwords(self.folder)["broker"])

    def start_clusters(self) -> None:
        """Initialize where needed, side by side, and start."""
        new = [(cluster, cluster.initialize()) for cluster in self.clusters]
        if any(process for _, process in new):
            self.say("Making the databases.")
        for cluster, process in new:
            cluster.initialized(process)
        usual = {"history": HISTORY_PORT, "demo": DEMO_PORT}
        for cluster in self.clusters:
            port = processes.free_port(usual[cluster.name])
            self.servers.append(watched(partial(cluster.start, port)))

    def prepare_databases(self) -> None:
        """Make roles and databases at the first start of a cluster."""
        passwords = state.passwords(self.folder)
        todo = {"history": databases.prepare_history, "demo": databases.prepare_demo}
        for cluster in self.clusters:
            done = self.folder / f"{cluster.name}.prepared"
            if not done.exists():
                todo[cluster.name](cluster, passwords)
                done.touch()

    def fetch_assets(self) -> None:
        """Get front-end libraries that are missing, and collect static files that changed."""
        fetched = assets.install()
        if fetched:
            self.say(f"Fetched {', '.join(fetched)}.")
        with alone_in(ROOT):
            stamp, now = ROOT / "staticfiles" / ".stamp", static_stamp()
            if stamp.exists() and stamp.read_text(encoding="utf-8") == now:
                return
            argv: list[str | Path] = [sys.executable, ROOT / "manage.py", "collectstatic"]
            self.finish(self.process("collectstatic", [*argv, "--no-input", "--clear"]))
            stamp.write_text(now, encoding="utf-8")

    def process(
        self, name: str, argv: list[str | Path], environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a program of ours; none of these gets the private key."""
        env = self.environment_of(environment or {})
        return processes.start(name, argv, log=self.log_of(name), env=env)

    def environment_of(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return what a program of ours is told; the key no one, the owner's login who migrates."""
        withheld = {"HOWDAH_PRIVATE_KEY"}
        if "HOWDAH_MIGRATE" not in more:
            withheld.add("MIGRATE_DATABASE_URL")
        return {
            name: value
            for name, value in {**self.environment, **more}.items()
            if name.removesuffix("_FILE") not in withheld
        }

    def log_of(self, name: str) -> Path:
        """Return where a process's output goes, begun anew where it has grown large."""
        log = self.folder / "logs" / f"{name}.log"
        keep_small(log)
        return log

    def bring_up_to_date(self, known: list[prepare.Known]) -> None:
        """Migrate our own database, and have the account and the targets in it."""
        passwords = state.passwords(self.folder)
        environment = {
            "HOWDAH_PREPARED": str(self.prepared_file),
            "HOWDAH_TARGETS": json.dumps(known),
            "HOWDAH_ADMIN_PASSWORD": passwords["admin"],
            "HOWDAH_COLLECTOR_PASSWORD": passwords[databases.COLLECTOR],
            "HOWDAH_OPERATOR_PASSWORD": passwords[databases.OPERATOR],
        }
        if is_set(self.environment, "MIGRATE_DATABASE_URL"):
            environment["HOWDAH_MIGRATE"] = "1"
        argv: list[str | Path] = [sys.executable, "-m", "dashboard.embedded.prepare"]
        self.finish(self.process("prepare", argv, environment))

    @property
    def prepared_file(self) -> Path:
        """Where `prepare` says what it found."""
        return self.folder / "prepared.json"

    def is_migrated(self) -> bool:
        """Whether the last start migrated to this very code, so that nobody need wait."""
        prepared = prepare.read(self.prepared_file) if self.clusters else None
        return prepared is not None and prepared["migrations"] == prepare.migrations()

    def is_prepared(self, known: list[prepare.Known]) -> bool:
        """Whether the targets stand where they stood, and the login is what it was."""
        prepared = prepare.read(self.prepared_file)
        return (
            prepared is not None
            and prepared["targets"] == known
            and prepared["login"] == databases.login_of(self.clusters[0], prepare.ADMIN)
        )

    def finish(self, child: Child, seconds: float = 120) -> None:
        """Wait for a process that ends by itself; raise StartFailed where it failed."""
        if not processes.wait_until(lambda: child.died, seconds=seconds):
            child.stop()
        if child.process.returncode != 0:
            told = last_lines(child.log, begin=child.log_begin)
            message = f"{child.name} failed ({child.log}):\n{told}"
            raise StartFailed(message)

    def start_howdah(self, port: int) -> None:
        """Start web and workers, one of which is beat too."""
        # Sixteen threads under one lock need no heaps of their own, which grow and stay.
        self.forks = Forks(self.environment_of({"MALLOC_ARENA_MAX": "1"}), self.log_of)
        web = {"bind": self.options.bind, "port": port}
        self.keep(partial(self.forks.start, "web", "web", web))
        file = self.environment.get("HOWDAH_PRIVATE_KEY_FILE")
        env = {"HOWDAH_PRIVATE_KEY_FILE": file} if file else {}
        key = "HOWDAH_PRIVATE_KEY"
        secrets = {} if file else {key: self.environment[key]}
        for role, (queues, threads) in WORKERS.items():
            worker: dict[str, object] = {"role": role, "queues": queues, "threads": threads}
            if role == BEATING:
                worker["beat_schedule"] = str(self.folder / "beat-schedule")
            begin = partial(self.forks.start, f"worker-{role}", "worker", worker)
            self.keep(partial(begin, {**env, "HOWDAH_ROLE": role}, secrets))

    def start_pooler(self, server_port: int) -> dict[str, int]:
        """Start a pooler before the demonstration's server; return its port by the target's name.

        {} on a machine without one.
        """
        which = pooler.program()
        if which is None:
            self.say(pooler.MISSING)
            return {}
        port, folder = processes.free_port(pooler.PORT), self.folder / "pooler"
        passwords = state.passwords(self.folder)
        self.keep(partial(pooler.start, which, folder, port, server_port, passwords))
        return {prepare.POOL: port}

    def start_demo(self, port: int, pool_port: int | None) -> None:
        """Start the demonstration's workload, a part of it behind the pooler where there is one."""
        passwords = state.passwords(self.folder)
        environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "shop",
            "PGPASSWORD": passwords["shop"],
            "PGDATABASE": "shop",
            "HOWDAH_DEMO_POOL_PORT": str(pool_port or ""),
        }
        argv: list[str | Path] = [sys.executable, "-m", "dashboard.embedded.demo"]
        self.keep(partial(self.process, "demo-workload", argv, environment))

    def keep(self, begin: Callable[[], Child]) -> None:
        """Start one of our own processes that shall run as long as we do."""
        self.children.append(watched(begin))

    def wait_until_healthy(self, port: int) -> None:
        """Poll until a tick went through beat, broker, worker and database."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.options.bind, self.options.bind)  # noqa: S104
        deadline = time.monotonic() + HEALTHY_SECONDS
        while (reason := unready(host, port)) is not None:
            self.check_children()
            if time.monotonic() > deadline:
                message = f"Not healthy within {HEALTHY_SECONDS} s: {reason}"
                raise StartFailed(message)
            time.sleep(0.15)

    @property
    def parts(self) -> list[Watched]:
        """Everything that runs, in the order in which it was started."""
        return [*self.servers, *([self.broker] if self.broker else []), *self.children]

    def check_children(self) -> None:
        """Raise StartFailed where a process that should run has ended before all was healthy."""
        for child in (part.child for part in self.parts):
            if child.died:
                message = (
                    f"{child.name} ended with status {child.process.returncode}, so all stops. "
                    f"The end of {child.log}:\n{last_lines(child.log, begin=child.log_begin)}"
                )
                raise StartFailed(message)

    def watch(self) -> None:
        """Start again what dies, until somebody stops us."""
        while True:
            for part in self.parts:
                part.look(self.say)
            time.sleep(0.25)

    def description(self, port: int) -> Running:
        """Return what other shells may know."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.options.bind, self.options.bind)  # noqa: S104
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        prepared = prepare.read(self.prepared_file)
        passwords = state.passwords(self.folder)
        return Running(
            pid=os.getpid(),
            url=f"http://{host}:{port}/",
            user=prepare.ADMIN,
            password=passwords["admin"] if prepared and prepared["login"] else None,
            environment={
                name: value
                for name, value in self.environment.items()
                if name in SHARED or name.removesuffix("_FILE") in SHARED
            },
        )

    def announce(self) -> None:
        """Print the address and the login; with --once as one line of JSON."""
        stack = running.read(self.folder)
        if stack is None:
            message = "The file that says what runs can't be read back."
            raise StartFailed(message)
        self.say(f"Howdah runs at {stack['url']} ({time.monotonic() - self.began:.1f} s)")
        if self.options.once:
            print(running.summary(stack), flush=True)  # noqa: T201
            return
        self.say(running.login(stack))
        self.say(f"logs: {self.folder / 'logs'}")
        if os.geteuid() == 0 and self.clusters:
            self.say("PostgreSQL runs as nobody, everything else as root.")
        self.say("Ctrl-C stops it.")

    def say(self, text: str) -> None:
        """Print a line for people: on standard error where the output is for a script."""
        with suppress(BrokenPipeError):  # who read it has gone, and all goes on
            print(text, file=sys.stderr if self.options.once else sys.stdout, flush=True)

    def stop(self) -> None:
        """Stop in order: what writes, then what it writes to."""
        with suppress(OSError):  # a folder that became read only: nobody takes a dead pid for us
            running.forget(self.folder)
        ours = [part.child for part in self.children]
        for child in ours:
            if not child.died:
                child.process.send_signal(child.stop_signal)
        for child in ours:
            child.stop()
        if self.forks is not None:
            self.forks.stop()
        if self.broker is not None:
            self.broker.child.stop()
        for cluster in self.clusters:
            cluster.stop()
        if self.port is not None:
            self.port.close()


SHARED = frozenset(
    {
        "DATABASE_URL",
        "MIGRATE_DATABASE_URL",
        "HOWDAH_APP_ROLE",
        "REDIS_URL",
        "SECRET_KEY",
        "HOWDAH_PUBLIC_KEY",
        "HOWDAH_PRIVATE_KEY",
        "HOWDAH_ALLOW_LOOPBACK_TARGETS",
        "HOWDAH_ALLOWED_TARGET_NETWORKS",
        "ALLOWED_HOSTS",
    }
)
"""What commands in another shell need."""


def watched(begin: Callable[[], Child]) -> Watched:
    """Start a part, and remember how."""
    return Watched(begin(), begin)


def is_set(environment: Mapping[str, str], name: str) -> bool:
    """Whether a variable is there, itself or as the path of a file."""
    return bool(environment.get(name) or environment.get(f"{name}_FILE"))


def unready(host: str, port: int) -> str | None:
    """Return why the chain does not work yet, None when it does."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/healthz/ready", headers={"Host": "localhost"})
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"the web server does not answer ({error})"
    finally:
        connection.close()
    return None if response.status == http.client.OK else body


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other stack of the same checkout is inside: they share its static files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def static_stamp() -> str:
    """Return a hash of what collectstatic would read: names, sizes and times."""
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes())
    for path in sorted((ROOT / "static").rglob("*")):
        status = path.stat()
        digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def keep_small(log: Path, limit_bytes: int = 5_000_000) -> None:
    """Start a log over that has grown large, keeping one older file."""
    if log.exists() and log.stat().st_size > limit_bytes:
        log.replace(log.with_suffix(".old.log"))
