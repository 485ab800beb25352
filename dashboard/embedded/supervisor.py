"""Start the stack, watch over it, and stop all when somebody says so."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import psycopg

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
        try:
            run_in(folder, options)
        finally:
            os.close(lock)
    except Refusal as error:
        return end_with(str(error), BAD_USE)
    except StartFailed as error:
        return end_with(str(error))
    except OSError as error:
        return end_with(unusable(state.path(), error))
    except psycopg.Error as error:
        return end_with(f"The embedded server refused what Howdah needs: {error}")
    return 0


def run_in(folder: Path, options: Options) -> None:
    """Run the stack of a state directory until somebody stops it."""
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
    except (StartFailed, psycopg.Error) as error:
        # Asked before the children are stopped, who free what they could not use.
        if sentence := state.room(folder):
            what = next(iter(str(error).splitlines()), "").removesuffix(":")
            message = f"{what}\n{sentence}"
            raise StartFailed(message) from error
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack.stop()


def end_with(sentence: str, status: int = 1) -> int:
    """Say why it ends; return the exit status."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
    return status


def stop(_number: int, _frame: FrameType | None) -> None:
    """Leave whatever we are doing; the way out stops the children."""
    raise Stopped


def unusable(folder: Path, error: OSError) -> str:
    """Return the sentence for a state folder that is read only, full, or no folder."""
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"Howdah can't work in {folder} ({where}{error.strerror or error}). Make that folder writable"
        " and give its disk room, or set HOWDAH_STATE_DIR to another one."
    )


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
