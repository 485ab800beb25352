"""What an address asks of the pool calculator, and what it says of words without a meaning."""

from __future__ import annotations

import pytest
from django.http import QueryDict
from hypothesis import given, strategies as st

from monitors.rules.pool_words import ONCE, SERVICE, UNLIMITED, read, rows_of
from monitors.rules.pools import Limits, Service, Surge, answer


def asked_of(query, server=None):
    return read(dict(QueryDict(query).lists()), server)


def test_the_words_of_one_service_stand_as_they_are():
    asked = asked_of(
        "instances=2&processes=4&pool_size=25&max_overflow=10&max_connections=300&reserved=5"
    )

    assert asked.wrong == {}
    assert asked.question.services == (Service("", 2, 4, 25, 10),)
    assert (asked.question.limits.max_connections, asked.question.limits.reserved) == (300, 5)
    assert answer(asked.question).needed == 280


def test_the_nth_value_of_each_word_is_the_nth_services():
    asked = asked_of(
        "service=web&instances=4&pool_size=20&max_overflow=&service=worker&instances=2&pool_size="
        "&max_overflow=0&extra=&extra=3&via=&via=pgbouncer&pgbouncers=2"
    )

    assert asked.wrong == {}
    assert asked.question.services == (
        Service("web", 4, 1, 20, 10),
        Service("worker", 2, 1, 5, 0, extra=3, via_pgbouncer=True),
    )
    assert asked.question.pgbouncer is not None
    assert asked.question.pgbouncer.processes == 2


def test_an_empty_service_is_none_wherever_it_stands():
    asked = asked_of("instances=2&instances=&instances=3&pool_size=&pool_size=&pool_size=7")

    assert [one.instances for one in asked.question.services] == [2, 3]
    assert [one.pool_size for one in asked.question.services] == [5, 7]
    assert not asked_of("instances=&service=+&max_connections=200").is_asked


def test_a_load_is_one_when_both_of_its_words_are_there():
    demand = asked_of("xact_per_second=400&xact_ms=20.5").demand

    assert demand is not None
    assert demand.load == pytest.approx(8.2)
    half = asked_of("xact_per_second=400&xact_ms=")
    assert (half.demand, half.wrong) == (None, {})


def test_a_servers_own_figures_are_the_defaults():
    server = Limits(500, 13, for_privileged=10, databases={"shop": 20}, major=17)

    assert asked_of("pool_size=1", server).question.limits == server
    other = asked_of("pool_size=1&max_connections=50&reserved=4", server).question.limits
    assert (other.max_connections, other.reserved, other.for_privileged) == (50, 4, 4)
    assert other.databases == {"shop": 20}


@pytest.mark.parametrize(
    ("text", "surge"),
    [("", Surge()), ("2", Surge(2)), ("25%", Surge(pct=25)), ("12.5 %", Surge(pct=12.5))],
)
def test_a_deploy_is_told_in_instances_or_percent(text, surge):
    assert read({"surge": [text]}).question.surge == surge


@pytest.mark.parametrize(
    ("query", "word", "number", "said"),
    [
        ("instances=0", "instances", 0, "whole number from 1"),
        ("instances=4&instances=x", "instances", 1, "whole number from 1 to 100,000"),
        ("processes=1.5", "processes", 0, "whole number"),
        ("pool_size=0", "pool_size", 0, UNLIMITED),
        ("pool_size=5&max_overflow=-1", "max_overflow", 0, UNLIMITED),
        ("pool_size=5&max_overflow=²", "max_overflow", 0, "whole number"),
        ("pool_size=9999999999999", "pool_size", 0, "whole number"),
        ("max_connections=0", "max_connections", 0, "from 1 to 262,143"),
        ("max_connections=3&reserved=3", "reserved", 0, "smaller than max_connections"),
        ("surge=many", "surge", 0, "as 25%"),
        ("surge=999999%", "surge", 0, "as 25%"),
        ("via=odyssey", "via", 0, "pgbouncer"),
        ("via=pgbouncer", "pgbouncers", 0, "how many PgBouncer processes"),
        ("service=a%00b", "service", 0, "visible"),
        ("service=" + "x" * 64, "service", 0, "63"),
        ("xact_ms=0", "xact_ms", 0, "greater than 0"),
        ("xact_per_second=nan&xact_ms=5", "xact_per_second", 0, "greater than 0"),
        ("&".join(["instances=1"] * 51), "service", 0, "At most 50"),
    ],
)
def test_a_word_without_meaning_is_named_with_what_to_do(query, word, number, said):
    asked = asked_of(query)

    assert said in asked.wrong[word, number]
    assert len(asked.wrong) == 1
    assert word in asked.error


@given(
    st.dictionaries(
        st.sampled_from([*SERVICE, *ONCE]),
        st.lists(st.text(max_size=6) | st.integers(-3, 10**7).map(str), max_size=3),
    )
)
def test_whatever_is_typed_is_reckoned_or_refused_and_never_lost(words):
    asked = read(words)

    assert answer(asked.question).usable >= 0 or not asked.is_asked
    for number, row in enumerate(rows_of(words)):
        for word in SERVICE:
            values = words.get(word, [])
            assert row[word] == (values[number].strip() if number < len(values) else "")
