"""Start web and workers as forks of one process that has imported all, so that memory has it once.

That process (dashboard.embedded.preloaded) reads an order a line and answers with a process id.
What it forks becomes a child of ours, by Linux's subreaper; elsewhere each is started by itself.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from dashboard.embedded import processes
from dashboard.embedded.processes import PR_SET_CHILD_SUBREAPER, Child, StartFailed, last_lines

PROGRAM = [sys.executable, "-m", "dashboard.embedded.preloaded"]


class Adopted:
    """A process that became our child, used as one of subprocess's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """None while it runs; negative: the signal that ended it."""

    def poll(self) -> int | None:
        """Return `returncode`, after a look."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.02)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


@dataclass
class Forks:
    """What our own processes are forked from; `env` is what it and they begin with."""

    env: Mapping[str, str]
    log_of: Callable[[str], Path]
    parent: Child | None = field(default=None, init=False)
    orders: TextIO | None = field(default=None, init=False)
    files: dict[str, int] = field(default_factory=dict, init=False)

    def start(
        self,
        name: str,
        role: str,
        arguments: Mapping[str, object],
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a process with a role of dashboard.embedded.roles; raises StartFailed.

        `env` and `secrets` are variables that come on top for this one; what it is forked from
        never sees the secrets.
        """
        log = self.log_of(name)
        if sys.platform != "linux":
            order = json.dumps({"role": role, "arguments": arguments})
            merged = {**self.env, **(env or {}), **(secrets or {})}
            return processes.start(name, [*PROGRAM, order], log=log, env=merged)
        files = {
            f"{variable}_FILE": self.file_of(text) for variable, text in (secrets or {}).items()
        }
        order = json.dumps(
            {
                "name": name,
                "role": role,
                "arguments": arguments,
                "log": str(log),
                "env": {**(env or {}), **files},
                "parent": os.getpid(),
            }
        )
        log_begin = log.stat().st_size if log.exists() else 0
        return Child(name, Adopted(self.give(order)), log, log_begin=log_begin)

    def file_of(self, text: str) -> str:
        """Return the path of a file in our memory, for who runs as the same user."""
        if text not in self.files:
            self.files[text] = os.memfd_create("secret")
            os.write(self.files[text], text.encode())
        return f"/proc/{os.getpid()}/fd/{self.files[text]}"

    def give(self, order: str) -> int:
        """Have a process forked; return its id."""
        if self.orders is None or self.parent is None or self.parent.died:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                log = self.log_of("preloaded")
                self.parent = processes.start(
                    "preloaded", PROGRAM, log=log, env=self.env, stdin=theirs.fileno()
                )
                self.orders = ours.makefile("rw", encoding="utf-8")
        # No longer than it takes: orphans of a server that crashes are not ours to bury.
        processes.control(PR_SET_CHILD_SUBREAPER, 1)
        try:
            print(order, file=self.orders, flush=True)
            return int(self.orders.readline())
        except (OSError, ValueError) as error:
            told = last_lines(self.parent.log, begin=self.parent.log_begin)
            message = f"What web and workers are forked from failed ({self.parent.log}):\n{told}"
            raise StartFailed(message) from error
        finally:
            processes.control(PR_SET_CHILD_SUBREAPER, 0)

    def stop(self) -> None:
        """End the process that is forked from."""
        if self.parent is not None:
            self.parent.stop()
