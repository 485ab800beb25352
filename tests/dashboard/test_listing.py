"""A table of a page: filter, order and pages."""

from __future__ import annotations

import pytest
from django.core.exceptions import BadRequest
from django.test import RequestFactory

from dashboard.frame.listing import listing_of

ROWS = [{"name": f"t{number}", "n": number if number % 7 else None} for number in range(1, 121)]


def listed(query=""):
    request = RequestFactory().get(f"/{query}")
    return listing_of(
        request, ROWS, columns=("name", "n"), default="-n", searched=lambda row: row["name"]
    )


def test_it_orders_by_the_default_and_shows_fifty():
    found = listed()

    assert found.total == 120
    assert [row["n"] for row in found.rows[:3]] == [120, 118, 117]
    assert (len(found.rows), found.pages, found.first, found.last) == (50, 3, 1, 50)


@pytest.mark.parametrize("sort", ["n", "-n"])
def test_rows_without_a_value_come_last_either_way(sort):
    assert listed(f"?sort={sort}&page=3").rows[-1]["n"] is None
    assert listed(f"?sort={sort}").rows[0]["n"] is not None


def test_what_matches_is_more_than_the_page():
    found = listed("?page=2")

    assert len(found.matching) == 120
    assert (found.first, found.last) == (51, 100)


def test_a_page_beyond_the_last_is_the_last():
    assert listed("?page=99").page == 3


def test_the_filter_ignores_case():
    assert [row["name"] for row in listed("?q=T119").rows] == ["t119"]


@pytest.mark.parametrize("query", ["?sort=secret", "?page=x", "?page=-1", "?page=99999999999"])
def test_it_refuses_what_it_can_not_show(query):
    with pytest.raises(BadRequest):
        listed(query)
