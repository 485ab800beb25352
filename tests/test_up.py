"""bin/up as people start it: once, twice, in the background, killed, and in production."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dashboard.embedded import pooler, processes, running, state as state_of
from dashboard.embedded.forks import Forks
from dashboard.embedded.processes import ROOT, StartFailed
from dashboard.embedded.stack import Options, Stack
from tests import servers
from tests.servers import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("up"),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc"),
]
OF_TESTS = re.compile(
    r"(HOWDAH_|DATABASE_URL|MIGRATE_|REDIS_URL|SECRET_KEY|DJANGO_|STATICFILES_|PYTEST)"
)
START_SECONDS = 100
STOP_SECONDS = 20


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """A state directory of this module's own."""
    yield from directory()


@pytest.fixture(scope="module")
def spare() -> Iterator[Path]:
    """One more, for stacks that a test starts and ends: only its first start is cold."""
    yield from directory()


def directory() -> Iterator[Path]:
    """A state directory, and afterwards the end of what a failed test left running in it."""
    with servers.home() as folder:
        yield folder / "state"
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)


def environment(state: Path, **more: str) -> dict[str, str]:
    """The environment of a shell in which nothing is set but the state directory."""
    kept = {name: value for name, value in os.environ.items() if not OF_TESTS.match(name)}
    return {**kept, "HOWDAH_STATE_DIR": str(state), **more}


def up(state: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run bin/up until it ends."""
    return subprocess.run(
        [ROOT / "bin" / "up", *options],
        env=environment(state, **more),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def processes_of(state: Path) -> dict[int, str]:
    """{pid: name and command line} of every process that belongs to a state directory."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            traces = [
                (folder / name).read_bytes().decode(errors="replace")
                for name in ("comm", "cmdline", "environ")
            ]
            traces.append(str((folder / "cwd").readlink()))
        except OSError:
            continue  # it has ended, or is not ours
        if any(str(state) in trace for trace in traces) and processes.alive(pid):
            found[pid] = f"{traces[0].strip()}: {traces[1].replace(chr(0), ' ')}"
    return found


@dataclass
class Up:
    """A bin/up that runs in the background."""

    process: subprocess.Popen[bytes]
    state: Path
    output: Path

    @property
    def known(self) -> running.Running:
        """What it says of itself."""
        known = running.read(self.state)
        assert known is not None, self.output.read_text()
        return known

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command in another shell."""
        return subprocess.run(
            ["python3", ROOT / "manage.py", *arguments],
            env=environment(self.state),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def start(state: Path, *options: str) -> Up:
    """Start bin/up as a script does with `&`: SIGINT is ignored when it begins."""
    output = state.with_name("output")
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", ROOT / "bin" / "up", *options],
            env=environment(state),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    up = Up(process, state, output)
    ready = processes.wait_until(
        lambda: running.read(state) is not None or process.poll() is not None, seconds=START_SECONDS
    )
    assert ready, output.read_text()
    assert process.poll() is None, output.read_text()
    return up


@pytest.fixture(scope="module")
def stack(state: Path) -> Iterator[Up]:
    """A stack that runs, for tests that leave it running."""
    up = start(state)
    yield up
    up.process.terminate()
    up.process.wait(STOP_SECONDS)


def test_it_starts_once_prints_one_line_and_leaves_nothing() -> None:
    with servers.home() as folder:
        state = folder / "state"
        done = up(state, "--once")
        left = processes_of(state)

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == {"url", "user", "password"}
    assert left == {}


def test_a_second_start_says_that_it_runs_already(stack: Up) -> None:
    done = up(stack.state)

    assert done.returncode == 0, done.stderr
    known = stack.known
    assert f"already running: {known['url']} (pid {known['pid']})" in done.stdout
    assert stack.process.poll() is None


def test_once_against_a_running_stack_prints_its_line_and_leaves_it_running(stack: Up) -> None:
    done = up(stack.state, "--once")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == stack.known["url"]
    assert stack.process.poll() is None


def test_it_says_where_it_is_and_how_to_log_in(stack: Up, eventually: Callable[..., None]) -> None:
    known = stack.known

    eventually(lambda: "Ctrl-C" in stack.output.read_text())
    assert known["url"] in stack.output.read_text()
    assert f"log in as admin with password {known['password']}" in stack.output.read_text()


def test_the_login_that_it_prints_works(stack: Up) -> None:
    known = stack.known
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    page = browser.open(f"{known['url']}login/", timeout=10).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token
    form = {
        "username": known["user"],
        "password": known["password"],
        "csrfmiddlewaretoken": token[1],
    }
    try:
        answer = browser.open(
            f"{known['url']}login/", urllib.parse.urlencode(form).encode(), timeout=10
        )
    except urllib.error.HTTPError as refused:
        pytest.fail(f"{refused.url} answered {refused.code}: {refused.read().decode()}")

    assert answer.status == 200
    assert "/login/" not in answer.url


def test_commands_in_another_shell_use_the_same_databases(stack: Up) -> None:
    done = stack.manage("target", "list", "--json")

    assert done.returncode == 0, done.stderr
    names = {"demo", "howdah"} | ({"demo-pool"} if pooler.program() else set())
    assert {target["name"] for target in json.loads(done.stdout)} == names


def test_what_it_keeps_is_readable_by_its_owner_alone(stack: Up) -> None:
    for name in ("running.json", "secrets.json", "valkey.conf", "lock"):
        assert (stack.state / name).stat().st_mode & 0o077 == 0, name
    assert stack.state.stat().st_mode & 0o066 == 0
    assert (stack.state / "logs").stat().st_mode & 0o077 == 0


def test_no_password_stands_in_a_command_line(stack: Up) -> None:
    secrets = json.loads((stack.state / "secrets.json").read_text())
    lines = processes_of(stack.state).values()

    assert len(lines) > 10
    assert [line for line in lines if any(secret in line for secret in secrets.values())] == []


def test_only_workers_hold_the_private_key(stack: Up) -> None:
    """Nowhere in their memory: the web is a fork of what workers are forks of."""
    secrets = json.loads((stack.state / "secrets.json").read_text())
    names = {
        pid: line.partition(":")[0]
        for pid, line in processes_of(stack.state).items()
        if "preloaded" in line
    }
    holders = {name for pid, name in names.items() if holds(pid, secrets["private_key"])}
    knowers = {name for pid, name in names.items() if holds(pid, secrets["secret_key"])}

    assert holders == {"worker-snapshot", "worker-signals", "worker-requests"}
    assert knowers == {"python", "web", *holders}  # so what is there is found


def holds(pid: int, text: str) -> bool:
    """Whether a text is anywhere in the memory that a process may write to."""
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            begin, end = (int(number, 16) for number in place.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                if text.encode() in memory.read(end - begin):
                    return True
    return False


def test_the_demonstration_shows_its_troubles(stack: Up, eventually: Callable[..., None]) -> None:
    secrets = json.loads((stack.state / "secrets.json").read_text())
    port = next(
        t["port"]
        for t in json.loads(stack.manage("target", "list", "--json").stdout)
        if t["name"] == "demo"
    )
    demo = Server(18, port, secrets["demo_superuser"], str(stack.output))
    with demo.connect(dbname="shop") as session:

        def ask(query: str) -> Any:
            row = session.execute(query).fetchone()
            return row[0] if row else None

        eventually(
            lambda: ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") >= 3
        )
        assert (
            ask("SELECT state FROM pg_stat_activity WHERE application_name = 'billing-api'")
            == "idle in transaction"
        )
        assert ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reports'") == 1
        dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'sessions'"
        before = ask(dead)
        assert before > 1000
        eventually(lambda: ask(dead) > before)


def test_the_demonstration_has_a_pooler_where_the_machine_has_one(stack: Up) -> None:
    if pooler.program() is None:
        assert pooler.MISSING in stack.output.read_text()
        return
    read = stack.manage("snapshot", "demo-pool", "--json")

    assert read.returncode == 0, read.stderr
    users = stack.state / "pooler" / "users.txt"
    assert (users.stat().st_mode | users.parent.stat().st_mode) & 0o077 == 0
    rows = {row["probe"]: row["rows"] for row in json.loads(read.stdout)}
    assert rows["pooler_pools"] == 1


def test_interrupted_in_the_background_it_stops_in_order(spare: Path) -> None:
    up = start(spare, "--no-demo")
    up.process.send_signal(signal.SIGINT)

    assert up.process.wait(STOP_SECONDS) == 0
    assert processes_of(spare) == {}


def test_killed_it_leaves_nothing_behind_and_starts_again(
    spare: Path, eventually: Callable[..., None]
) -> None:
    up = start(spare, "--no-demo")
    up.process.kill()
    up.process.wait()

    eventually(lambda: processes_of(spare) == {}, seconds=STOP_SECONDS)
    again = start(spare, "--no-demo")
    again.process.terminate()
    assert again.process.wait(STOP_SECONDS) == 0


def test_what_dies_is_started_again_and_said(spare: Path, eventually: Callable[..., None]) -> None:
    up = start(spare, "--no-demo")
    try:
        # What the others are forked from: nobody needs it before the next one.
        (pid, *_) = [
            p
            for p, line in processes_of(spare).items()
            if line.startswith("python: ") and "preloaded" in line
        ]
        os.kill(pid, signal.SIGKILL)
        for name, words in DYING.items():
            (pid, *_) = [p for p, line in processes_of(spare).items() if words in line]
            os.kill(pid, signal.SIGKILL)
            eventually(lambda n=name: f"{n} is started again" in up.output.read_text(), seconds=60)
        eventually(lambda: is_ready(up.known["url"]), seconds=90)
        said = up.output.read_text()
        running_now = processes_of(spare)
    finally:
        up.process.terminate()
        assert up.process.wait(STOP_SECONDS) == 0

    for name in DYING:
        assert f"{name} ended with status -9. It is started again in 1 s" in said
        assert f"{name}.log says why" in said
    assert len([line for line in running_now.values() if line.startswith("web: ")]) == 2
    assert processes_of(spare) == {}


DYING = {
    "web": "web: ",
    "worker-signals": "worker-signals: ",
    "worker-requests": "worker-requests: ",
    "valkey": "valkey-server",
    "history": "/postgres -D",
}
"""{part: what its name and command line hold}; of several processes the first is the parent."""


def is_ready(url: str) -> bool:
    """Whether the whole chain works."""
    with suppress(OSError):
        return bool(urllib.request.urlopen(f"{url}healthz/ready", timeout=10).status == 200)
    return False


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_what_is_away_keeps_no_web_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, eventually: Callable[..., None]
) -> None:
    """As a fork, and by itself where nothing is forked."""
    monkeypatch.setattr("dashboard.embedded.forks.sys.platform", platform)
    port = processes.free_port()
    away = {
        "DATABASE_URL": "postgresql://howdah@127.0.0.1:1/howdah",
        "REDIS_URL": "redis://127.0.0.1:1",
    }
    forks = Forks({**os.environ, **away}, lambda name: tmp_path / f"{name}.log")
    web = forks.start("web", "web", {"bind": "127.0.0.1", "port": port})
    try:
        eventually(lambda: answers(port), seconds=60)
        assert (forks.parent is not None) == (platform == "linux")
    finally:
        web.stop()
        forks.stop()

    assert processes.port_is_free(port)


def test_what_is_forked_from_says_why_it_fails(tmp_path: Path) -> None:
    forks = Forks({**os.environ, "HOWDAH_SLOT": "none"}, lambda name: tmp_path / f"{name}.log")

    try:
        with pytest.raises(StartFailed, match="HOWDAH_SLOT"):
            forks.start("web", "web", {"bind": "127.0.0.1", "port": 0})
    finally:
        forks.stop()


def test_a_worker_whose_beat_ended_ends_too(tmp_path: Path) -> None:
    """`bin/up` starts it again; else nothing would be due any more, and all would look alive."""
    away = {
        "DATABASE_URL": "postgresql://howdah@127.0.0.1:1/howdah",
        "REDIS_URL": "redis://127.0.0.1:1",
    }
    forks = Forks({**os.environ, **away}, lambda name: tmp_path / f"{name}.log")
    nowhere = str(tmp_path / "gone" / "schedule")
    order = {"role": "requests", "queues": "requests", "threads": 1, "beat_schedule": nowhere}
    try:
        worker = forks.start("worker-requests", "worker", order, {"HOWDAH_ROLE": "requests"})

        assert processes.wait_until(lambda: worker.died, seconds=60)
        assert "Beat ended." in worker.log.read_text()
    finally:
        worker.stop()
        forks.stop()


def test_a_web_server_that_is_killed_by_hand_takes_its_child_along(
    embedded: Server, eventually: Callable[..., None]
) -> None:
    port = processes.free_port()
    argv = [str(Path(sys.executable).parent / "granian"), "dashboard.wsgi:application"]
    words = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
    with subprocess.Popen([*argv, *words], cwd=ROOT, env=os.environ.copy()) as server:
        eventually(lambda: not processes.port_is_free(port), seconds=30)
        eventually(lambda: children_of(server.pid), seconds=30)
        (child,) = children_of(server.pid)
        eventually(lambda: answers(port), seconds=60)
        server.kill()

    eventually(lambda: not processes.alive(child), seconds=10)
    eventually(lambda: processes.port_is_free(port), seconds=10)  # its threads end a little later


def answers(port: int) -> bool:
    """Whether a web server says that it lives."""
    with suppress(OSError):
        url = f"http://127.0.0.1:{port}/healthz/live"
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    return False


def children_of(pid: int) -> list[int]:
    """The processes that a process started, but Python's own tracker of resources."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children if "resource_tracker" not in processes.command_of(int(c))]


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own, for as long as the context lasts."""
    folder.mkdir(mode=0o755)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False)
    if done.returncode:
        pytest.skip("No right to mount a small file system here.")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("size=1m,ro", "Read-only file system"),
        *[(f"size={size}", "room") for size in ("64k", "300k", "8m", "20m", "60m")],
    ],
)
def test_a_state_folder_without_room_or_read_only_is_a_sentence(options: str, words: str) -> None:
    with servers.home() as home, disk(home / "state", f"mode=0711,{options}") as state:
        done = up(state, "--once")
        left = processes_of(state)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert str(state) in done.stderr
    assert "HOWDAH_STATE_DIR to another" in done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr
    assert left == {}


def test_a_state_of_another_version_is_a_sentence(spare: Path) -> None:
    assert up(spare, "--once", "--no-demo").returncode == 0
    was = (spare / "history" / "data" / "PG_VERSION").read_text()
    (spare / "history" / "data" / "PG_VERSION").write_text("12\n")
    other_server = up(spare, "--once", "--no-demo")
    (spare / "history" / "data" / "PG_VERSION").write_text(was)
    for name in ("prepared.json", "running.json"):
        (spare / name).write_text('{"of": "another version"}')
    other_files = up(spare, "--once", "--no-demo")
    secrets = (spare / "secrets.json").read_text()
    (spare / "secrets.json").write_text("[]]")
    no_secrets = up(spare, "--once", "--no-demo")
    (spare / "secrets.json").write_text("{}")
    empty = up(spare, "--once", "--no-demo")
    kept = (spare / "secrets.json").read_text()
    (spare / "secrets.json").unlink()
    gone = up(spare, "--once", "--no-demo")
    (spare / "secrets.json").write_text(secrets)

    for done in (empty, gone):
        assert done.returncode == 1
        assert "secrets.json lacks admin, broker" in done.stderr
        assert "restore it from a backup" in done.stderr
    assert kept == "{}"
    assert (other_server.returncode, other_files.returncode, no_secrets.returncode) == (1, 0, 1)
    assert "was made by PostgreSQL 12" in other_server.stderr
    assert "restore it from a backup" in no_secrets.stderr
    assert "Traceback" not in other_server.stderr + no_secrets.stderr
    assert processes_of(spare) == {}


def test_a_history_of_a_newer_version_is_a_sentence() -> None:
    with servers.home() as home:
        state = home / "state"
        stack = start(state, "--no-demo")
        url = stack.known["environment"]["MIGRATE_DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(
                "INSERT INTO django_migrations (app, name, applied)"
                " VALUES ('monitors', '9999_of_tomorrow', now())"
            )
        stack.process.terminate()
        assert stack.process.wait(STOP_SECONDS) == 0
        (state / "prepared.json").unlink()

        done = up(state, "--once", "--no-demo")

        assert done.returncode == 1
        assert "another version of Howdah, whose 9999_of_tomorrow" in done.stderr
        assert "Applying" not in done.stderr  # what an earlier start logged
        assert processes_of(state) == {}


def test_a_busy_port_that_was_asked_for_is_an_error(tmp_path: Path, embedded: Server) -> None:
    done = up(tmp_path / "state", "--port", str(embedded.port))

    assert done.returncode == 1
    assert f"Port {embedded.port} is busy" in done.stderr


def test_an_address_that_is_not_of_this_machine_is_an_error(tmp_path: Path) -> None:
    done = up(tmp_path / "state", "--bind", "192.0.2.1", "--insecure")

    assert done.returncode == 1
    assert "Can't listen on 192.0.2.1" in done.stderr


def test_servers_go_elsewhere_where_somebody_was_faster_on_their_ports(
    monkeypatch: pytest.MonkeyPatch, embedded: Server
) -> None:
    real = processes.free_port

    def free_port(usual: int = 0, host: str = "127.0.0.1") -> int:
        return embedded.port if usual else real(usual, host)  # free when it was asked for

    monkeypatch.setattr(processes, "free_port", free_port)
    with servers.home() as home:
        monkeypatch.setenv("HOWDAH_STATE_DIR", str(home / "state"))
        stack = Stack(Options(demo=False), state_of.make())
        (stack.folder / "logs").mkdir()
        try:
            ports = stack.start_servers()
            broker = stack.environment["REDIS_URL"]
        finally:
            stack.stop()

    assert embedded.port not in ports.values()
    assert f":{embedded.port}/" not in broker


def test_two_that_start_at_once_do_not_share_a_port(tmp_path: Path) -> None:
    """Else each would answer every other request, and a login be good for half of the pages."""
    port = processes.free_port()
    first, second = (Stack(Options(port=port), tmp_path) for _ in range(2))
    try:
        assert first.take_port() == port
        with pytest.raises(StartFailed, match=f"Port {port} is busy"):
            second.take_port()  # before a web listens there
        with socket.socket() as web:
            web.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            web.bind(("127.0.0.1", port))
            web.listen()
            with pytest.raises(StartFailed, match=f"Port {port} is busy"):
                second.take_port()
        first.stop()
        assert second.take_port() == port
    finally:
        for stack in (first, second):
            stack.stop()


def test_it_refuses_to_send_logins_over_a_network_in_the_clear(tmp_path: Path) -> None:
    done = up(tmp_path / "state", "--bind", "0.0.0.0")

    assert done.returncode == 2
    assert "HOWDAH_TLS" in done.stderr
    assert "--insecure" in done.stderr


def test_half_a_production_setup_is_an_error(tmp_path: Path) -> None:
    done = up(tmp_path / "state", "--once", REDIS_URL="redis://127.0.0.1:1/0")

    assert done.returncode == 1
    assert "DATABASE_URL" in done.stderr


def test_with_both_urls_set_nothing_embedded_is_started(
    embedded: Server, broker_url: str, worker_id: str
) -> None:
    name = f"given_{worker_id}"
    with embedded.connect() as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        with servers.home() as folder:
            done = up(
                folder / "state",
                "--once",
                DATABASE_URL=embedded.superuser_dsn.removesuffix("/postgres") + f"/{name}",
                REDIS_URL=broker_url,
                HOWDAH_PREFIX=name,
            )
            made = {path.name for path in (folder / "state").iterdir()}

        assert done.returncode == 0, done.stderr
        assert made.isdisjoint({"history", "demo", "valkey.conf"})
    finally:
        with embedded.connect() as session:
            session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
