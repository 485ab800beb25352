"""The pool calculator against a table that was reckoned by hand, and what holds of every answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from monitors.rules.pools import (
    CLIENTS,
    MEMORY,
    PER_REQUEST,
    POOL,
    POOLER,
    TOO_LARGE,
    USABLE,
    VERDICTS,
    Limits,
    PgBouncer,
    Pool,
    Question,
    Service,
    Surge,
    Traffic,
    answer,
    mistakes_in,
)
from monitors.rules.refusals import NO_MORE_CLIENTS, TOO_MANY


def web(instances=1, processes=1, size=5, overflow=10, **more):
    return Service("web", instances, processes, size, overflow, **more)


def one_pool(size, reserve=0, **more):
    return PgBouncer(pools=(Pool("shop", "web", size, reserve),), **more)


SHOP = Limits(databases={"shop": 20})
TWO = (Pool("shop", "a", 20, 5), Pool("shop", "b", 20, 5), Pool("blog", "a", 20, 5))

# services, max_connections, reserved, more of the question, more of the limits
# -> needed, usable, verdict, first limit
TABLE: dict[str, tuple[Any, ...]] = {
    "quiz: four workers of 25 and 10": ([web(1, 4, 25, 10)], 100, 3, {}, {}, 140, 97, "exceeds", USABLE),
    "the same as instances": ([web(4, 1, 25, 10)], 100, 3, {}, {}, 140, 97, "exceeds", USABLE),
    "pool_size 100 on 100": ([web(1, 4, 100, 50)], 100, 0, {}, {}, 600, 100, "exceeds", USABLE),
    "45 each of 180": ([web(1, 4, 40, 5)], 200, 20, {}, {}, 180, 180, "tight", USABLE),
    "one more than 180": ([web(1, 4, 40, 5, extra=1)], 200, 20, {}, {}, 181, 180, "exceeds", USABLE),
    "ten for each of four workers": ([web(1, 4, 10, 0)], 100, 3, {}, {}, 40, 97, "fits", POOL),
    "85 % is not tight": ([web(1, 1, 85, 0)], 100, 0, {}, {}, 85, 100, "fits", POOL),
    "86 % is": ([web(1, 1, 86, 0)], 100, 0, {}, {}, 86, 100, "tight", POOL),
    "defaults of SQLAlchemy": ([Service()], 100, 3, {}, {}, 15, 97, "fits", POOL),
    "two services": ([web(4, 2), web(2, 8, 1, 0)], 200, 3, {}, {}, 136, 197, "fits", POOL),
    "cron beside them": ([web(2, 2, 5, 5, extra=7)], 100, 3, {}, {}, 47, 97, "fits", POOL),
    "people and monitoring": (
        [web(1, 4, 20, 2)], 100, 3, {}, {"people": 5, "monitoring": 3}, 96, 97, "tight", POOL),
    "one person too many": (
        [web(1, 4, 20, 2)], 100, 3, {}, {"people": 7, "monitoring": 3}, 98, 97, "exceeds", USABLE),
    "nothing but people": ([], 100, 3, {"pgbouncer": one_pool(1)}, {"people": 5}, 6, 97, "fits", POOLER),
    "a deploy of a quarter": ([web(4, 1, 20, 0)], 100, 3, {"surge": Surge(pct=25)}, {}, 100, 97, "exceeds", USABLE),
    "a share is rounded up": ([web(3, 1, 10, 0)], 100, 3, {"surge": Surge(pct=25)}, {}, 40, 97, "fits", POOL),
    "a deploy of one more": ([web(3, 2, 10, 5)], 200, 3, {"surge": Surge(1)}, {}, 120, 197, "fits", POOL),
    "old and new in full": ([web(2, 1, 15, 5)], 100, 3, {"surge": Surge(pct=100)}, {}, 80, 97, "fits", POOL),
    "a PgBouncer alone": ([], 100, 3, {"pgbouncer": one_pool(20, 5)}, {}, 25, 97, "fits", POOLER),
    "four PgBouncers": (
        [], 100, 3, {"pgbouncer": replace(one_pool(20, 5), processes=4)}, {}, 100, 97, "exceeds", USABLE),
    "capped by database": (
        [], 100, 3, {"pgbouncer": PgBouncer(pools=TWO, max_db_connections=30)}, {}, 55, 97, "fits", POOLER),
    "capped by user": (
        [], 100, 3, {"pgbouncer": PgBouncer(pools=TWO, max_user_connections=30)}, {}, 55, 97, "fits", POOLER),
    "capped by both": (
        [], 100, 3,
        {"pgbouncer": PgBouncer(pools=TWO, max_db_connections=30, max_user_connections=20)}, {},
        40, 97, "fits", POOLER),
    "through a PgBouncer": (
        [web(4, 1, 20, 5, via_pgbouncer=True)], 100, 3,
        {"pgbouncer": one_pool(20, 5)}, {}, 25, 97, "fits", CLIENTS),
    "too many clients of it": (
        [web(5, 1, 20, 5, via_pgbouncer=True)], 100, 3,
        {"pgbouncer": one_pool(20, 5)}, {}, 25, 97, "exceeds", CLIENTS),
    "one through it, one beside": (
        [web(4, 1, 20, 0, via_pgbouncer=True), web(1, 1, 40, 0)], 100, 3,
        {"pgbouncer": one_pool(20)}, {}, 60, 97, "fits", POOL),
    "the database's limit": (
        [web(1, 3, 7, 0, database="shop")], 100, 3, {}, {"databases": {"shop": 20}},
        21, 97, "exceeds", "CONNECTION LIMIT of database shop"),
    "of both services together": (
        [web(1, 1, 11, 0, database="shop"), web(1, 1, 10, 0, database="shop")], 100, 3, {},
        {"databases": {"shop": 20}}, 21, 97, "exceeds", "CONNECTION LIMIT of database shop"),
    "of another database": (
        [web(1, 3, 7, 0, database="blog")], 100, 3, {}, {"databases": {"shop": 20}},
        21, 97, "fits", POOL),
    "the role's limit": (
        [web(1, 3, 7, 0, connection_limit=20)], 100, 3, {}, {},
        21, 97, "exceeds", "CONNECTION LIMIT of the role of web"),
    "the server before the role": (
        [web(1, 20, 10, 0, connection_limit=190)], 100, 3, {}, {}, 200, 97, "exceeds", USABLE),
    "memory for none of them": ([web(1, 4, 10, 0)], 100, 3, {}, {"memory_mb": 100}, 40, 97, "exceeds", MEMORY),
    "memory that may not do": ([web(1, 4, 10, 0)], 100, 3, {}, {"memory_mb": 500}, 40, 97, "tight", POOL),
    "memory that does": ([web(1, 4, 10, 0)], 100, 3, {}, {"memory_mb": 560}, 40, 97, "fits", POOL),
    "no slot is left at all": ([web()], 5, 5, {}, {}, 15, 0, "exceeds", USABLE),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_an_answer_is_the_one_reckoned_by_hand(name):
    services, most, reserved, more, kept, needed, usable, verdict, first = TABLE[name]

    found = answer(Question(tuple(services), Limits(most, reserved, **kept), **more))

    assert (found.needed, found.usable) == (needed, usable)
    assert (found.verdict, found.first_limit) == (verdict, first)
    assert found.left == usable - needed


def test_what_clients_are_told_goes_with_the_limit_that_breaks_first():
    quiz = Question((web(1, 4, 25, 10),), Limits(100, 3, major=18))
    without = replace(quiz, limits=Limits(100, 0, major=18))
    fits = replace(quiz, limits=Limits(500, 3, major=18))
    clients = Question((web(1, 4, 25, 10, via_pgbouncer=True),), pgbouncer=one_pool(20))

    assert answer(quiz).errors[0].endswith("reserved for roles with the SUPERUSER attribute")
    assert TOO_MANY in answer(quiz).errors
    assert answer(without).errors == (TOO_MANY,)
    assert answer(fits).errors == (
        "QueuePool limit of size 25 overflow 10 reached, connection timed out, timeout 30.00",
    )
    assert answer(clients).errors == (NO_MORE_CLIENTS,)


def test_what_fits_but_for_a_deploy_is_told_apart():
    deploy = Question((web(4, 1, 20, 0),), surge=Surge(1))

    assert answer(deploy).only_deploy
    assert answer(deploy).needed_without_deploy == 80
    assert not answer(replace(deploy, surge=Surge())).only_deploy
    assert not answer(replace(deploy, services=(web(5, 1, 20, 0),))).only_deploy


def test_memory_is_said_as_a_range():
    found = answer(Question((web(1, 4, 10, 0),), Limits(work_mem_mb=64)))

    assert found.memory_least_bytes == 40 * 5 * 1024**2
    assert found.memory_most_bytes == 40 * 74 * 1024**2


small = st.integers(0, 60)
services = st.builds(
    Service,
    name=st.just("web"),
    instances=st.integers(1, 9),
    processes=st.integers(1, 9),
    pool_size=st.integers(1, 40),
    max_overflow=small,
    extra=small,
    connection_limit=st.none() | small,
    database=st.sampled_from(["shop", "blog"]),
    via_pgbouncer=st.booleans(),
)
questions = st.builds(
    Question,
    services=st.lists(services, min_size=1, max_size=3).map(tuple),
    limits=st.builds(
        Limits,
        max_connections=st.integers(1, 3000),
        reserved=st.integers(0, 20),
        people=small,
        databases=st.just({"shop": 90}),
        memory_mb=st.none() | st.integers(1, 20_000),
    ),
    surge=st.builds(Surge, instances=st.integers(0, 3), pct=st.integers(0, 100)),
    pgbouncer=st.builds(one_pool, st.integers(1, 60), max_client_conn=st.integers(1, 900)),
)


@given(question=questions, more=st.integers(1, 50), field=st.sampled_from(
    ["instances", "processes", "pool_size", "max_overflow", "extra"]
))  # fmt: skip
def test_more_connections_never_make_a_verdict_better(question, more, field):
    first, *others = question.services
    larger = replace(first, **{field: getattr(first, field) + more})
    before, after = answer(question), answer(replace(question, services=(larger, *others)))

    assert VERDICTS.index(after.verdict) >= VERDICTS.index(before.verdict)
    assert after.needed >= before.needed
    assert (before.verdict == "exceeds") is any(check.breaks for check in before.checks)
    assert (before.verdict == "exceeds") is any(check.share < 1 for check in before.checks)


@pytest.mark.parametrize(
    ("traffic", "found"),
    [
        (Traffic(1.0, 4.9, 10, 9, 97), [PER_REQUEST]),
        (Traffic(0.9, 1.0, 10, 9, 97), []),
        (Traffic(50, 5.0, 10, 9, 97), []),
        (Traffic(0, 100, 78, 60, 97), [TOO_LARGE]),
        (Traffic(0, 100, 77, 60, 97), []),
        (Traffic(0, 100, 90, 45, 97), []),
        (Traffic(30, 1, 97, 90, 97), [PER_REQUEST, TOO_LARGE]),
        (Traffic(), []),
        (Traffic(None, 1, 97, None, 97), []),
        (Traffic(5, None, None, 3, None), []),
    ],
)
def test_a_mistake_is_seen_from_its_threshold_on_and_never_guessed(traffic, found):
    assert mistakes_in(traffic) == found
