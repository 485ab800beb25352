"""Pure: who waits for whom -> roots, whom each of them holds up, and an order to show them in.

A node is a session (by the pid of its parallel group's leader) or a prepared transaction (by its
gid). An edge leads from a waiter to a blocker: hard where the blocker holds what is wanted, else
it only waits ahead in the queue, or which of both is not known.

Source: "Deadlock Detection Algorithm" in src/backend/storage/lmgr/README (hard and soft edges).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

Node = int | str
Waits = Mapping[Node, Mapping[Node, bool | None]]
"""Of each waiter its blockers, and whether the edge is a hard one; nobody waits for itself."""
Name = tuple[bool, str, int]
Visit = tuple[int, int, Name, Name, Node, Node]
"""Queue blocks on the way, depth, what both are ordered by, a waiter and the blocker it is reached from."""


@dataclass(frozen=True)
class Root:
    """A node that blocks others and waits for none, or one of a circle for all of it."""

    node: Node
    victims: frozenset[Node]
    """Who waits for it, directly or behind others; not itself."""
    released: frozenset[Node]
    """Those of them that wait for no other root: they go on when it ends."""
    circle: frozenset[Node]
    """Who waits in a circle with it, itself too; empty where it is none. deadlock_timeout ends it."""


@dataclass(frozen=True)
class Place:
    """Where a waiter hangs in the tree."""

    parent: Node
    root: Node
    depth: int
    """1 directly below the root."""


def find_roots(waits: Waits) -> list[Root]:
    """Return all roots, those with most victims first; every waiter is behind one at least."""
    blocks = turned(waits)
    circles: dict[Node, frozenset[Node]] = {}
    tops = sorted((node for node in blocks if not waits.get(node)), key=by_name)
    victims = {node: reach(node, blocks) for node in tops}
    left = {node for node, by in waits.items() if by}.difference(*victims.values())
    while left:
        circle = find_circle(min(left, key=by_name), waits, blocks)
        first = min(circle, key=by_name)
        circles[first] = circle
        victims[first] = reach(first, blocks)
        left -= victims[first] | {first}
    behind = Counter(node for found in victims.values() for node in found)
    roots = [
        Root(
            node=node,
            victims=found,
            released=frozenset(one for one in found if behind[one] == 1),
            circle=circles.get(node, frozenset()),
        )
        for node, found in victims.items()
    ]
    return sorted(roots, key=lambda root: (-len(root.victims), by_name(root.node)))


def find_circle(node: Node, waits: Waits, blocks: Mapping[Node, set[Node]]) -> frozenset[Node]:
    """Return a circle that a node waits for, or is in, and that waits for nobody outside of it.

    Whatever the node waits for must end in circles: it has no other root.
    """
    while True:
        ahead = reach(node, waits) | {node}
        beyond = ahead - reach(node, blocks) - {node}
        if not beyond:
            return ahead
        node = min(beyond, key=by_name)


def reach(start: Node, edges: Mapping[Node, Iterable[Node]]) -> frozenset[Node]:
    """Return every node that edges lead to, without the one that they start from."""
    found: set[Node] = set()
    ahead = [start]
    while ahead:
        new = set(edges.get(ahead.pop(), ())) - found
        found |= new
        ahead.extend(new)
    return frozenset(found - {start})


def turned(waits: Waits) -> dict[Node, set[Node]]:
    """Return {blocker: those that wait for it directly}."""
    found: dict[Node, set[Node]] = {}
    for waiter, blockers in waits.items():
        for blocker in blockers:
            found.setdefault(blocker, set()).add(waiter)
    return found


def hang(waits: Waits, roots: Collection[Root]) -> dict[Node, Place]:
    """Return {waiter: its place}: below the first of the roots that it is behind, once each.

    The way to the root is the one with fewest queue blocks, then the shortest: who holds something
    stands above who wants it, and a queue is one list below it, not a staircase.
    """
    blocks = turned(waits)
    places: dict[Node, Place] = {}
    tops = {root.node for root in roots}
    for root in roots:
        ahead: list[Visit] = []
        visit(root.node, (0, 0), blocks, waits, ahead)
        while ahead:
            queued, depth, *_, waiter, parent = heapq.heappop(ahead)
            if waiter in places or waiter in tops:
                continue
            places[waiter] = Place(parent, root.node, depth)
            visit(waiter, (queued, depth), blocks, waits, ahead)
    return places


def visit(
    node: Node,
    cost: tuple[int, int],
    blocks: Mapping[Node, set[Node]],
    waits: Waits,
    ahead: list[Visit],
) -> None:
    """Put those that wait for a node into the queue of what to look at, cheapest first."""
    queued, depth = cost
    for waiter in blocks.get(node, ()):
        soft = waits[waiter][node] is not True
        names = by_name(waiter), by_name(node)
        heapq.heappush(ahead, (queued + soft, depth + 1, *names, waiter, node))


def by_name(node: Node) -> Name:
    """Return what nodes are ordered by: pids, then gids."""
    return (True, node, 0) if isinstance(node, str) else (False, "", node)
