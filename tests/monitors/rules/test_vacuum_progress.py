"""ETA, its measured error, and the sentence that says why a vacuum is slow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitors.rules import vacuum_progress
from monitors.rules.vacuum_progress import Cost, cost_of, eta_of, pct_of, why_slow

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def sample(seconds, scanned=0, **fields):
    values = {
        "command": "VACUUM",
        "phase": "scanning heap",
        "started_at": START,
        "target_at": START + timedelta(seconds=seconds),
        "done": scanned,
        "total": 1000,
        "heap_blks_total": 1000,
        "heap_blks_scanned": scanned,
        "heap_blks_vacuumed": 0,
        "index_vacuum_count": 0,
        "indexes_total": None,
        "indexes_processed": None,
        "max_dead_tuples": None,
        "num_dead_tuples": None,
        "max_dead_tuple_bytes": None,
        "dead_tuple_bytes": None,
        "delay_time": None,
        "wait_event_type": None,
        "wait_event": None,
    }
    return values | fields


def steady(count=10, **fields):
    """A scan of 10 blocks each 10 s."""
    return [sample(10 * step, 10 * step, **fields) for step in range(count)]


def eta(rows, **options):
    found = eta_of(rows, **options)
    assert found is not None
    return found


def test_a_steady_scan_ends_when_its_speed_says_and_predicted_itself_without_error():
    found = eta(steady())

    assert found.seconds == pytest.approx(910)  # 910 blocks at one a second
    assert found.error_pct == pytest.approx(0)
    assert found.tested == 8  # all but the first and the last
    assert not found.whole


def test_what_an_earlier_run_did_after_the_phase_is_added():
    found = eta(
        steady(), after={"scanning heap": 50.0, "vacuuming indexes": 30.0, "vacuuming heap": 5.0}
    )

    assert (found.seconds, found.whole) == (pytest.approx(945), True)


def test_the_error_is_what_earlier_predictions_missed_by():
    """The first half went at twice the speed: predictions made there were half of the truth."""
    fast = [sample(10 * step, 20 * step) for step in range(6)]
    slow = [sample(50 + 10 * step, 100 + 10 * step) for step in range(1, 6)]

    assert (eta(fast + slow).error_pct or 0) > 10
    assert eta(fast).error_pct == pytest.approx(0)


def test_a_run_that_stands_still_or_was_seen_once_has_no_eta():
    assert eta_of([sample(0), sample(10), sample(20)]) is None
    assert eta_of([sample(0, 10)]) is None
    assert eta_of([]) is None


def test_few_samples_have_an_eta_and_no_error():
    found = eta(steady(4))

    assert found.error_pct is None
    assert found.seconds == pytest.approx(970)


def test_only_the_phase_and_pass_that_it_is_in_count():
    first = steady(5)
    indexes = [sample(50, 40, phase="vacuuming indexes", indexes_total=4, indexes_processed=0)]
    again = [sample(60 + 10 * s, 500 + 50 * s, index_vacuum_count=1) for s in range(4)]

    assert eta(first + indexes + again).seconds == pytest.approx(70)  # 350 at 5 a second


def test_the_second_heap_phase_goes_as_far_as_was_scanned():
    rows = [
        sample(10 * s, 500, phase="vacuuming heap", heap_blks_vacuumed=100 * s) for s in range(4)
    ]

    assert pct_of(rows[-1]) == 60
    assert eta(rows).seconds == pytest.approx(20)
    assert not eta(rows).whole  # the scan goes on after it


def test_index_phases_are_counted_where_the_server_does():
    known = sample(0, phase="vacuuming indexes", indexes_total=4, indexes_processed=1)
    unknown = sample(0, phase="vacuuming indexes")

    assert (pct_of(known), pct_of(unknown)) == (25, None)


@pytest.mark.parametrize(
    ("settings", "options", "limit", "delay", "workers"),
    [
        ({}, None, 100, 2, 2),  # the default 200, shared by two
        ({"autovacuum_vacuum_cost_limit": "-1", "vacuum_cost_limit": "400"}, None, 200, 2, 2),
        ({"autovacuum_vacuum_cost_limit": "1000"}, None, 500, 2, 2),
        ({}, ["autovacuum_vacuum_cost_limit=50"], 50, 2, 1),  # takes no part in the sharing
        ({}, ["autovacuum_vacuum_cost_delay=10"], 200, 10, 1),
        ({"autovacuum_vacuum_cost_delay": "-1", "vacuum_cost_delay": "5"}, None, 100, 5, 2),
    ],
)
def test_the_cost_limit_is_inherited_and_shared(settings, options, limit, delay, workers):
    assert cost_of(settings, options, autovacuum=True, workers=2) == Cost(limit, delay, workers)


def test_a_delay_of_0_is_no_limit_and_a_vacuum_by_hand_has_none():
    assert cost_of({"autovacuum_vacuum_cost_delay": "0"}, None, autovacuum=True, workers=1) is None
    assert cost_of({}, ["autovacuum_vacuum_cost_delay=0"], autovacuum=True, workers=1) is None
    assert cost_of({"vacuum_cost_delay": "0"}, None, autovacuum=False, workers=3) is None


def test_the_limit_in_pages_is_that_of_the_defaults():
    """200 each 2 ms: 100,000 found, 50,000 read, 5,000 dirtied pages a second."""
    cost = Cost(200, 2, 1)

    assert (cost.pages(1), cost.pages(2), cost.pages(20)) == (100_000, 50_000, 5000)


@pytest.mark.parametrize(
    ("fields", "pct"),
    [
        ({"num_dead_tuples": 50, "max_dead_tuples": 200}, 25),
        ({"dead_tuple_bytes": 10, "max_dead_tuple_bytes": 100}, 10),
        ({}, None),
    ],
)
def test_the_memory_for_dead_rows_is_told_on_every_version(fields, pct):
    assert vacuum_progress.memory_pct(sample(0, **fields)) == pct


def why(rows, seconds=600, *, holder="", cost=None):
    return why_slow(rows[-1], rows, START + timedelta(seconds=seconds), cost=cost, holder=holder)


def test_it_waits_for_a_lock():
    assert "waits for a lock" in why(steady(wait_event_type="Lock", wait_event="relation"))


def test_somebody_keeps_rows():
    assert why(steady(), holder="The transaction of backend 7").startswith("The transaction of")


def test_it_sleeps_as_the_server_measured():
    rows = [*steady(), sample(100, 100, delay_time=480_000.0)]  # ms, of 600 s

    said = why(rows, cost=Cost(200, 2, 2))

    assert said.startswith("It sleeps 80 % of its time for the cost limit: 200 per 2 ms")
    assert "(its share of 2 workers)" in said
    assert "4,545 pages/s" in said
    assert "it does 1." in said
    assert why([*steady(), sample(100, 100, delay_time=60_000.0)]) == ""


def test_it_sleeps_as_samples_saw():
    waiting = steady(10, wait_event_type="Timeout", wait_event="VacuumDelay")

    assert "in 100 % of 10 samples" in why(waiting)
    assert why(waiting[:6] + steady(10)[6:]) == ""  # 60 %
    assert why(waiting, seconds=30) == ""  # too young to be slow


def test_it_needs_several_passes():
    assert "full twice" in why(steady(index_vacuum_count=2))


def test_it_is_long_in_its_indexes():
    rows = [sample(100, phase="vacuuming indexes"), sample(590, phase="vacuuming indexes")]

    assert "vacuuming indexes for 8 min 20 s" in why(rows)
    assert why(rows, seconds=150) == ""


def test_it_waits_for_the_storage():
    assert "waits for the storage in 100 % of 10" in why(
        steady(wait_event_type="IO", wait_event="DataFileRead")
    )


def test_nothing_shows():
    assert why(steady()) == ""
