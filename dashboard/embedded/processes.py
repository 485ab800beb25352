"""Start child processes that never outlive us, and stop them in order."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


class StartFailed(Exception):
    """A part of the stack did not start; the message says which and why."""


@dataclass(frozen=True)
class Account:
    """Another user to run as."""

    uid: int
    gid: int


def unprivileged() -> Account | None:
    """Return `nobody` where we are root, else None: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


class Process(Protocol):
    """What is asked of a process: subprocess.Popen has it."""

    pid: int

    @property
    def returncode(self) -> int | Any:
        """Its exit status, negative for a signal, None while it runs."""

    def poll(self) -> int | None:
        """Return `returncode`, after a look."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int, /) -> None:
        """Send a signal where it still runs."""


@dataclass(frozen=True)
class Child:
    """A running process, and where its output goes."""

    name: str
    process: Process
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    log_begin: int = 0
    """How many bytes the log had before."""

    @property
    def died(self) -> bool:
        """Whether it has ended, for whatever reason."""
        return self.process.poll() is not None

    def stop(self, seconds: float = 8) -> None:
        """Ask it to end, wait, and kill whatever of its group has not ended then."""
        if not self.died:
            self.process.send_signal(self.stop_signal)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.end_group()

    def end_group(self) -> None:
        """Kill what a process leaves behind: a web server's child would keep its port."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(  # noqa: PLR0913 - what there is to say of a process
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    stdin: int = subprocess.DEVNULL,
) -> Child:
    """Start a process in a session of its own, so that Ctrl-C reaches only us.

    On Linux the kernel sends it `stop_signal` when we die, even by kill -9.
    It does so when the calling thread ends: call this from the main one.
    """
    parent = os.getpid()

    def tie_to_parent() -> None:
        control(PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as output:
        log_begin = output.tell()
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=dict(env) if env is not None else None,
            cwd="/" if account else ROOT,
            start_new_session=True,
            preexec_fn=tie_to_parent,  # noqa: PLW1509 - calls nothing but prctl
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    return Child(name, process, log, stop_signal, log_begin)


def end_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends, on Linux."""
    control(PR_SET_PDEATHSIG, signal.SIGKILL)


def control(option: int, value: int | bytes) -> None:
    """Set an option of this process (prctl), on Linux."""
    if LIBC is not None:
        LIBC.prctl(option, value)


def last_lines(log: Path, count: int = 15, begin: int = 0) -> str:
    """Return the end of a log, of what came after so many bytes; empty when there is none."""
    if not log.exists():
        return ""
    text = log.read_bytes()[begin:].decode(errors="replace")
    return "\n".join(text.splitlines()[-count:])


def alive(pid: int) -> bool:
    """Whether a process with this number exists and has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return not Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] != "Z"


def command_of(pid: int) -> str:
    """Return a process's command line, empty when there is no such process."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        raw = b""
    if raw or Path("/proc/self").exists():
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()
    listed = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=False)
    return listed.stdout.decode(errors="replace").strip()


def wait_until(ready: Callable[[], bool], *, seconds: float, pause: float = 0.03) -> bool:
    """Poll until ready() or until the time is over; return whether it became ready."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether we could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(usual: int = 0, host: str = "127.0.0.1") -> int:
    """Return the usual port, or one that the system chooses where that is busy."""
    if usual and port_is_free(usual, host):
        return usual
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class HeldPort:
    """A port that nobody else gets until `close`, but on which a web server of ours may listen."""

    number: int
    sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        """Let others have it."""
        for held in self.sockets:
            held.close()


def hold_port(port: int, host: str = "127.0.0.1") -> HeldPort:
    """Take a port (0: any that is free); OSError (EADDRINUSE) where somebody has it.

    Web servers share a port with whoever lets them (SO_REUSEPORT), and two of them would answer
    every other request each. A socket that is bound but does not listen holds nothing: another
    may be bound beside it (socket(7), SO_REUSEADDR). So on Linux a name is taken for the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as undo:
        holder = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # after bind: alone so far
        number: int = holder.getsockname()[1]
        sockets = [holder]
        if sys.platform == "linux":
            name = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            name.bind(f"\0howdah-port-{number}")  # unix(7), abstract: it ends with the socket
            sockets.append(name)
        undo.pop_all()
    return HeldPort(number, tuple(sockets))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
