"""Roots, victims and places over a thousand random lock graphs, against an answer by brute force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from monitors.rows.lock_edges import waits_of
from monitors.rules.lock_graph import Node, Root, find_roots, hang

FEW = 5
"""Blockers that hold a lock which the probe names all the same."""
Edge = tuple[int, int, Node, bool]
"""Process that waits, its group's leader, its blocker, hard or not."""

PIDS = st.integers(1, 14)
GIDS = st.sampled_from(["gid 1", "gid 2"])


@st.composite
def edges(draw: st.DrawFn) -> list[Edge]:
    """Queues of several locks, deep ones too, and single edges: circles, parallel groups, prepared transactions."""
    leaders = draw(st.dictionaries(PIDS, PIDS, max_size=4))
    leaders = {pid: leaders.get(leader, leader) for pid, leader in leaders.items()}
    groups = {pid: pid for pid in range(1, 15)} | {
        pid: leader for pid, leader in leaders.items() if leaders.get(leader, leader) == leader
    }
    found: dict[tuple[int, Node], Edge] = {}

    def add(pid: int, blocker: Node, *, hard: bool) -> None:
        node = groups[blocker] if isinstance(blocker, int) else blocker
        if node != groups[pid]:
            found.setdefault((pid, node), (pid, groups[pid], node, hard))

    for _ in range(draw(st.integers(0, 3))):
        holders = draw(st.lists(st.one_of(PIDS, GIDS), min_size=1, max_size=7, unique=True))
        queue = draw(st.lists(PIDS, max_size=12, unique=True))
        for place, pid in enumerate(queue):
            for holder in holders:
                add(pid, holder, hard=True)
            for ahead in queue[:place]:
                add(pid, ahead, hard=False)
    for pid, blocker, hard in draw(
        st.lists(st.tuples(PIDS, st.one_of(PIDS, GIDS), st.booleans()), max_size=12)
    ):
        add(pid, blocker, hard=hard)
    return list(found.values())


def rows_of(found: list[Edge]) -> list[dict[str, Any]]:
    """Return edges as the probe's rows."""
    return [
        {
            "pid": pid,
            "leader_pid": leader,
            "blocker_pid": blocker if isinstance(blocker, int) else 0,
            "gid": "" if isinstance(blocker, int) else blocker,
            "hard": hard,
        }
        for pid, leader, blocker, hard in found
    ]


def thinned(found: list[Edge]) -> list[Edge]:
    """Leave out what the probe's statement leaves out; to the server all prepared transactions are 0."""
    blockers: dict[int, set[Node]] = {}
    held: dict[int, set[Node]] = {}
    processes: dict[Node, set[int]] = {}
    for pid, leader, blocker, hard in found:
        blockers.setdefault(pid, set()).add(0 if isinstance(blocker, str) else blocker)
        processes.setdefault(leader, set()).add(pid)
        if hard:
            held.setdefault(pid, set()).add(blocker)
    covered: dict[int, set[Node]] = {}
    for pid, mine in blockers.items():
        ahead = {one for node in mine for one in processes.get(node, ())}
        nearer = [one for one in ahead if len(blockers[one]) < len(mine)]
        nearest = max(nearer, key=lambda one: (len(blockers[one]), -one), default=0)
        covered[pid] = blockers[nearest] if nearest else set()
    return [
        (pid, leader, blocker, hard)
        for pid, leader, blocker, hard in found
        if isinstance(blocker, str)
        or blocker not in covered[pid]
        or (hard and len(held[pid]) <= FEW)
    ]


def closure(found: list[Edge]) -> dict[Node, set[Node]]:
    """Return whom each node waits for in the end, by going on until nothing is new."""
    reached: dict[Node, set[Node]] = {}
    for _, leader, blocker, _ in found:
        reached.setdefault(leader, set()).add(blocker)
        reached.setdefault(blocker, set())
    while True:
        new = {
            node: ahead.union(*(reached[one] for one in ahead)) for node, ahead in reached.items()
        }
        if new == reached:
            return reached
        reached = new


Answer = dict[Node, tuple[set[Node], set[Node]]]


def by_force(found: list[Edge]) -> Answer:
    """Return {root: (victims, those that wait for no other root)}."""
    reached = closure(found)
    ends = {
        node: frozenset({node} | ahead)
        for node, ahead in reached.items()
        if all(node in reached[one] for one in ahead)
    }
    names = {
        members: min(members, key=str if len(members) == 1 else int) for members in ends.values()
    }
    behind = {
        node: {ends[one] for one in {node} | ahead if one in ends}
        for node, ahead in reached.items()
    }
    answer: Answer = {}
    for members, name in names.items():
        victims = {node for node in reached if members in behind[node]} - {name}
        answer[name] = victims, {node for node in victims if len(behind[node]) == 1}
    return answer


def told(roots: list[Root]) -> Answer:
    return {root.node: (set(root.victims), set(root.released)) for root in roots}


def queue_of(length: int) -> list[Edge]:
    """Return what pg_blocking_pids says of a row that 1 holds: 2 waits for it, all others for 2 and each other."""
    rest = [(pid, pid, 2, True) for pid in range(3, length)]
    ahead = [(pid, pid, one, False) for pid in range(3, length) for one in range(3, pid)]
    return [(2, 2, 1, True), *rest, *ahead]


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(edges())
@example(queue_of(60))
@example([(pid, pid, pid - 1, True) for pid in range(2, 60)])
@example([(1, 1, 2, True), (2, 2, 1, True), (3, 3, 2, False)])
def test_roots_and_victims_are_those_of_brute_force_with_all_edges_and_with_what_is_kept(
    found: list[Edge],
) -> None:
    expected = by_force(found)
    for kept in (found, thinned(found)):
        waits = waits_of(rows_of(kept))
        roots = find_roots(waits)
        assert told(roots) == expected
        assert [len(root.victims) for root in roots] == sorted(
            (len(victims) for victims, _ in expected.values()), reverse=True
        )
        hangs_once_below_a_root_of_its_own(waits, roots)


def hangs_once_below_a_root_of_its_own(
    waits: Mapping[Node, Mapping[Node, bool | None]], roots: list[Root]
) -> None:
    places, tops = hang(waits, roots), {root.node: root for root in roots}
    assert set(places) == set(waits) - set(tops)
    for node, place in places.items():
        assert place.parent in waits[node]
        assert node in tops[place.root].victims
        above = places.get(place.parent)
        assert (above.root, above.depth + 1) == (place.root, place.depth) if above else (
            place.parent == place.root and place.depth == 1
        )  # fmt: skip


def test_200_in_a_queue_hang_below_the_one_that_holds_the_row_not_on_a_staircase() -> None:
    found = queue_of(202)
    waits = waits_of(rows_of(found))

    roots = find_roots(waits)
    places = hang(waits, roots)

    assert len(found) == 19_901
    assert [(root.node, len(root.victims), len(root.released)) for root in roots] == [(1, 200, 200)]
    assert max(place.depth for place in places.values()) == 2
    assert len(thinned(found)) == 1 + 199 + 198


@pytest.mark.parametrize(
    ("found", "circle", "victims"),
    [
        ([(1, 1, 2, True), (2, 2, 1, True)], {1, 2}, {2}),
        ([(1, 1, 2, True), (2, 2, 1, True), (3, 3, 1, True)], {1, 2}, {2, 3}),
        ([(1, 1, 2, True), (2, 2, 1, True), (2, 2, 3, True)], set(), {1, 2}),
    ],
)
def test_a_circle_stands_for_itself_unless_it_waits_for_somebody_outside(
    found: list[Edge], circle: set[Node], victims: set[Node]
) -> None:
    [root] = find_roots(waits_of(rows_of(found)))

    assert (set(root.circle), set(root.victims)) == (circle, victims)
