"""Pure: backends -> who waits for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from monitors.rows.backends import Backend


@dataclass(frozen=True)
class LockTree:
    """Who waits for whom; each waiter stands once, under the last in line before it."""

    roots: list[Backend]
    """Worst first; one of pid 0 stands for prepared transactions."""
    blocked: int
    longest_seconds: float | None
    """None where of no waiter it is known."""


def prepared(now: datetime) -> Backend:
    """Return what stands for prepared transactions: they have no backend."""
    row = {"pid": 0, "backend_start": now, "state": "prepared transaction"}
    return Backend(row, "", now)


def build_lock_tree(backends: list[Backend], now: datetime) -> LockTree:
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
