"""Autovacuum, replayed over recorded courses whose outcome is known by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from monitors.rules import simulator
from monitors.rules.simulator import Recording, Step, balanced, prove, simulate, trade_off

NAPTIME = 60.0
NO_ANALYZE = ["autovacuum_analyze_threshold=1000000"]


def step(number, **fields):
    """The minute that ends at `number` minutes; nothing happens in it unless it is said."""
    quiet = {"ins": 0.0, "upd": 0, "hot": 0, "deleted": 0, "live": 1000, "dead": 0, "mods": 0,
             "inserted": 0, "reltuples": 1000, "pages": 50, "visible": 0}  # fmt: skip
    return Step(at=number * NAPTIME, seconds=NAPTIME, **{**quiet, **fields})


def recording(*steps, **fields):
    first = step(0, **{name: value for name, value in fields.items() if name != "version"})
    return Recording(
        start=0.0, first=first, steps=steps, server_version=fields.get("version", 170004)
    )


def replay(*steps, options=NO_ANALYZE, settings=None, **fields):
    return simulate(recording(*steps, **fields), settings or {}, options)


@pytest.mark.parametrize(("deleted", "vacuums"), [(250, 0), (251, 1)])
def test_it_comes_beyond_the_threshold_and_not_at_it(deleted, vacuums):
    steps = (step(1, deleted=deleted, dead=deleted, live=1000 - deleted), step(2), step(3))

    assert len(replay(*steps).vacuums) == vacuums


def test_an_analyze_lowers_the_threshold_of_the_next_visit():
    rest = {"live": 750, "dead": 250, "reltuples": 1000}
    steps = (step(1, deleted=250, **rest), step(2, **rest), step(3, **rest))

    outcome = replay(*steps, options=None)

    assert outcome.analyzes == [60.0]
    assert [one.at for one in outcome.vacuums] == [120.0]  # 250 > 50 + 0.2 * 750


def test_eighteen_caps_the_threshold():
    steps = [step(n, deleted=100, dead=100 * n, reltuples=1e6, live=1e6) for n in range(1, 4)]
    options = [*NO_ANALYZE, "autovacuum_vacuum_max_threshold=150"]

    assert len(replay(*steps, options=options, reltuples=1e6, version=180000).vacuums) == 1
    assert not replay(*steps, options=options, reltuples=1e6, version=170000).vacuums


def test_inserts_alone_bring_a_vacuum():
    steps = (step(1, ins=1201.0, inserted=1201), step(2, inserted=1201))

    (run,) = replay(*steps).vacuums

    assert (run.at, run.reason) == (60.0, "inserts")


def test_frozen_pages_do_not_count_for_inserts_from_18_on():
    steps = [step(1, ins=1101.0, inserted=1101, frozen=25)]

    assert (
        len(replay(*steps, version=180000, frozen=25).vacuums) == 1
    )  # beyond 1000 + 0.2 * 1000 / 2
    assert not replay(*steps, version=170000, frozen=25).vacuums


def test_a_table_without_autovacuum_is_left_alone():
    steps = [step(n, deleted=300, dead=300 * n) for n in range(1, 5)]

    outcome = replay(*steps, options=["autovacuum_enabled=false"])

    assert not outcome.vacuums
    assert outcome.peak_dead == 1200


def test_after_a_gap_it_goes_on_from_what_was_read():
    steps = (step(1, deleted=200, dead=200), step(9, ins=None, dead=900), step(10, dead=900))

    outcome = replay(*steps)

    assert [one.at for one in outcome.vacuums] == [540.0]
    assert outcome.vacuums[0].dead == 900


def test_what_a_real_vacuum_could_not_remove_stays():
    held = [step(n, deleted=300, dead=300 * n, vacuumed=1, autovacuums=(n * NAPTIME - 1,))
            for n in range(1, 6)]  # fmt: skip

    outcome = replay(*held)

    assert len(outcome.vacuums) == 5  # each visit comes in vain
    assert outcome.peak_dead > 1000


def test_dead_rows_that_pruning_removed_are_not_counted():
    # 500 HOT updates a minute whose dead rows settle at 100.
    steps = [step(n, upd=500, hot=500, dead=100) for n in range(1, 30)]
    made_for_it = recording(*steps, dead=100)

    assert not simulate(made_for_it, {}, NO_ANALYZE).vacuums
    assert simulator.pruning_of(made_for_it) > 0


def test_what_was_rolled_back_is_replayed_as_it_was():
    steps = [step(n, dead=100 * n) for n in range(1, 5)]  # dead, though nothing was committed

    assert len(replay(*steps).vacuums) == 1


def test_a_smaller_scale_factor_means_fewer_dead_rows_and_more_vacuums():
    steps = [step(n, deleted=20, ins=20.0, dead=20 * n) for n in range(1, 200)]
    usual = replay(*steps)
    eager = replay(*steps, options=[*NO_ANALYZE, "autovacuum_vacuum_scale_factor=0.01"])

    assert len(eager.vacuums) > 2 * len(usual.vacuums)
    assert eager.usual_dead < usual.usual_dead / 2
    assert eager.io_bytes_a_day > usual.io_bytes_a_day


def test_room_that_a_vacuum_made_is_used_before_the_table_grows():
    steps = [step(n, deleted=20, ins=20.0, dead=20 * n) for n in range(1, 200)]
    never = replay(*steps, options=["autovacuum_enabled=off"])
    usual = replay(*steps)

    assert never.extra_pages == pytest.approx(199 * 20 / 20)  # 20 rows a page
    assert usual.extra_pages < never.extra_pages / 5


def test_a_low_cost_limit_keeps_a_worker_busy_and_makes_it_late():
    steps = [step(n, deleted=300, ins=300.0, dead=300 * n, pages=100_000) for n in range(1, 50)]
    slow = {"autovacuum_vacuum_cost_limit": "20", "autovacuum_vacuum_cost_delay": "20"}

    outcome = replay(*steps, settings=slow, pages=100_000)

    assert outcome.busy_share > 0.9
    assert outcome.late > 0


def test_the_proof_counts_each_run_once():
    steps = [
        step(n, deleted=100, dead=100 * (n % 3), vacuumed=not n % 3, autovacuum_count=not n % 3,
             autovacuums=(n * NAPTIME - 5,) if not n % 3 else ())
        for n in range(1, 31)
    ]  # fmt: skip

    proof = prove(recording(*steps), {}, NO_ANALYZE)

    assert (proof.real, proof.met) == (10, 10)
    assert proof.recall_pct == 100
    assert prove(recording(*steps), {}, ["autovacuum_enabled=off"]).met == 0


def test_the_proof_never_says_all_of_a_part():
    steps = [
        step(n, deleted=300, dead=0, vacuumed=15, autovacuum_count=14,
             autovacuums=(n * NAPTIME - 5,))
        for n in range(1, 6)
    ]  # fmt: skip
    steps.append(step(9, ins=None, autovacuum_count=2))

    proof = prove(recording(*steps), {}, NO_ANALYZE)

    assert (proof.real, proof.timed, proof.met) == (70, 5, 5)
    assert (proof.by_hand, proof.in_gaps) == (5, 2)
    assert proof.recall_pct is None
    assert not proof.agrees  # 5 of the replay are not 70


def steady(**fields):
    """Five hours in which 20 rows a minute die and as many are written."""
    steps = [step(n, deleted=20, ins=20.0, dead=20 * n) for n in range(1, 300)]
    return replace(recording(*steps), **fields)


def test_nothing_on_the_trade_off_beats_another():
    line = trade_off(steady(reads_a_day=20_000.0), {}, NO_ANALYZE)

    costs = [one.costs for one in line]
    assert len(costs) > 1
    assert costs == sorted(costs)
    assert [work for _, work in costs] == sorted((work for _, work in costs), reverse=True)
    assert balanced(line) in line
    assert balanced([]) is None


def test_what_nobody_reads_is_not_vacuumed_more_often():
    course = steady()
    eager = [*NO_ANALYZE, "autovacuum_vacuum_scale_factor=0.02"]

    best = balanced(trade_off(course, {}, eager))

    usual = simulate(course, {}, eager)
    assert best
    assert len(best.outcome.vacuums) < len(usual.vacuums)
    assert best.outcome.total_bytes_a_day < usual.total_bytes_a_day


def test_dead_rows_of_a_table_whose_pages_were_never_counted_cost_something_too():
    counted = recording(*(step(n, dead=60 * n, pages=10) for n in range(1, 10)))
    fresh = recording(*(step(n, dead=60 * n, pages=0, size_pages=10) for n in range(1, 10)))

    assert fresh.dead_row_bytes == counted.dead_row_bytes > 0
    assert simulate(fresh, {}, NO_ANALYZE).dead_bytes_a_day > 0


def test_what_is_read_often_is_vacuumed_more_often():
    course = steady(reads_a_day=20_000.0)

    best = balanced(trade_off(course, {}, NO_ANALYZE))

    usual = simulate(course, {}, NO_ANALYZE)
    assert best
    assert len(best.outcome.vacuums) > len(usual.vacuums)
    assert best.outcome.total_bytes_a_day < usual.total_bytes_a_day


@pytest.mark.parametrize("reads", [1.0, 1e3, 1e5, 1e7, 1e9])
def test_no_choice_is_proposed_that_the_naptime_decides_or_that_costs_more(reads):
    steps = [step(n, deleted=60, ins=60.0, dead=60 * n) for n in range(1, 300)]
    course = replace(recording(*steps), reads_a_day=reads)
    usual = simulate(course, {}, NO_ANALYZE)

    line = trade_off(course, {}, NO_ANALYZE)

    for one in line:
        assert one.outcome.vacuums_a_day <= 86400 / NAPTIME / 2
        assert one.outcome.total_bytes_a_day < usual.total_bytes_a_day
    eager = simulate(
        course,
        {},
        [*NO_ANALYZE, "autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=50"],
    )
    assert eager.is_pressed


def test_a_choice_under_which_no_vacuum_fell_into_the_window_is_not_free():
    steps = [step(n, deleted=20, ins=20.0, dead=20 * n) for n in range(1, 12)]  # up to 220
    usual = replay(*steps)

    assert not usual.vacuums
    assert usual.io_bytes_a_day == 0
    assert usual.work_bytes_a_day > 0


def busy(number):
    """60,000 rows of which 12,000 a minute are updated."""
    return {"upd": 12_000, "dead": min(12_000 * (number % 2), 12_000), "live": 60_000}


def bursts(number):
    """50,000 of 60,000 rows are updated at once, every hour."""
    return {"upd": 50_000 if number % 60 == 1 else 100, "dead": 50_000, "live": 60_000}


def queue(number):
    """500 rows a minute come and go; few are there."""
    return {"ins": 500.0, "deleted": 500, "dead": 500, "live": 200}


def growing(number):
    """A table that grows from 10,000 to 100,000 rows, with some updates."""
    return {"ins": 600.0, "upd": 900, "dead": 900, "live": 10_000 + 600 * number}


@pytest.mark.parametrize("naptime", ["5", "60"])
@pytest.mark.parametrize("reads", [1.0, 50.0, 1e4])
@pytest.mark.parametrize("factor", ["0.01", "0.2", "0.5"])
@pytest.mark.parametrize("shape", [busy, bursts, queue, growing])
def test_no_more_dead_rows_are_proposed_than_now_or_a_fifth_of_the_live_ones(
    shape, factor, reads, naptime
):
    rest = {"reltuples": shape(1)["live"], "pages": 3000}
    steps = [step(n, **rest, **shape(n)) for n in range(1, 151)]
    course = replace(
        recording(*steps, **rest, live=shape(1)["live"]), reads_a_day=reads, index_pages=500
    )
    options, settings = [*NO_ANALYZE, f"autovacuum_vacuum_scale_factor={factor}"], {}
    settings["autovacuum_naptime"] = naptime
    usual = simulate(course, settings, options)
    fifth = sum(one.live for one in steps) / len(steps) / 5

    for one in trade_off(course, settings, options):
        assert one.outcome.usual_dead <= max(usual.usual_dead, fifth)
        assert one.outcome.peak_dead <= max(usual.peak_dead, fifth)


rows = st.integers(0, 3000)


@given(st.lists(st.tuples(rows, rows, rows), min_size=1, max_size=40), st.integers(0, 50))
def test_dead_rows_are_never_negative_nor_more_than_were_made(course, start):
    dead, steps = start, []
    for number, (ins, upd, deleted) in enumerate(course, 1):
        dead += upd + deleted
        steps.append(step(number, ins=float(ins), upd=upd, deleted=deleted, dead=dead))

    outcome = replay(*steps, dead=start)

    made = start + sum(upd + deleted for _, upd, deleted in course)
    assert all(0 <= value <= made + 1e-6 for _, value in outcome.dead)
    assert sum(one.dead for one in outcome.vacuums) <= made + 1e-6
