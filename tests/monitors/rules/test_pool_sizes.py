"""The sizes that are proposed fit, and the lines to paste say just them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from monitors.rules.pool_sizes import (
    TIMES,
    lines_for,
    max_connections_for,
    most_per_process,
    recommended_pool,
    spell_sum,
    split,
)
from monitors.rules.pools import TIGHT, Limits, PgBouncer, Pool, Question, Service, Surge, answer

QUIZ = Question((Service("web", 1, 4, 25, 10),))


@given(
    instances=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    processes=st.integers(1, 8),
    most=st.integers(10, 2000),
    people=st.integers(0, 9),
    pct=st.sampled_from([0, 25, 100]),
)
def test_what_is_proposed_fits_and_one_more_does_not(instances, processes, most, people, pct):
    services = tuple(Service("web", count, processes) for count in instances)
    limits = Limits(max_connections=most, people=people)
    question = Question(services, limits, Surge(pct=pct))

    def with_size(size: int) -> Question:
        sized = tuple(replace(one, pool_size=size, max_overflow=0) for one in services)
        return replace(question, services=sized)

    at_most, with_room = most_per_process(question), most_per_process(question, room=TIGHT)

    assert answer(with_size((at_most or 0) + 1)).verdict == "exceeds"
    if at_most is not None:
        assert answer(with_size(at_most)).verdict != "exceeds"
    if with_room is not None:
        assert answer(with_size(with_room)).verdict == "fits"
        assert at_most is not None
        assert at_most >= with_room
    admits = replace(limits, max_connections=max_connections_for(question))
    assert answer(replace(question, limits=admits)).verdict == "fits"


def test_the_quiz_gets_24_or_20_for_each_worker_or_170_connections():
    assert most_per_process(QUIZ) == 24
    assert most_per_process(QUIZ, room=TIGHT) == 20
    assert max_connections_for(QUIZ) == 170  # 140 / 0.85 + 3
    assert split(45) == (40, 5)


@pytest.mark.parametrize(
    ("demand", "cores", "size"),
    [(10, 8, 13), (10, None, 13), (0, 8, 5), (3, None, 5), (30, 8, 32), (24, 8, 32), (7, 1, 4)],
)
def test_a_pool_is_recommended_by_demand_and_cores(demand, cores, size):
    assert recommended_pool(demand, cores) == size


def test_the_lines_say_the_size_and_what_a_change_needs():
    lines = {one.tool: one for one in lines_for(QUIZ, 20)}

    assert "pool_size=18,\n    max_overflow=2," in lines["SQLAlchemy"].text
    assert '"max_size": 20' in lines["Django"].text
    assert "max_size=20" in lines["psycopg_pool"].text
    assert lines["Celery"].text == "worker_concurrency = 20"
    assert "maximumPoolSize=20" in lines["HikariCP"].text
    assert lines["PostgreSQL"].text == "max_connections = 170"
    assert "restart" in lines["PostgreSQL"].note
    assert lines["PgBouncer"].text.splitlines() == [
        "pool_mode = transaction",
        "default_pool_size = 20",
        "reserve_pool_size = 5",
        "max_db_connections = 25",
        "max_client_conn = 200",
    ]
    assert "default_pool_size = 11" in lines_for(QUIZ, 20, pooled=11)[5].text
    assert [one.tool for one in lines_for(QUIZ, None)] == ["PgBouncer", "PostgreSQL"]


@given(st.integers(2, 500), st.none() | st.integers(1, 3000))
def test_a_proposed_pgbouncer_fits_into_the_server(most, pooled):
    question = replace(QUIZ, limits=Limits(max_connections=most, reserved=1))
    values = dict(line.split(" = ") for line in lines_for(question, 1, pooled)[5].text.splitlines())

    assert int(values["max_db_connections"]) <= math.ceil(question.limits.usable)
    assert int(values["max_client_conn"]) >= 140


def test_a_sum_is_spelled_as_people_write_it():
    services = (
        Service("web", 4, 1, 25, 10),
        Service("worker", 2, 3, 5, 0, extra=2),
        Service("far", via_pgbouncer=True),
    )
    pooler = PgBouncer(pools=(Pool("shop", "web", 20, 5),))
    question = Question(services, Limits(people=5), Surge(pct=25), pooler)

    assert spell_sum(question).replace(TIMES, " x ") == (
        "(4 + 1) x (25 + 10) + (2 + 1) x 3 x (5 + 0) + 2 + 25 of PgBouncer + 5 kept"
    )
    assert spell_sum(Question((Service(),))) == "(5 + 10)"
    assert spell_sum(Question()) == "0"
