"""What the processes of backends use, where the target runs on this machine: from /proc, not from the target.

A loopback address may be a tunnel to elsewhere, and a container has pids of its own. So a process counts
only where it calls itself a PostgreSQL process and began when the target says that the backend did.

Source: https://man7.org/linux/man-pages/man5/proc.5.html
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from monitors.pg import hosts

PROC = Path("/proc")
APART_SECONDS = 2.0
"""A process that began so much earlier or later than the backend is another one: /proc counts whole seconds."""
AT_MOST = 300
"""Processes of one reading."""
KEPT_SECONDS = 30.0
"""A reading that is older tells no rate."""

Key = tuple[int, datetime]
"""A backend's pid and start."""


@dataclass(frozen=True)
class Used:
    """What a process has used since it began."""

    at: float  # seconds of the monotonic clock
    cpu_seconds: float
    anon_bytes: int | None  # RssAnon: its own memory, without shared buffers
    read_bytes: int | None  # None, as the next one: another user's process does not tell
    write_bytes: int | None


def read_used(backends: Iterable[Key], host: str) -> dict[Key, Used]:
    """Return what the processes of some backends use; those that are not surely theirs are left out.

    {} where the target's address is none of this machine's own.
    """
    if not hosts.is_loopback(host) or not PROC.is_dir():
        return {}
    booted = booted_at()
    found = {}
    for pid, start in list(backends)[:AT_MOST]:
        used = used_by(pid, start, booted)
        if used is not None:
            found[pid, start] = used
    return found


def booted_at() -> float:
    """Return when this machine started, in seconds since 1970, as /proc says now."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def used_by(pid: int, start: datetime, booted: float) -> Used | None:
    """Return what a process uses, None unless it is that backend's."""
    folder = PROC / str(pid)
    try:
        title = (folder / "cmdline").read_bytes()
        # The name stands in parentheses and may have blanks and parentheses of its own.
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        status = (folder / "status").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    began = booted + int(stat[19]) / ticks
    if not title.startswith(b"postgres:") or abs(began - start.timestamp()) > APART_SECONDS:
        return None
    anon = number_after("RssAnon:", status)
    counts = io_of(folder)
    return Used(
        at=time.monotonic(),
        cpu_seconds=(int(stat[11]) + int(stat[12])) / ticks,
        anon_bytes=None if anon is None else anon * 1024,
        read_bytes=number_after("\nread_bytes:", counts),
        write_bytes=number_after("\nwrite_bytes:", counts),
    )


def io_of(folder: Path) -> str:
    """Return what a process read from and wrote to disks, '' where that is not told to us."""
    try:
        return (folder / "io").read_text()
    except OSError:
        return ""


def number_after(word: str, text: str) -> int | None:
    """Return the number that follows a word, None where the text has none."""
    _, found, rest = text.partition(word)
    return int(rest.split(maxsplit=1)[0]) if found else None


def rates(
    now: Mapping[Key, Used], before: Mapping[Key, Used]
) -> dict[Key, dict[str, float | None]]:
    """Return {backend: cpu_pct, anon_bytes, read_bytes_per_second, write_bytes_per_second}.

    A rate needs a reading before; 100 % is one processor.
    """
    return {key: rates_of(used, before.get(key)) for key, used in now.items()}


def rates_of(used: Used, before: Used | None) -> dict[str, float | None]:
    """Return what a process uses now; None for what is not known."""
    seconds = used.at - before.at if before else 0.0
    known = before is not None and 0 < seconds < KEPT_SECONDS

    def rate(now: float | None, then: float | None) -> float | None:
        return (now - then) / seconds if known and now is not None and then is not None else None

    cpu = rate(used.cpu_seconds, before.cpu_seconds if before else None)
    return {
        "cpu_pct": None if cpu is None else 100 * cpu,
        "anon_bytes": used.anon_bytes,
        "read_bytes_per_second": rate(used.read_bytes, before.read_bytes if before else None),
        "write_bytes_per_second": rate(used.write_bytes, before.write_bytes if before else None),
    }


class Watched:
    """What was read last of each target that somebody looks at: rates are differences of two readings."""

    def __init__(self) -> None:
        self._last: dict[int, dict[Key, Used]] = {}

    def read(
        self, target_id: int, host: str, backends: Iterable[Key]
    ) -> dict[Key, dict[str, float | None]]:
        """Read the processes of a target's backends, and return what they use."""
        now = read_used(backends, host)
        found = rates(now, self._last.get(target_id, {}))
        self._last[target_id] = now
        return found


WATCHED = Watched()
"""This process's own; live readings of one target come from one worker at a time."""
