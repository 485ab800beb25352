"""Judges settings: which are off, by which numbers, why it matters, and the statement that helps.

Source: https://www.postgresql.org/docs/current/runtime-config.html

Pure: no connection, no clock. SQL does not tell a server's RAM or its disks, so
nothing is judged by them; where they decide, the advice says so.

Long, since a judge for each setting, and their list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from monitors import words
from monitors.rules import setting
from monitors.rules.setting import Setting

KB, MB, GB = 1024, 1024**2, 1024**3
LEVELS = ("critical", "warning", "notice", "info")
"""Worst first; info is no fault but what one should know."""

# A vacuum pays by the page: found in the cache, read, dirtied (postgresql.org, runtime-config-vacuum).
COST_MISS, COST_DIRTY = 2, 20
PAGES_A_MIB = 128
DEFAULT_MIB = 35  # a page read and dirtied at a limit of 200 and a delay of 2 ms is 35.5 MiB/s
LONGEST_NAPTIME = 300  # seconds
ROW_BYTES = 6  # of a dead row in a vacuum's memory, up to 16
VACUUM_MEMORY_CAP = GB  # more is not used, up to 16
SMALL_BUFFERS = 128 * MB  # the default
MUCH_DATA = GB
BUFFERS_IN_RAM = 4  # shared_buffers is usually a quarter of the RAM
DEFAULT_WORK_MEM = 4 * MB
MUCH_TEMP = GB
COMPRESSED_MAJOR = 17  # dead rows are kept in a radix tree
SWITCHES = "enable_"
OFF_BY_DEFAULT = ("enable_partitionwise_aggregate", "enable_partitionwise_join")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a server beside its settings; None where nothing was read.

    `temp_bytes` and `wal_bytes_per_second` are of the window that is looked at. The WAL is
    that of the statements that pg_stat_statements counted, so the server writes at least as much.
    """

    server_version: int | None = None
    tables_due: int | None = None  # past autovacuum's threshold now
    most_dead: int | None = None  # dead rows of the table that has most
    tables_bytes: int | None = None  # of all tables that are watched, with indexes
    temp_bytes: float | None = None
    wal_bytes_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One sentence on one setting, the numbers that it rests on, and what to run.

    `statement` is empty where there is nothing to run; `note` says what it needs or why not.
    """

    name: str
    level: str  # of LEVELS
    title: str
    why: str
    statement: str = ""
    note: str = ""

    def row(self) -> dict[str, str]:
        """Return it as a row of an export."""
        return {
            "name": self.name,
            "level": self.level,
            "title": self.title,
            "why": self.why,
            "statement": self.statement,
            "note": self.note,
        }


EXPORTED = ("name", "level", "title", "why", "statement", "note")


class Server:
    """A server's settings by name, with the readings that the judges need."""

    def __init__(self, rows: Mapping[str, Setting], facts: Facts) -> None:
        self.rows = rows
        self.facts = facts

    def text(self, name: str) -> str | None:
        """Return a setting's value; None where it is not known or the server has none."""
        row = self.rows.get(name)
        return row["setting"] if row else None

    def number(self, name: str, otherwise: str = "") -> float | None:
        """Return a value as a number; with `otherwise` that setting's where this one is -1."""
        value = setting.number_of(self.text(name))
        return self.number(otherwise) if value == -1 and otherwise else value

    def bytes(self, name: str, otherwise: str = "") -> float | None:
        """Return a size in bytes; with `otherwise` that setting's where this one is -1."""
        if otherwise and self.text(name) == "-1":
            return self.bytes(otherwise)
        return setting.bytes_of(self.rows.get(name))

    def seconds(self, name: str) -> float | None:
        """Return a time in seconds."""
        return setting.seconds_of(self.rows.get(name))

    def words(self, name: str) -> str:
        """Return a value in words."""
        row = self.rows[name]
        return setting.words_of(row["setting"], row["unit"])

    def advice(
        self, name: str, level: str, title: str, why: str, value: str = "", note: str = ""
    ) -> Advice:
        """Return advice with the statement that gives a setting a value; '' changes nothing."""
        if not value:
            return Advice(name=name, level=level, title=title, why=why, note=note)
        row = self.rows[name]
        statement, also = setting.change_of(name, value, row["source"], row["context"])
        notes = (note, also) if statement else (also,)
        return Advice(
            name=name, level=level, title=title, why=why,
            statement=statement, note=" ".join(filter(None, notes)),
        )  # fmt: skip


def advise(rows: Mapping[str, Setting], facts: Facts) -> list[Advice]:
    """Return what is to be said of a server's settings, worst first; equals in the judges' order."""
    server = Server(rows, facts)
    found = [advice for judge in JUDGES for advice in judge(server)]
    return sorted(found, key=lambda one: LEVELS.index(one.level))


Judge = Callable[[Server], Iterator[Advice]]


def durability(server: Server) -> Iterator[Advice]:
    """Judge what makes a crash lose the cluster."""
    if server.text("fsync") == "off":
        yield server.advice(
            "fsync", "critical", "fsync is off: a crash of the machine can destroy every database.",
            "Nothing is flushed to disk, so what survives a power failure is a matter of luck.", "on",
        )  # fmt: skip
    if server.text("full_page_writes") == "off":
        yield server.advice(
            "full_page_writes", "critical",
            "full_page_writes is off: a page that a crash tears in two can't be repaired.",
            "Only a file system that never writes half a page (ZFS) makes this safe.", "on",
        )  # fmt: skip


def autovacuum_on(server: Server) -> Iterator[Advice]:
    """Judge the two switches without which no table is vacuumed."""
    for name in ("autovacuum", "track_counts"):
        if server.text(name) == "off":
            yield server.advice(
                name, "critical", f"{name} is off: no table of the server is vacuumed or analyzed.",
                "Tables bloat, plans age, and vacuums against wraparound come all at once. "
                "Tune autovacuum instead of turning it off.", "on",
            )  # fmt: skip


def cost_limit(server: Server) -> Iterator[Advice]:
    """Judge how fast all autovacuum workers together may read and dirty pages."""
    limit = server.number("autovacuum_vacuum_cost_limit", "vacuum_cost_limit")
    delay = server.number("autovacuum_vacuum_cost_delay", "vacuum_cost_delay")  # ms
    if not limit or not delay or delay < 0:
        return  # a delay of 0 is no limit
    rate = allowed_mib(limit, delay, page_points(server))
    due, workers = server.facts.tables_due, server.number("autovacuum_max_workers")
    words = (
        f"a limit of {limit:,.0f} and a delay of {delay:g} ms let all autovacuum workers "
        f"together dirty {rate:,.1f} MiB/s that they read first"
    )
    if rate < DEFAULT_MIB:
        level, title = "warning", f"Autovacuum is slow by its settings: {words}."
    elif due is not None and workers and due > workers:
        level = "notice"
        title = f"{due:,} tables wait for autovacuum, and {words}."
    else:
        text = f"{words[0].upper()}{words[1:]}."
        yield server.advice(
            "autovacuum_vacuum_cost_limit", "info", text,
            "More workers share it: they don't vacuum faster. A delay of 0 means no limit.",
        )  # fmt: skip
        return
    slow = delay > 2  # noqa: PLR2004 - the default of 12 and newer, ms
    name = "autovacuum_vacuum_cost_delay" if slow else "autovacuum_vacuum_cost_limit"
    yield server.advice(
        name, level, title,
        "What is slower than the rows die never catches up. More workers share the limit, "
        "they don't raise it.",
        "'2ms'" if slow else str(min(10_000, max(200, round(limit * 2)))),
        "How much the disks can take beside the clients depends on them: raise it in steps.",
    )  # fmt: skip


def page_points(server: Server) -> float:
    """Return the points that a page costs which is read and dirtied."""
    miss, dirty = server.number("vacuum_cost_page_miss"), server.number("vacuum_cost_page_dirty")
    points = (COST_MISS if miss is None else miss) + (COST_DIRTY if dirty is None else dirty)
    return points or 1


def allowed_mib(limit: float, delay_ms: float, points: float = COST_MISS + COST_DIRTY) -> float:
    """Return the MiB/s of pages that a cost limit lets a vacuum read and dirty.

    After `limit` points comes a sleep of `delay_ms`; a page costs `points`. The work
    itself takes time too, so it is an upper bound.
    """
    return 1000 / delay_ms * limit / points / PAGES_A_MIB


def naptime(server: Server) -> Iterator[Advice]:
    """Judge how long a database waits for its turn."""
    seconds = server.seconds("autovacuum_naptime")
    if seconds is not None and seconds > LONGEST_NAPTIME:
        yield server.advice(
            "autovacuum_naptime", "warning",
            f"Autovacuum looks at each database every {server.words('autovacuum_naptime')} only.",
            "A table that is due waits that long before a worker comes; 1 min is the default.",
            "'1min'",
        )  # fmt: skip


def workers(server: Server) -> Iterator[Advice]:
    """Judge whether there are workers for the tables that are due."""
    limit, due = server.number("autovacuum_max_workers"), server.facts.tables_due
    if limit and due is not None and due > 3 * limit:
        yield server.advice(
            "autovacuum_max_workers", "notice",
            f"{due:,} tables are due for vacuum, and autovacuum has {limit:,.0f} workers.",
            "Large tables keep workers for hours while small ones wait. Workers share the cost "
            "limit: raise that too.", str(round(limit) + 2),
        )  # fmt: skip


def vacuum_memory(server: Server) -> Iterator[Advice]:
    """Judge whether a vacuum of the worst table must read its indexes more than once."""
    memory = server.bytes("autovacuum_work_mem", "maintenance_work_mem")
    version, dead = server.facts.server_version, server.facts.most_dead
    if not memory or not dead or version is None or version // 10000 >= COMPRESSED_MAJOR:
        return
    used = min(memory, VACUUM_MEMORY_CAP)
    passes = -(-dead * ROW_BYTES // used)
    if passes <= 1 or used == VACUUM_MEMORY_CAP:
        return
    own = server.text("autovacuum_work_mem") != "-1"
    name = "autovacuum_work_mem" if own else "maintenance_work_mem"
    needed = min(GB, max(64 * MB, 2 * dead * ROW_BYTES))
    yield server.advice(
        name, "warning",
        f"Vacuuming the table with {dead:,} dead rows reads its indexes {passes:,.0f} times: "
        f"{name} is {server.words(name)}.",
        f"A dead row takes {ROW_BYTES} bytes of it; when it is full, every index is read from "
        "end to end, and again for the rest.",
        f"'{-(-needed // MB):.0f}MB'",
        "Each autovacuum worker may take as much: whether it fits depends on RAM.",
    )  # fmt: skip


def shared_buffers(server: Server) -> Iterator[Advice]:
    """Judge the cache against the data; how large it may be depends on RAM."""
    size, data = server.bytes("shared_buffers"), server.facts.tables_bytes
    if size is None or data is None or size > SMALL_BUFFERS or data <= MUCH_DATA:
        return
    yield server.advice(
        "shared_buffers", "warning",
        f"shared_buffers is {server.words('shared_buffers')} for {words.size(data)} of tables.",
        "The default fits any machine, so it is too small for most: pages are copied from the "
        "system's cache again and again.",
        "'1GB'",
        "How much depends on RAM, which SQL doesn't tell: a quarter of it is usual, so 1GB is "
        "for a machine of 4 GB.",
    )  # fmt: skip


def work_mem(server: Server) -> Iterator[Advice]:
    """Judge what all connections together may take for sorts and hashes, and what did not fit."""
    size, buffers = server.bytes("work_mem"), server.bytes("shared_buffers")
    connections = server.number("max_connections")
    if size is None or buffers is None or not connections:
        return
    whole, written = size * connections, server.facts.temp_bytes
    if whole > BUFFERS_IN_RAM * buffers:
        yield server.advice(
            "work_mem", "notice",
            f"work_mem of {server.words('work_mem')} for each of {connections:,.0f} connections is "
            f"{words.size(whole)}, {whole / buffers:,.0f} times shared_buffers "
            f"({server.words('shared_buffers')}).",
            "Each sort and hash of each statement may take as much. What doesn't fit makes the "
            "system end the server. Whether it fits depends on RAM: give it to the role or the "
            "statement that needs it instead.",
        )  # fmt: skip
    elif written is not None and written > MUCH_TEMP and size <= DEFAULT_WORK_MEM:
        yield server.advice(
            "work_mem", "notice",
            f"Statements wrote {words.size(written)} of temporary files in this window; work_mem "
            f"is {server.words('work_mem')}.",
            "What doesn't fit is sorted and hashed on disk. Raise it for the role or the statement "
            "that needs it; for all, only as far as RAM allows.",
            "'16MB'", f"With {connections:,.0f} connections that is up to "
            f"{words.size(16 * MB * connections)}: whether it fits depends on RAM.",
        )  # fmt: skip


def checkpoints(server: Server) -> Iterator[Advice]:
    """Judge whether WAL forces checkpoints before their time."""
    size, timeout = server.bytes("max_wal_size"), server.seconds("checkpoint_timeout")
    rate, target = (
        server.facts.wal_bytes_per_second,
        server.number("checkpoint_completion_target"),
    )
    if not size or not timeout or not rate or target is None:
        return
    between = size / (1 + target) / rate  # seconds; the server aims at so much WAL in between
    if between >= timeout:
        return
    wanted = rate * timeout * (1 + target)
    yield server.advice(
        "max_wal_size", "warning",
        f"{words.size(rate)}/s of WAL force a checkpoint every {words.age(between)}, not every "
        f"{words.age(timeout)}: max_wal_size is {server.words('max_wal_size')}.",
        "After each checkpoint every page is written whole into the WAL at its first change, so "
        "frequent ones make still more WAL. The rate is that of the statements in this window.",
        f"'{-(-wanted // GB):.0f}GB'", "The disk of pg_wal must hold it.",
    )  # fmt: skip


def switches(server: Server) -> Iterator[Advice]:
    """Judge planner switches that are off for everybody."""
    for name in sorted(server.rows):
        if not name.startswith(SWITCHES) or name in OFF_BY_DEFAULT:
            continue
        if server.text(name) == "off" and server.rows[name]["boot_val"] != "off":
            yield server.advice(
                name, "notice", f"{name} is off for every statement of the server.",
                "The planner avoids that way even where it is by far the best. Turn it off for the "
                "statement that needs it, not for all.", "on",
            )  # fmt: skip


def timeouts(server: Server) -> Iterator[Advice]:
    """Judge whether a forgotten transaction ends; statement_timeout 0 is fine."""
    name = "idle_in_transaction_session_timeout"
    if server.text(name) == "0":
        yield server.advice(
            name, "notice", "A session may stay idle in a transaction for ever.",
            "It keeps its locks, and dead rows of all tables stay as long as it has a snapshot. "
            "The timeout ends such a session, so its application must reconnect.", "'10min'",
        )  # fmt: skip


def logging(server: Server) -> Iterator[Advice]:
    """Judge what the log would tell."""
    slow = server.text("log_min_duration_statement")
    if slow == "-1" and server.text("log_min_duration_sample") in (None, "-1"):
        yield server.advice(
            "log_min_duration_statement", "notice", "Slow statements are not logged.",
            "The log would tell each one with its values, user and duration, which no statistics "
            "view keeps.", "'1s'",
        )  # fmt: skip
    elif slow == "0":
        yield server.advice(
            "log_min_duration_statement", "notice", "Every statement is logged with its duration.",
            "On a busy server the log costs more than the statements, and it holds their values.",
            "'1s'",
        )  # fmt: skip
    if server.text("log_autovacuum_min_duration") == "-1":
        yield server.advice(
            "log_autovacuum_min_duration", "notice", "What autovacuum does is not logged.",
            "The log would tell of each run how long it took, how many dead rows it removed, how "
            "many must stay and for which transaction, and how often it read the indexes.", "'10s'",
        )  # fmt: skip
    if server.text("track_io_timing") == "off":
        yield server.advice(
            "track_io_timing", "notice", "Times of reads and writes are not measured.",
            "EXPLAIN (BUFFERS), pg_stat_statements and pg_stat_io can't tell waiting for the disk "
            "from computing. What the clock costs on this machine tells pg_test_timing.", "on",
        )  # fmt: skip


def page_cost(server: Server) -> Iterator[Advice]:
    """Say what a random page is taken to cost; which is right depends on the disks."""
    row, cost = server.rows.get("random_page_cost"), server.number("random_page_cost")
    if row and cost is not None and row["setting"] == row["boot_val"]:
        yield server.advice(
            "random_page_cost", "info", f"A random page is taken to cost {cost:g} sequential ones.",
            "That is right for disks that turn. On solid-state disks 1.1 is usual and lets the "
            "planner take indexes more often; SQL doesn't tell which they are.", "1.1",
        )  # fmt: skip


JUDGES: tuple[Judge, ...] = (
    durability,
    autovacuum_on,
    cost_limit,
    naptime,
    workers,
    vacuum_memory,
    shared_buffers,
    work_mem,
    checkpoints,
    switches,
    timeouts,
    logging,
    page_cost,
)


def rows_by_name(rows: Any) -> dict[str, Setting]:
    """Return the probe's rows by the setting's name."""
    return {row["name"]: row for row in rows}
