"""Pure: rows of the activity probe -> backends with ages, and who waits for whom."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from monitors.advisor import DISABLED, RUNNING

Row = Mapping[str, Any]

LONG_SECONDS = 5
"""An active statement that runs longer is marked."""

CLIENT = "client backend"
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
)
"""Keys of the export: pg_stat_activity's columns, then the computed ones."""


@dataclass
class Backend:
    """One server process at the moment of its snapshot; ages are by the target's clock."""

    row: Row
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

    def export(self) -> dict[str, Any]:
        """Return the keys of COLUMNS."""
        computed = {
            "query": self.query,
            "blocked_by": self.blocked_by,
            "blocking": self.blocking,
            "query_seconds": self.query_seconds,
            "xact_seconds": self.xact_seconds,
        }
        return {name: self.row.get(name) for name in COLUMNS} | computed


@dataclass(frozen=True)
class LockTree:
    """Who waits for whom; each waiter stands once, under the last in line before it."""

    roots: list[Backend]
    """Worst first; one of pid 0 stands for prepared transactions."""
    blocked: int
    longest_seconds: float | None
    """None where of no waiter it is known."""


def moment_text(moment: datetime) -> str:
    """Return a moment in UTC with all six digits of its microseconds."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")


def backends_of(rows: Iterable[Row], now: datetime, texts: Mapping[str, str]) -> list[Backend]:
    """Return all backends, longest statement first; `texts` are live ones by `pid:backend_start`."""
    backends = [Backend(row, row.get("query") or "", now) for row in rows]
    texts = {in_utc(key): text for key, text in texts.items()}
    for backend in backends:
        backend.query = texts.get(backend.key, backend.query)
    backends.sort(key=lambda backend: -(backend.query_seconds or 0))
    return backends


def in_utc(key: str) -> str:
    """Return `pid:backend_start` with the time in UTC: a target may live in another zone."""
    pid, _, start = key.partition(":")
    return f"{pid}:{datetime.fromisoformat(start).astimezone(UTC).isoformat()}"


def prepared(now: datetime) -> Backend:
    """Return what stands for prepared transactions: they have no backend."""
    row = {"pid": 0, "backend_start": now, "state": "prepared transaction"}
    return Backend(row, "", now)


def lock_tree(backends: list[Backend], now: datetime) -> LockTree:
    """Hang each waiter under one blocker, fill `blocking` and `waiters`."""
    by_pid = {backend.pid: backend for backend in backends}
    waiting = [backend for backend in backends if backend.blocked_by]
    if any(0 in backend.blocked_by for backend in waiting):
        by_pid[0] = prepared(now)
    graph = {
        backend.pid: [pid for pid in backend.blocked_by if pid in by_pid] for backend in waiting
    }
    parents = parents_of(graph)
    for victim in waiting:
        if victim.pid in parents:
            by_pid[parents[victim.pid]].waiters.append(victim)
        for pid in blockers_of(victim.pid, graph):
            by_pid[pid].blocking += 1
    waits = (waiter.waited_seconds for waiter in waiting)
    roots = [by_pid[pid] for pid in {root_of(pid, parents) for pid in graph}]
    for backend in by_pid.values():
        backend.waiters.sort(key=lambda waiter: -(waiter.waited_seconds or 0))
    return LockTree(
        roots=sorted(roots, key=lambda root: (-root.blocking, root.pid)),
        blocked=len(waiting),
        longest_seconds=max((one for one in waits if one is not None), default=None),
    )


def blockers_of(pid: int, graph: Mapping[int, list[int]]) -> set[int]:
    """Return every pid that pid waits for, directly or through others, without itself."""
    found: set[int] = set()
    ahead = list(graph.get(pid, ()))
    while ahead:
        blocker = ahead.pop()
        if blocker not in found:
            found.add(blocker)
            ahead.extend(graph.get(blocker, ()))
    return found - {pid}


def parents_of(graph: Mapping[int, list[int]]) -> dict[int, int]:
    """Return {waiter: the blocker that has most ahead of it}; a deadlock is cut once."""
    depth = {pid: len(blockers_of(pid, graph)) for pid in graph}
    parents: dict[int, int] = {}
    for pid in sorted(graph, key=lambda pid: (depth[pid], pid)):
        blockers = sorted(graph[pid], key=lambda blocker: (-depth.get(blocker, 0), blocker))
        for blocker in blockers:
            if blocker != pid and root_of(blocker, parents) != pid:
                parents[pid] = blocker
                break
    return parents


def root_of(pid: int, parents: Mapping[int, int]) -> int:
    """Return who stands at the top above pid; `parents` has no circle."""
    while pid in parents:
        pid = parents[pid]
    return pid


def idle_summary(backends: Iterable[Backend]) -> list[dict[str, Any]]:
    """Return what is idle by application and user: dicts, most backends first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    oldest: dict[tuple[str, str, str], float] = {}
    for backend in backends:
        if backend.is_client and backend.row.get("state") == "idle":
            group = (backend.application_name or "", backend.usename or "", backend.datname or "")
            counts[group] += 1
            oldest[group] = max(oldest.get(group, 0.0), backend.state_seconds or 0.0)
    names = ("application_name", "usename", "datname")
    return [
        dict(zip(names, group, strict=True), backends=count, idle_seconds=oldest[group])
        for group, count in counts.most_common()
    ]
