"""Pure: rows of the activity probe -> backends with ages.

Long, since an export has forty columns of a backend, and each says what it is.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from monitors.advisor import DISABLED, RUNNING, TRANSFERS
from monitors.probe import Reading
from monitors.rules import vacuum_progress, wait_events

LONG_SECONDS = 5
"""An active statement that runs longer is marked."""

CLIENT = "client backend"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IN_TRANSACTION = ("idle in transaction", "idle in transaction (aborted)")

COLUMNS = (
    "datid",
    "datname",
    "pid",
    "leader_pid",
    "usename",
    "application_name",
    "client_addr",
    "client_port",
    "backend_start",
    "xact_start",
    "query_start",
    "state_change",
    "wait_event_type",
    "wait_event",
    "state",
    "backend_xid",
    "backend_xmin",
    "query_id",
    "query",
    "backend_type",
    "blocked_by",
    "blocking",
    "query_seconds",
    "xact_seconds",
    "state_seconds",
    "connection_seconds",
    "wait_meaning",
    "client_hostname",
    "ssl",
    "sslversion",
    "sslcipher",
    "progress_command",
    "progress_phase",
    "progress_pct",
    "progress_bytes",
    "cpu_pct",
    "anon_bytes",
    "read_bytes_per_second",
    "write_bytes_per_second",
)
"""Keys of the export: pg_stat_activity's columns, then the computed ones."""


class BackendRow(TypedDict):
    """One backend as pg_stat_activity has it; None where it does not say."""

    datid: int | None
    datname: str | None
    pid: int
    leader_pid: int | None
    usename: str | None
    application_name: str | None
    client_addr: str | None
    client_port: int | None
    backend_start: datetime
    xact_start: datetime | None
    query_start: datetime | None
    state_change: datetime | None
    wait_event_type: str | None
    wait_event: str | None
    state: str | None
    backend_xid: int | None
    backend_xmin: int | None
    query_id: int | None
    query: str  # literals replaced, unless the reader may see them
    backend_type: str | None
    blocked_by: list[int]  # pids; 0 is a prepared transaction
    blocking: int  # how many wait for it, directly or behind somebody who does
    query_seconds: float | None  # since the statement began
    xact_seconds: float | None  # since the transaction began
    state_seconds: float | None  # since the state last changed
    connection_seconds: float  # since the backend began
    wait_meaning: str  # a sentence, '' where it waits for nothing
    client_hostname: str | None
    ssl: bool | None
    sslversion: str | None
    sslcipher: str | None
    progress_command: str | None  # of what it runs, None where that tells no progress
    progress_phase: str | None
    progress_pct: float | None  # of its phase; None where the whole is not known
    progress_bytes: int | None  # of a transfer, so far
    cpu_pct: float | None  # of one processor; this and the next only live, on our own machine
    anon_bytes: float | None  # its own memory, without shared buffers
    read_bytes_per_second: float | None  # from disks
    write_bytes_per_second: float | None


@dataclass(frozen=True)
class Progress:
    """How far a command is, as the probe `progress` read it last."""

    command: str
    phase: str | None  # COPY has none
    pct: float | None  # of its phase; None where the whole is not known
    transferred_bytes: int | None  # None: no transfer


@dataclass
class Backend:
    """One server process at the moment of its snapshot; ages are by the target's clock."""

    row: Reading
    query: str
    """Literals replaced, unless the reader may see them and they are still at hand."""
    now: datetime
    blocking: int = 0
    """How many wait for it, directly or behind somebody who does."""
    waiters: list[Backend] = field(default_factory=list)
    click: uuid.UUID = field(default_factory=uuid.uuid4)
    """Idempotency key of its button: two clicks on one are one action."""
    answered: Any = None
    """The action that was already taken on just this state of it, None for none."""
    workers: list[Backend] = field(default_factory=list)
    """Of a parallel statement, where its workers stand with their leader (`fold_workers`)."""
    progress: Progress | None = None
    """How far its statement is, None where that tells no progress."""
    used: Mapping[str, float | None] = field(default_factory=dict)
    """What its process uses by the last four columns; {} where that is not known."""
    client: Any = None
    """The pooler's client that it works for (`pooler_clients.ClientRow`), None where none is known."""
    no_signal: str = ""
    """Why the operator login may not signal it whoever asks, '' where that is not known."""

    def __getattr__(self, name: str) -> Any:
        """Return a column of pg_stat_activity."""
        try:
            return self.row[name]
        except KeyError:
            raise AttributeError(name) from None

    def seconds(self, since: str) -> float | None:
        """Return the age of a column, never negative; None where it is empty."""
        start = self.row.get(since)
        return max(0.0, (self.now - start).total_seconds()) if start else None

    @property
    def query_seconds(self) -> float | None:
        """Since the statement began, running or not: pg_stat_activity keeps the last one."""
        return self.seconds("query_start")

    @property
    def waited_seconds(self) -> float | None:
        """Of one that waits for a lock: since its statement began, or its wait where that is hidden."""
        known = self.query_seconds
        return self.seconds("waitstart") if known is None else known

    @property
    def xact_seconds(self) -> float | None:
        """Since the transaction began; None outside of one."""
        return self.seconds("xact_start")

    @property
    def state_seconds(self) -> float | None:
        """Since the state last changed."""
        return self.seconds("state_change")

    @property
    def connection_seconds(self) -> float:
        """Since the backend began."""
        return self.seconds("backend_start") or 0.0

    @property
    def blocked_by(self) -> list[int]:
        """Return the pids that it waits for, each once; 0 is a prepared transaction."""
        return list(dict.fromkeys(self.row.get("blocked_by") or ()))

    @property
    def key(self) -> str:
        """Name it for its live text and its row on the page: pids are reused."""
        return f"{self.pid}:{self.backend_start.astimezone(UTC).isoformat()}"

    @property
    def is_client(self) -> bool:
        """Whether a client holds it; only such may be signalled."""
        return bool(self.row.get("backend_type") == CLIENT)

    @property
    def is_ours(self) -> bool:
        """Whether it is a session of Howdah's, as `marked` found."""
        return bool(self.row.get("ours"))

    @property
    def is_running(self) -> bool:
        """Whether a cancel can reach anything."""
        return self.row.get("state") in RUNNING

    @property
    def is_in_transaction(self) -> bool:
        """Whether it holds a transaction open and runs nothing."""
        return self.row.get("state") in IN_TRANSACTION

    @property
    def is_hidden(self) -> bool:
        """Whether its track_activities is off: what it does, if anything, is not known."""
        return bool(self.row.get("state") == DISABLED)

    @property
    def is_idle(self) -> bool:
        """Whether it is known to do nothing: idle, or a process that runs no statement."""
        if self.blocked_by or (self.is_hidden and self.is_client):
            return False
        return self.row.get("state") == "idle" or not self.row.get("query_start")

    @property
    def rests(self) -> bool:
        """Whether it is outside a transaction and waits for its client."""
        return bool(self.row.get("state") == "idle")

    @property
    def is_long(self) -> bool:
        """Whether its statement has run for over LONG_SECONDS; a walsender's stream is none."""
        return self.is_client and self.is_running and (self.query_seconds or 0) > LONG_SECONDS

    @property
    def who(self) -> str:
        """Return its application, else its user, else what kind of process it is."""
        names = ("application_name", "usename", "backend_type")
        return next((str(self.row[name]) for name in names if self.row.get(name)), "")

    @property
    def wait(self) -> str:
        """Return `Lock: transactionid`, empty where it waits for nothing."""
        parts = (self.row.get("wait_event_type"), self.row.get("wait_event"))
        return ": ".join(part for part in parts if part)

    @property
    def wait_meaning(self) -> str:
        """Return what it waits for as a sentence, '' where it waits for nothing."""
        return wait_events.explain(self.row.get("wait_event_type"), self.row.get("wait_event"))

    @property
    def start_text(self) -> str:
        """Return its start as its page's address has it: microseconds since 1970."""
        return str(epoch_us(self.row["backend_start"]))

    @property
    def guard(self) -> dict[str, str]:
        """Return the arguments that name this very backend in this very state.

        Spelled as an action keeps its arguments: UTC with microseconds. Of a transaction that runs nothing
        its start and the last change of state stand for the statement's start, of what is idle
        outside of one that change alone.
        """
        names: tuple[str, ...] = ("query_start",)
        if self.is_in_transaction:
            names = ("xact_start", "state_change")
        elif self.rests:
            names = ("state_change",)
        times = {name: self.row.get(name) for name in ("backend_start", *names)}
        spelled = {name: moment_text(at) for name, at in times.items() if at}
        return {"pid": str(self.pid), **spelled}

    @property
    def may_be_marked(self) -> bool:
        """Whether it may be one of several that are signalled."""
        is_free = self.is_client and not self.is_ours
        return is_free and self.answered is None and not self.no_signal

    @property
    def marked(self) -> str:
        """Return what its box posts: its guard, and when its statement began, whichever action follows."""
        start = self.row.get("query_start")
        began = {"query_start": moment_text(start)} if start else {}
        return json.dumps({**self.guard, **began})

    def export(self) -> BackendRow:
        """Return it as a row."""
        column = self.row.get
        return {
            "datid": column("datid"),
            "datname": column("datname"),
            "pid": self.row["pid"],
            "leader_pid": column("leader_pid"),
            "usename": column("usename"),
            "application_name": column("application_name"),
            "client_addr": column("client_addr"),
            "client_port": column("client_port"),
            "backend_start": self.row["backend_start"],
            "xact_start": column("xact_start"),
            "query_start": column("query_start"),
            "state_change": column("state_change"),
            "wait_event_type": column("wait_event_type"),
            "wait_event": column("wait_event"),
            "state": column("state"),
            "backend_xid": column("backend_xid"),
            "backend_xmin": column("backend_xmin"),
            "query_id": column("query_id"),
            "query": self.query,
            "backend_type": column("backend_type"),
            "blocked_by": self.blocked_by,
            "blocking": self.blocking,
            "query_seconds": self.query_seconds,
            "xact_seconds": self.xact_seconds,
            "state_seconds": self.state_seconds,
            "connection_seconds": self.connection_seconds,
            "wait_meaning": self.wait_meaning,
            "client_hostname": column("client_hostname"),
            "ssl": column("ssl"),
            "sslversion": column("sslversion"),
            "sslcipher": column("sslcipher"),
            "progress_command": self.progress.command if self.progress else None,
            "progress_phase": self.progress.phase if self.progress else None,
            "progress_pct": self.progress.pct if self.progress else None,
            "progress_bytes": self.progress.transferred_bytes if self.progress else None,
            "cpu_pct": self.used.get("cpu_pct"),
            "anon_bytes": self.used.get("anon_bytes"),
            "read_bytes_per_second": self.used.get("read_bytes_per_second"),
            "write_bytes_per_second": self.used.get("write_bytes_per_second"),
        }


def epoch_us(moment: datetime) -> int:
    """Return a moment in whole microseconds since 1970: a float would round it."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment_text(moment: datetime) -> str:
    """Return a moment in UTC with all six digits of its microseconds."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")


def backends_of(rows: Iterable[Reading], now: datetime, texts: Mapping[str, str]) -> list[Backend]:
    """Return all backends, longest statement first; `texts` are live ones by `pid:backend_start`."""
    backends = [Backend(row, row.get("query") or "", now) for row in rows]
    texts = {in_utc(key): text for key, text in texts.items()}
    for backend in backends:
        backend.query = texts.get(backend.key, backend.query)
    # By pid too: what is equal stands where it stood at the reading before.
    backends.sort(key=lambda backend: (-(backend.query_seconds or 0), backend.pid))
    return backends


def in_utc(key: str) -> str:
    """Return `pid:backend_start` with the time in UTC: a target may live in another zone."""
    pid, _, start = key.partition(":")
    return f"{pid}:{datetime.fromisoformat(start).astimezone(UTC).isoformat()}"


def note_progress(backends: Iterable[Backend], rows: Iterable[Reading]) -> None:
    """Note on each backend how far its statement is, by rows of the probe `progress`.

    They are some seconds older: one of another statement, or of a former backend, says nothing.
    """
    read = {(row["pid"], row["started_at"]): row for row in rows}
    for backend in backends:
        row = read.get((backend.pid, backend.row.get("query_start")))
        if row is not None and row["started_at"] is not None:
            backend.progress = progress_of(row)


def progress_of(row: Reading) -> Progress:
    """Return how far a command is, of a row of the probe `progress`."""
    transferred = row["done"] if row["command"] in TRANSFERS else None
    return Progress(row["command"], row["phase"], vacuum_progress.pct_of(row), transferred)
