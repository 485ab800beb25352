"""Lock queues: who is at the root, how many wait, and what ends it."""

from __future__ import annotations

import time

import pytest

from monitors.advisor import Severity
from monitors.advisors.blocked import ADVISOR, roots, victims_of
from tests.monitors.advisors.rows import advise, ago, backend, idle_in_transaction, waiting

FOUND = {"activity": [backend(1), waiting(2, [1])]}
"""Facts in which it finds something."""

HIDDEN = {
    "state": "disabled",
    "query": None,
    "query_start": None,
    "xact_start": None,
    "state_change": None,
}


def test_it_says_nothing_where_nobody_waits():
    assert advise(ADVISOR, activity=[backend(), idle_in_transaction(2)]) == []


def test_it_names_the_root_of_a_chain_and_not_its_middle():
    activity = [
        idle_in_transaction(4321, seconds=3720),
        waiting(5107, [4321]),
        waiting(5122, [5107, 4321]),
        waiting(5130, [5122]),
    ]

    [finding] = advise(ADVISOR, activity=activity)

    assert finding.title == (
        "Backend 4321 (billing-api), idle in transaction for 1 h 02 min, blocks 3 backends."
    )
    assert finding.action == "terminate_backend"
    assert finding.pid == 4321


def test_it_offers_to_cancel_a_root_that_runs_a_statement():
    [finding] = advise(ADVISOR, activity=[backend(4321), waiting(5107, [4321])])

    assert finding.action == "cancel_backend"
    assert finding.arguments["pid"] == "4321"


def test_it_says_a_finding_for_each_root():
    activity = [backend(1), backend(2), waiting(3, [1]), waiting(4, [2]), waiting(5, [1, 2])]

    found = advise(ADVISOR, activity=activity)

    assert [
        (finding.pid, dict(map(label_and_value, finding.evidence))["Blocked"]) for finding in found
    ] == [
        (1, 2),
        (2, 2),
    ]


def label_and_value(evidence):
    return evidence[:2]


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [
        (5, Severity.NOTICE),
        (6, Severity.WARNING),
        (300, Severity.WARNING),
        (301, Severity.CRITICAL),
    ],
)
def test_it_is_worse_the_longer_somebody_waits(seconds, severity):
    [finding] = advise(ADVISOR, activity=[backend(1), waiting(2, [1], seconds=seconds)])

    assert finding.severity == severity


@pytest.mark.parametrize(("count", "severity"), [(4, Severity.NOTICE), (5, Severity.CRITICAL)])
def test_it_is_critical_where_many_wait(count, severity):
    victims = [waiting(pid, [1], seconds=1) for pid in range(2, 2 + count)]

    [finding] = advise(ADVISOR, activity=[backend(1), *victims])

    assert finding.severity == severity


def test_a_prepared_transaction_is_a_root_without_a_backend():
    [finding] = advise(ADVISOR, activity=[waiting(5107, [0])])

    assert finding.title == "A prepared transaction blocks 1 backend."
    assert "ROLLBACK PREPARED" in finding.why
    assert finding.action == ""


def test_it_offers_nothing_against_autovacuum_and_howdah_itself():
    worker = backend(1, backend_type="autovacuum worker", application_name="")
    ours = backend(3, ours=True)

    found = advise(ADVISOR, activity=[worker, waiting(2, [1]), ours, waiting(4, [3])])

    assert [finding.action for finding in found] == ["", ""]
    assert "Autovacuum gives way by itself" in found[0].why


def test_a_circle_has_its_lowest_pid_for_a_root():
    waits = {3: frozenset({4}), 4: frozenset({5}), 5: frozenset({3}), 6: frozenset({5})}

    assert roots(waits) == {3}
    assert victims_of(3, waits) == {4, 5, 6}


def test_a_queue_of_two_hundred_that_all_name_each_other_takes_no_time():
    waits = {pid: frozenset(range(1, pid)) for pid in range(2, 202)}
    began = time.perf_counter()

    assert roots(waits) == {1}
    assert len(victims_of(1, waits)) == 200
    assert time.perf_counter() - began < 1


def test_it_hurts_since_the_first_statement_that_waits_began():
    activity = [backend(1), waiting(2, [1], seconds=10), waiting(3, [2], seconds=40)]

    [one] = advise(ADVISOR, activity=activity)

    assert (one.hurts_already, one.hurts_at) == (True, ago(40))


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("disabled", "What the root does is not known, since its track_activities is off; only"),
        (None, "What the root does is not known; only terminating it surely frees the others"),
        ("idle", "The root holds an advisory lock while it is idle"),
        ("fastpath function call", "Cancelling the root's statement frees them"),
    ],
)
def test_it_tells_a_way_out_by_what_is_known_of_the_root(state, says):
    root = backend(1, **HIDDEN | {"state": state})

    [finding] = advise(ADVISOR, activity=[root, waiting(2, [1])])

    assert says in finding.why
    assert ("advisory" in finding.why) == (state == "idle")
    assert finding.action == ""


@pytest.mark.parametrize(("seconds", "severity"), [(5, Severity.NOTICE), (6, Severity.WARNING)])
def test_where_statements_are_hidden_the_wait_for_the_lock_decides(seconds, severity):
    victim = backend(2, **HIDDEN, wait_event_type="Lock", blocked_by=[1], waitstart=ago(seconds))

    [finding] = advise(ADVISOR, activity=[backend(1, **HIDDEN), victim])

    assert finding.severity == severity
    assert finding.why.startswith(f"The longest wait that is known began {seconds} s ago.")
    assert ("Longest wait", seconds, "seconds") in finding.evidence
    assert finding.hurts_at == ago(seconds)


def test_a_wait_of_which_nothing_is_known_is_not_called_0_s():
    victim = backend(2, **HIDDEN, wait_event_type="Lock", blocked_by=[1])

    [finding] = advise(ADVISOR, activity=[backend(1), victim])

    assert finding.why.startswith("How long they have waited is not known.")
    assert [label for label, _, unit in finding.evidence if unit == "seconds"] == []
    assert finding.hurts_at is None
