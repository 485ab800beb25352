"""Start the stack, watch it, and stop all when a part dies or somebody says so."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from dashboard.embedded import running, state
from dashboard.embedded.processes import StartFailed
from dashboard.embedded.stack import HEALTHY_SECONDS, Options, Stack

BAD_USE = 2


class Stopped(BaseException):
    """Somebody asked us to stop."""


class Refusal(Exception):
    """The options make no sense; the message says what to do."""


def run(options: Options) -> int:
    """Start, say where, and watch until stopped; return the exit status."""
    try:
        check_bind(options)
        folder = state.make()
        lock = state.lock(folder)
        if lock is None:
            return say_it_runs(folder, options)
    except (Refusal, StartFailed) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return BAD_USE if isinstance(error, Refusal) else 1
    # Shells start background jobs with SIGINT ignored: ask for it again.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    stack = Stack(options, folder)
    try:
        stack.start()
        stack.announce()
        if not options.once:
            stack.watch()
    except Stopped:
        stack.say("Stopping.")
    except StartFailed as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
        os.close(lock)
    return 0


def stop(_number: int, _frame: FrameType | None) -> None:
    """Leave whatever we are doing; the way out stops the children."""
    raise Stopped


def check_bind(options: Options) -> None:
    """Raise Refusal where passwords would cross a network in the clear."""
    try:
        local = ipaddress.ip_address(options.bind).is_loopback
    except ValueError:
        local = options.bind == "localhost"
    tls = os.environ.get("HOWDAH_TLS", "").lower() in {"1", "true", "yes", "on"}
    if not local and not tls and not options.insecure:
        message = (
            f"Others can reach {options.bind}, and this server speaks plain HTTP: logins would "
            "cross the network unencrypted. Put a TLS proxy in front and set HOWDAH_TLS=true, "
            "or accept that with --insecure."
        )
        raise Refusal(message)


def say_it_runs(folder: Path, options: Options) -> int:
    """Tell where the stack that has the lock is; wait for it where it only starts."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    while (stack := running.read(folder)) is None:
        if time.monotonic() > deadline:
            message = f"Another bin/up holds {folder / 'lock'} and does not become ready."
            raise StartFailed(message)
        time.sleep(0.1)
    print(running.summary(stack) if options.once else running.said_again(stack))  # noqa: T201
    return 0
