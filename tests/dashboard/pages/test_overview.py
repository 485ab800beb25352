"""The Overview page."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dashboard.pages.overview import COLUMNS, DatabaseRow, per_second
from monitors.collect.rounds import take_now
from monitors.history.source import Series
from monitors.models import Database
from tests.typed import assert_typed


@pytest.fixture
def read(shop, browse):
    """A function from a query to the page's text."""
    client, address = browse("viewer"), reverse("overview", args=[shop.name])

    def get(query: str = "") -> str:
        response = client.get(address + query)
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


def test_it_shows_databases_charts_and_figures(read):
    text = read()

    assert "Sessions by state" in text
    assert "Connections" in text
    assert ">shop</a>" in text


def test_a_database_that_is_not_watched_says_so(read, shop):
    Database.objects.filter(target=shop).update(included=False)

    assert "not watched" in read()


def test_a_finding_comes_with_its_evidence_and_why(read):
    text = read()

    assert "Autovacuum is off for" in text
    assert "Nothing vacuums or analyzes it" in text


def test_connections_are_counted_against_what_clients_can_have(read, shop):
    shop.refresh_from_db()
    usable = shop.max_connections - shop.reserved_connections

    assert f"of {usable}" in read()


def test_the_export_has_the_databases(read):
    rows = {row["datname"]: row for row in json.loads(read("?format=json"))}

    assert tuple(rows["shop"]) == COLUMNS
    assert rows["shop"]["watched"] is True
    assert rows["postgres"]["watched"] is False


def test_a_blocked_backend_stands_among_the_findings(read, shop, embedded, blocked):
    waiting = blocked(embedded)
    take_now(shop)

    text = read()

    assert f"Backend {waiting.root_pid}" in text


def test_a_sum_with_an_unknown_part_is_unknown():
    rates = Series([1, 2], {"xact_commit": [1.0, None], "xact_rollback": [0.5, 0.5]})

    assert per_second(rates) == [1.5, None]


def test_rates_count_only_the_time_that_was_watched(read, shop, live, embedded):
    """A target that is read for a second has not done its work in an hour."""
    shop.created_at = timezone.now() - timedelta(seconds=2)
    session = live(embedded, user="owner", dbname="shop")
    session.autocommit = True
    for _ in range(200):
        session.execute("SELECT 1")
    session.execute("SELECT pg_stat_force_next_flush()")
    session.execute("SELECT 1")
    take_now(shop)

    rows = {row["datname"]: row for row in json.loads(read("?format=json"))}

    assert rows["shop"]["xact_commit"] >= 200
    assert rows["shop"]["xact_per_second"] > 2  # in an hour it would be 0.06


def test_rows_are_what_their_type_says(shop, browse):
    shown = browse("viewer").get(reverse("overview", args=[shop.name]))

    assert shown.context["databases"]
    for row in shown.context["databases"]:
        assert_typed(row, DatabaseRow)
