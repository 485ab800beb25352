"""What a row of pg_settings means: its value in people's units, its group, and what changed.

Source: https://www.postgresql.org/docs/current/config-setting.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from monitors.words import NONE

Setting = Mapping[str, Any]
"""The columns of the probe `settings`, by name."""

KILO = 1024
SIZES = {"B": 1, "kB": KILO, "8kB": 8 * KILO, "16MB": 16 * KILO**2, "MB": KILO**2}
"""Bytes of the units that the server counts sizes in; a block may have another size than 8 kB."""
TIMES = {"us": 1, "ms": 1000, "s": 1_000_000, "min": 60_000_000}
"""Microseconds of the units that it counts times in."""
SIZE_NAMES = ((KILO**4, "TB"), (KILO**3, "GB"), (KILO**2, "MB"), (KILO, "kB"), (1, "B"))
TIME_NAMES = (
    (86_400_000_000, "d"),
    (3_600_000_000, "h"),
    (60_000_000, "min"),
    (1_000_000, "s"),
    (1000, "ms"),
    (1, "us"),
)
LONG_NUMBER = re.compile(r"-?[1-9]\d{5,}")  # a port or a mode keeps its digits together
BLOCKS = re.compile(r"(\d+)kB")

HIDDEN = "(not read)"
"""What the probe says of settings that may hold a password."""
CONTEXTS = {
    "internal": "can't be changed",
    "postmaster": "needs a restart",
    "sighup": "needs a reload",
    "superuser-backend": "new sessions, by a superuser",
    "backend": "new sessions",
    "superuser": "per session, by a superuser",
    "user": "per session",
}
"""What a change needs before it holds, by pg_settings.context."""
COMPILED = ("default", "override")
"""Sources of a value that nobody configured."""
UNMOVED = "command line"
"""A source that wins over every file: ALTER SYSTEM and a restart don't change the value."""
OVER_FILES = ("database", "global")
"""Sources that win over every file in some sessions: ALTER DATABASE and ALTER ROLE ALL."""
SOURCES = "sources"
"""The name under which the settings of a target tell the sources that win over files, as
`fsync=command line,track_counts=database`; others are not there."""


def source_in(settings: Mapping[str, str], name: str) -> str:
    """Return the source of a setting that wins over every file, '' where a file decides."""
    pairs = (one.partition("=") for one in settings.get(SOURCES, "").split(","))
    return next((source for key, _, source in pairs if key == name), "")


def change_of(
    name: str, value: str, source: str | None, context: str | None = "sighup"
) -> tuple[str, str]:
    """Return the statement that gives a setting a value, '' where none does, and what else to know of it.

    ALTER SYSTEM wins over postgresql.conf, so it is right whichever file the value is from.
    """
    if source == UNMOVED:
        return "", f"{name} is set on the server's command line: change it there and restart."
    notes, statement = [], f"ALTER SYSTEM SET {name} = {value};"
    if context == "postmaster":
        notes.append("Holds after a restart of the server.")
    else:
        statement += "\nSELECT pg_reload_conf();"
    if source in OVER_FILES:
        notes.append("ALTER DATABASE or ALTER ROLE ALL sets it too, and wins.")
    return statement, " ".join(notes)


def remedy_words(name: str, value: str, settings: Mapping[str, str]) -> str:
    """Return in a sentence how a setting that a reload brings is given a value."""
    statement, note = change_of(name, value, source_in(settings, name))
    run = f"Run {statement}".replace("\n", " ") if statement else ""
    return " ".join(filter(None, (run, note)))


def change_needs(name: str, settings: Mapping[str, str], otherwise: str) -> str:
    """Return what a new value needs before it holds: what it usually does, or the command line."""
    return "command line, restart" if source_in(settings, name) == UNMOVED else otherwise


def size_of(unit: str | None) -> int | None:
    """Return the bytes of a unit, None where it is none of size."""
    found = BLOCKS.fullmatch(unit or "")
    return int(found[1]) * KILO if found else SIZES.get(unit or "")


def number_of(text: str | None) -> float | None:
    """Return a value as a number, None where it is none."""
    try:
        return float(text or "")
    except ValueError:
        return None


def bytes_of(row: Setting | None) -> float | None:
    """Return a setting of size in bytes; None where it is not known, negative or no size."""
    value, unit = number_of(row["setting"] if row else None), size_of(row["unit"] if row else None)
    return value * unit if value is not None and unit is not None and value >= 0 else None


def seconds_of(row: Setting | None) -> float | None:
    """Return a setting of time in seconds; None where it is not known, negative or no time."""
    value, unit = number_of(row["setting"] if row else None), TIMES.get(row["unit"] if row else "")
    return value * unit / 1e6 if value is not None and unit is not None and value >= 0 else None


def words_of(text: str | None, unit: str | None) -> str:
    """Return a value as people write it: 16384 of 8kB is 128 MB, 300 of s is 5 min.

    Exact, as SHOW is: the greatest unit that divides it. 0 and what is negative have
    a meaning of their own and stay bare. None is a dash, an empty text says so.
    """
    if text is None:
        return NONE
    if text == "":
        return "(empty)"
    value = number_of(text)
    if value is None:
        return text
    size, time = size_of(unit), TIMES.get(unit or "")
    if value > 0 and size:
        return exact(value * size, SIZE_NAMES)
    if value > 0 and time:
        return exact(value * time, TIME_NAMES)
    return f"{int(text):,}" if LONG_NUMBER.fullmatch(text) else text


def exact(amount: float, names: tuple[tuple[int, str], ...]) -> str:
    """Return an amount in the greatest unit of which it is a whole number."""
    for size, name in names:
        if amount % size == 0:
            return f"{amount / size:,.0f} {name}"
    return f"{amount:g} {names[-1][1]}"


def is_changed(row: Setting) -> bool:
    """Tell whether somebody gave a setting another value than the server was built with.

    What the server derives (wal_buffers of -1) or can't change counts as nobody's.
    """
    if row["setting"] is None or row["source"] in COMPILED or row["context"] == "internal":
        return False
    return (row["setting"] or "") != (row["boot_val"] or "")


def awaits_restart(row: Setting) -> bool:
    """Tell whether a restart gives a setting another value.

    Where the command line sets it the server says so too when a file has another
    value, but the command line wins again.
    """
    return bool(row["pending_restart"]) and row["source"] != UNMOVED


def what_changed(before: Setting | None, after: Setting | None) -> str:
    """Return value, pending, done, source, appeared or gone; empty for what is no change.

    `done` is a restart that was awaited and brought the same value. A value that Howdah's
    own session set is not known (None), so what leads to it or from it is no change.
    """
    if before is None or after is None:
        known = after if before is None else before
        visible = known is not None and known["setting"] is not None
        return ("appeared" if before is None else "gone") if visible else ""
    if before["setting"] is None or after["setting"] is None:
        return ""
    if (before["setting"], before["unit"]) != (after["setting"], after["unit"]):
        return "value"
    if awaits_restart(before) != awaits_restart(after):
        return "pending" if awaits_restart(after) else "done"
    return "source" if before["source"] != after["source"] else ""


def change_words(name: str, before: Setting | None, after: Setting | None) -> str:
    """Return a change in words: work_mem 4 MB to 64 MB; empty where there is none."""
    kind = what_changed(before, after)
    if kind == "value" and before is not None and after is not None:
        was, now = (words_of(row["setting"], row["unit"]) for row in (before, after))
        return f"{name} {was[:40]} to {now[:40]}"
    return {
        "pending": f"{name} awaits a restart",
        "done": f"{name} awaits no restart any more",
        "source": f"{name} comes from another source",
        "appeared": f"{name} is new",
        "gone": f"{name} is gone",
    }.get(kind, "")


def is_of(*parts: str, ends: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> Any:
    """Return a test of a setting's name: a part of it, its end, or the whole."""

    def test(name: str) -> bool:
        return name in names or name.endswith(ends) or any(part in name for part in parts)

    return test


# By name: the server translates the categories by its lc_messages.
GROUPS: Mapping[str, Callable[[str], bool]] = {
    "autovacuum": is_of("vacuum", names=("maintenance_work_mem", "track_counts")),
    "memory": is_of(
        "memory", "huge_page", ends=("_buffers", "work_mem"),
        names=("effective_cache_size", "hash_mem_multiplier", "max_stack_depth",
               "vacuum_buffer_usage_limit"),
    ),
    "wal": is_of(
        "wal", "checkpoint", "archive", "bgwriter",
        names=("commit_delay", "commit_siblings", "fsync", "full_page_writes",
               "synchronous_commit"),
    ),
    "logging": lambda name: name.startswith(("log_", "logging_", "syslog_", "debug_print_"))
    or name in ("application_name", "cluster_name", "event_source"),
    "connections": is_of(
        "connection", "tcp_", "ssl", "unix_socket", "authentication", "idle_",
        ends=("statement_timeout", "lock_timeout", "transaction_timeout"),
        names=("listen_addresses", "password_encryption", "port"),
    ),
}  # fmt: skip
