"""The Query page: one statement's course, and whether it became slower."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.pages.query import QueryRow
from monitors.rows.statements import COLUMNS
from tests.dashboard.pages.statements import Statements, grown
from tests.people import browser_of, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db


@pytest.fixture
def target():
    return make_target()


@pytest.fixture
def statements(target):
    return Statements(target)


@pytest.fixture
def client():
    return browser_of(person("viewer", "viewer"))


@pytest.fixture
def read(target, statements, client):
    """A function from a latest row to its read, over the time that the target was read."""

    def get(row, query=""):
        start, end = (int(moment.timestamp()) for moment in (statements.begun, timezone.now()))
        address = f"/targets/{target.name}/queries/{row.pk}/?from={start}&to={end}{query}"
        response = client.get(address)
        assert response.status_code == 200
        return response.getvalue().decode()

    return get


def chart(text: str, name: str) -> Any:
    found = re.search(rf'<template id="{name}-data">(.*?)</template>', text)
    assert found
    return json.loads(found[1])


def test_it_says_what_it_cost_and_its_share(read, statements):
    row = statements.add(1, grown(10, 250.0))
    statements.add(2, grown(1, 750.0))

    assert "It took 250 ms in 10 calls, 25.0 % of this target&#x27;s execution time" in read(row)


def test_it_became_slower_is_said_with_figures(read, statements):
    row = statements.add(1, grown(10, 20.0, minute=3), grown(20, 120.0, minute=35))

    text = read(row)

    assert "It became slower: 6.0 ms a call in the second half of this window" in text
    assert "2.0 ms in the first, 3.0 times as much." in text
    assert 'class="verdict" data-level="warning"' in text


@pytest.mark.parametrize(
    ("late_ms", "words"),
    [(240.0, "Its time a call is steady"), (40.0, "It became faster"), (400.0, "became slower")],
)
def test_small_differences_are_no_change(read, statements, late_ms, words):
    row = statements.add(1, grown(20, 220.0, minute=3), grown(20, late_ms, minute=35))

    assert words in read(row)


def test_one_half_alone_is_compared_with_nothing(read, statements):
    row = statements.add(1, grown(20, 220.0, minute=35))

    assert "It was called in the second half of this window alone." in read(row)


def test_the_mean_of_a_bucket_without_calls_is_not_known(read, statements):
    row = statements.add(1, grown(4, 10.0, minute=3, rows=12), grown(2, 4.0, minute=5))

    text = read(row)

    means = [one for one in chart(text, "mean")["series"][0]["values"] if one is not None]
    assert means == [pytest.approx(2.5), pytest.approx(2.0)]
    assert [one for one in chart(text, "rows")["series"][0]["values"] if one] == [3.0]
    calls = [one for one in chart(text, "calls")["series"][0]["values"] if one is not None]
    assert len(calls) > len(means)
    assert sum(calls) * 60 == pytest.approx(6, rel=0.05)


def test_the_text_is_whole_escaped_and_can_be_copied(read, statements):
    long = "SELECT '<script>' " + ", a" * 500 + ", the_end"
    text = read(statements.add(1, grown(1, 1.0), query=long))

    assert "the_end" in text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "data-copy" in text


def test_it_links_to_the_same_text_elsewhere(read, statements):
    row = statements.add(1, grown(1, 1.0))
    nested = statements.add(1, grown(3, 1.0), toplevel=False)
    another = statements.add(1, grown(2, 1.0), userid=11, usename="batch")
    statements.add(2, grown(2, 1.0))

    text = read(row)
    elsewhere = text[text.index("The same text elsewhere") :]

    linked = {int(found) for found in re.findall(r"/queries/(\d+)/", elsewhere)}
    assert {nested.pk, another.pk} <= linked
    assert "batch in shop" in elsewhere


def test_a_statement_that_was_evicted_keeps_its_page(read, statements):
    row = statements.add(1, grown(1, 1.0), gone_at=timezone.now() - timedelta(minutes=1))

    assert "it was evicted or reset" in read(row)
    before = int(statements.at(20).timestamp())
    assert "it was evicted or reset" not in read(row, f"&to={before}")


def test_one_that_was_not_called_says_so(read, statements):
    assert "It was not called in this window." in read(statements.add(1))


def test_the_export_is_its_row_of_the_list(read, statements):
    (row,) = json.loads(read(statements.add(1, grown(2, 3.0)), "&format=json"))

    assert tuple(row) == COLUMNS
    assert (row["calls"], row["mean_exec_time_ms"], row["share_pct"]) == (2, 1.5, 100)


def test_a_statement_of_another_target_is_not_found(statements, client):
    row = statements.add(1, grown(1, 1.0))
    make_target("other")

    assert client.get(f"/targets/other/queries/{row.pk}/").status_code == 404
    assert client.get(f"/targets/shop-1/queries/{row.pk + 1}/").status_code == 404


@pytest.mark.parametrize("growths", [(), (grown(10, 20.0), grown(20, 120.0, minute=35))])
def test_its_row_is_what_its_type_says(target, statements, client, growths):
    row = statements.add(1, *growths)
    statements.add(1, grown(1, 1.0), dbid=6)

    shown = client.get(f"/targets/{target.name}/queries/{row.pk}/")

    assert bool(shown.context["row"]["calls"]) == bool(growths)
    assert_typed(shown.context["row"], QueryRow)
    for other in shown.context["others"]:
        assert_typed(other, QueryRow)
