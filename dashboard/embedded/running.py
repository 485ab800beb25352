"""How commands in another shell find the stack that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from dashboard.embedded import processes, state

STANDS_ALONE = frozenset({"DATABASE_URL", "DATABASE_URL_FILE", "HOWDAH_NO_ADOPT"})


class Running(TypedDict):
    """What the running stack says of itself; `password` is None where it was changed."""

    pid: int
    url: str
    user: str
    password: str | None
    environment: dict[str, str]


def file_of(folder: Path) -> Path:
    """Return the file in a state directory that only its owner can read."""
    return folder / "running.json"


def write(folder: Path, stack: Running) -> None:
    """Say that a stack runs."""
    processes.write_private(file_of(folder), json.dumps(stack, indent=1))


def forget(folder: Path) -> None:
    """Say that none does."""
    file_of(folder).unlink(missing_ok=True)


def read(folder: Path) -> Running | None:
    """Return the stack that runs, None when none does or the file is a dead one's or another version's."""
    try:
        told = json.loads(file_of(folder).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return None
    if not isinstance(told, dict) or not Running.__required_keys__ <= told.keys():
        return None
    stack = cast("Running", told)
    runs = processes.alive(stack["pid"]) and "up" in processes.command_of(stack["pid"]).split()
    return stack if runs else None


def said_again(stack: Running) -> str:
    """Return what a second start says."""
    return f"already running: {stack['url']} (pid {stack['pid']})\n{login(stack)}"


def login(stack: Running) -> str:
    """Return how to log in."""
    password = stack["password"] or "the one that you set"
    return f"log in as {stack['user']} with password {password}"


def summary(stack: Running) -> str:
    """Return the line of JSON that --once prints."""
    return json.dumps({name: stack[name] for name in ("url", "user", "password")})


def adopt(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Let a command use the running stack's databases where nothing else is set.

    Not for `up` itself, nor where DATABASE_URL or HOWDAH_NO_ADOPT is set.
    """
    if argv[1:2] == ["up"] or not STANDS_ALONE.isdisjoint(environment):
        return
    stack = read(state.path())
    if stack is not None:
        for name, value in stack["environment"].items():
            os.environ.setdefault(name, value)
