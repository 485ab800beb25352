"""Who waits for whom, from rows alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitors.rows.backend_groups import IdleRow, sum_up_idle
from monitors.rows.backends import COLUMNS, BackendRow, backends_of
from monitors.rows.lock_tree import build_lock_tree
from tests.typed import assert_typed

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def row(pid, blocked_by=None, *, state="active", seconds=10.0, **columns):
    start = NOW - timedelta(seconds=seconds)
    return {
        "pid": pid,
        "backend_start": NOW - timedelta(hours=1),
        "state": state,
        "query_start": start,
        "xact_start": start,
        "state_change": start,
        "query": "SELECT ?",
        "backend_type": "client backend",
        "application_name": "app",
        "usename": "joe",
        "datname": "shop",
        "blocked_by": blocked_by,
        **columns,
    }


def tree_of(*rows):
    backends = backends_of(rows, NOW, {})
    return build_lock_tree(backends, NOW)


def shape(backend):
    return {backend.pid: [shape(waiter) for waiter in backend.waiters]}


def test_it_puts_the_root_on_top_and_counts_everybody_behind_it():
    tree = tree_of(row(1, state="idle in transaction"), row(2, [1]), row(3, [2]), row(4, [1, 2]))

    assert [shape(root) for root in tree.roots] == [{1: [{2: [{3: []}, {4: []}]}]}]
    assert tree.roots[0].blocking == 3
    assert tree.blocked == 3


def test_it_shows_the_worst_root_first():
    tree = tree_of(row(1), row(2, [1]), row(5), row(6, [5]), row(7, [5]))

    assert [root.pid for root in tree.roots] == [5, 1]


def test_it_shows_a_prepared_transaction_as_a_root_without_a_backend():
    tree = tree_of(row(2, [0]))

    assert [shape(root) for root in tree.roots] == [{0: [{2: []}]}]
    assert tree.roots[0].state == "prepared transaction"


def test_it_cuts_a_deadlock_once():
    tree = tree_of(row(1, [2]), row(2, [1]), row(3, [2]))

    assert [shape(root) for root in tree.roots] == [{2: [{1: []}, {3: []}]}]
    assert tree.blocked == 3


def test_it_keeps_a_waiter_whose_blocker_has_gone():
    tree = tree_of(row(2, [99]))

    assert [shape(root) for root in tree.roots] == [{2: []}]


@pytest.mark.parametrize(
    ("state", "seconds", "long"),
    [("active", 5.1, True), ("active", 5.0, False), ("idle in transaction", 60, False)],
)
def test_it_marks_active_statements_over_5_seconds(state, seconds, long):
    (backend,) = backends_of([row(1, state=state, seconds=seconds)], NOW, {})

    assert backend.is_long is long


def test_it_orders_by_duration():
    backends = backends_of(
        [row(1, seconds=1), row(2, seconds=9), row(3, query_start=None)], NOW, {}
    )

    assert [backend.pid for backend in backends] == [2, 1, 3]


def test_it_gives_the_live_text_to_its_own_backend_only():
    rows = [row(1), row(2)]
    key = f"1:{rows[0]['backend_start'].isoformat()}"

    backends = backends_of(rows, NOW, {key: "SELECT 42"})

    assert {backend.pid: backend.query for backend in backends} == {1: "SELECT 42", 2: "SELECT ?"}


def test_it_exports_every_column():
    (backend,) = backends_of([row(1)], NOW, {})

    line = backend.export()
    assert tuple(line) == COLUMNS
    assert line["query_seconds"] == 10.0
    assert line["blocked_by"] == []
    assert_typed(line, BackendRow)


def test_it_sums_idle_backends_by_application_and_user():
    rows = [
        row(1, state="idle", seconds=9),
        row(2, state="idle", seconds=3),
        row(3),
        row(4, state="idle", usename="ann"),
    ]

    groups = sum_up_idle(backends_of(rows, NOW, {}))

    for group in groups:
        assert_typed(group, IdleRow)

    assert [(g["usename"], g["backends"], g["idle_seconds"]) for g in groups] == [
        ("joe", 2, 9.0),
        ("ann", 1, 10.0),
    ]
