"""Who holds everybody up: one row a root, with the queues behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

from monitors.advisor import is_ours, marked
from monitors.history.freshness import clocks
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import lock_edges
from monitors.rows.backends import Backend, backends_of
from monitors.rows.lock_edges import EdgeRow, Row
from monitors.rows.tables import rows_at
from monitors.rules import lock_graph, lock_words
from monitors.rules.lock_graph import Node, Place, Root

COLUMNS = (
    "root_pid",
    "gid",
    "backend_start",
    "blocked",
    "released",
    "waited_seconds",
    "longest_seconds",
    "in_deadlock",
    "state",
    "backend_type",
    "usename",
    "application_name",
    "datname",
    "xact_start",
    "query",
    "way_out",
    "action",
    "statement",
    "read_at",
)
"""Keys of the export, in order."""


class RootRow(TypedDict):
    """One root; what is not known is None."""

    root_pid: int  # 0: a prepared transaction
    gid: str | None  # of a prepared transaction
    backend_start: datetime | None  # None: it had ended, or has no backend
    blocked: int  # sessions behind it, directly or not; a parallel group is one
    released: int  # of them those that wait behind no other root
    waited_seconds: float | None  # of all of them together
    longest_seconds: float | None
    in_deadlock: bool  # it waits in a circle
    state: str | None
    backend_type: str | None
    usename: str | None  # of a prepared transaction its owner
    application_name: str | None
    datname: str | None
    xact_start: datetime | None  # of a prepared transaction: when it was prepared
    query: str | None  # literals replaced, unless the reader may see them
    way_out: str  # the kind of `lock_words.WayOut`
    action: str  # '' where Howdah has none
    statement: str  # to run by hand, '' where none helps
    read_at: datetime | None


@dataclass(frozen=True)
class Waiter:
    """A session that waits, at its place in the tree; `edge` leads to the one above it."""

    edge: EdgeRow
    place: Place
    queued_behind: list[int]
    """Who waits ahead of it in the queue beside that one: the nearest."""
    query: str
    """'' where it is not known."""


@dataclass
class Queue:
    """Who waits for one lock behind one root, longest first."""

    lock: str
    lock_database: str | None
    waiters: list[Waiter] = field(default_factory=list)

    @property
    def waited_seconds(self) -> float | None:
        """Of all of them together, None where of none it is known."""
        return total(waiter.edge["waited_seconds"] for waiter in self.waiters)

    @property
    def depth(self) -> int:
        """How near the root its first waiter is: 1 directly below it."""
        return min(waiter.place.depth for waiter in self.waiters)


@dataclass(frozen=True)
class Tree:
    """A root with the queues behind it, the nearest first."""

    row: RootRow
    queues: list[Queue]
    elsewhere: int
    """Victims that stand below another root too, and are shown there."""
    circle: list[Node]
    """Who waits in a circle with it; [] where it is in none."""
    backend: Backend | None
    """As the activity was read, None where it is not there."""


@dataclass(frozen=True)
class Locks:
    """All who wait at one moment."""

    trees: list[Tree]
    edges: list[EdgeRow]
    blocked: int
    waited_seconds: float | None
    longest_seconds: float | None
    read_at: datetime | None
    """By the target's clock, None where nothing was read."""

    @property
    def roots(self) -> list[RootRow]:
        """The rows of all roots, those with most victims first."""
        return [tree.row for tree in self.trees]


@dataclass(frozen=True)
class Scene:
    """What a tree is made of."""

    target: Target
    rows: list[Row]
    edges: list[EdgeRow]
    places: Mapping[Node, Place]
    waited: Mapping[Node, float | None]
    backends: Mapping[int, Backend]
    read_at: datetime | None


def read_locks(target: Target, window: Window, texts: Mapping[str, str] | None = None) -> Locks:
    """Return who waits now, or did at the end of a window in the past.

    `texts` are statements with their values, for who may see them, as `backends_of` takes them.
    """
    clock = clocks(target, "locks", None if window.is_live else window.end).get(0)
    read_at = clock[1] if clock else None
    rows: list[Row] = [*rows_at("locks", target, window)]
    activity = marked(rows_at("activity", target, window) if rows else [], target.logins)
    backends = backends_of(activity, read_at or window.end, texts or {})
    waits = lock_edges.waits_of(rows)
    roots = lock_graph.find_roots(waits)
    places = lock_graph.hang(waits, roots)
    names = lock_edges.names_of(target, window, rows)
    edges = [lock_edges.edge_of(row, places, names, read_at) for row in rows]
    waited = waits_by_session(edges)
    known = {backend.pid: backend for backend in backends}
    scene = Scene(target, rows, edges, places, waited, known, read_at)
    return Locks(
        trees=[tree_of(root, scene) for root in roots],
        edges=edges,
        blocked=len(waits),
        waited_seconds=total(waited.values()),
        longest_seconds=longest(waited.values()),
        read_at=read_at,
    )


def waits_by_session(edges: Iterable[EdgeRow]) -> dict[Node, float | None]:
    """Return how long each session has waited, a parallel group as its longest process."""
    found: dict[Node, float | None] = {}
    for edge in edges:
        found[edge["leader_pid"]] = longest((found.get(edge["leader_pid"]), edge["waited_seconds"]))
    return found


def tree_of(root: Root, scene: Scene) -> Tree:
    """Return a root with those behind it."""
    said = next(row for row in scene.rows if lock_edges.blocker_of(row) == root.node)
    backend = scene.backends.get(said["blocker_pid"])
    if backend is not None and backend.backend_start != said["blocker_backend_start"]:
        backend = None
    shown = {node for node, place in scene.places.items() if place.root == root.node}
    return Tree(
        row=root_row(root, said, backend, scene),
        queues=queues_of(root, scene),
        elsewhere=len(root.victims - shown),
        circle=sorted(root.circle, key=lock_graph.by_name),
        backend=backend,
    )


def root_row(root: Root, said: Row, backend: Backend | None, scene: Scene) -> RootRow:
    """Return a root's row, by an edge that leads to it and by the activity."""
    gid, pid = (None, said["blocker_pid"]) if said["blocker_pid"] else (said["gid"], 0)
    waits = [scene.waited[node] for node in root.victims]
    state = backend.state if backend else said["blocker_state"]
    user, application = said["blocker_usename"], said["blocker_application_name"]
    ours = is_ours(application, user, scene.target.logins)
    out = lock_words.find_way_out(
        gid=gid, backend_type=said["blocker_backend_type"], state=state, ours=ours
    )
    return {
        "root_pid": pid,
        "gid": gid,
        "backend_start": said["blocker_backend_start"],
        "blocked": len(root.victims),
        "released": len(root.released),
        "waited_seconds": total(waits),
        "longest_seconds": longest(waits),
        "in_deadlock": bool(root.circle),
        "state": "prepared transaction" if gid is not None else state,
        "backend_type": said["blocker_backend_type"],
        "usename": user,
        "application_name": application,
        "datname": said["blocker_datname"],
        "xact_start": said["blocker_xact_start"],
        "query": backend.query if backend else said["blocker_query"],
        "way_out": out.kind,
        "action": out.action,
        "statement": out.statement,
        "read_at": scene.read_at,
    }


def queues_of(root: Root, scene: Scene) -> list[Queue]:
    """Return the queues below a root, the nearest first, of those as near the longest."""
    queues: dict[tuple[str, str | None], Queue] = {}
    seen: set[int] = set()
    ahead: dict[int, list[int]] = {}
    for edge in scene.edges:
        if edge["hard"] is False:
            ahead.setdefault(edge["pid"], []).append(edge["blocker_pid"])
    for row, edge in zip(scene.rows, scene.edges, strict=True):
        place = scene.places.get(edge["leader_pid"])
        if place is None or place.root != root.node or edge["pid"] in seen:
            continue
        if lock_edges.blocker_of(row) != place.parent:
            continue
        seen.add(edge["pid"])
        backend = scene.backends.get(edge["pid"])
        name = (edge["lock"], edge["lock_database"])
        query = backend.query if backend else ""
        others = [pid for pid in ahead.get(edge["pid"], ()) if pid != place.parent]
        queues.setdefault(name, Queue(*name)).waiters.append(Waiter(edge, place, others, query))
    for queue in queues.values():
        queue.waiters.sort(key=lambda one: (-(one.edge["waited_seconds"] or 0), one.edge["pid"]))
    return sorted(queues.values(), key=lambda queue: (queue.depth, -len(queue.waiters)))


def total(seconds: Iterable[float | None]) -> float | None:
    """Return the sum of what is known, None where nothing is."""
    known = [one for one in seconds if one is not None]
    return sum(known) if known else None


def longest(seconds: Iterable[float | None]) -> float | None:
    """Return the greatest of what is known, None where nothing is."""
    return max((one for one in seconds if one is not None), default=None)
