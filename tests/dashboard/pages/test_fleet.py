"""The Fleet page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from django.urls import reverse

from dashboard.frame.requests import window_of
from dashboard.pages.fleet import LineRow
from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Grant, ProbeState, Target
from monitors.rows.fleet import COLUMNS, FleetRow, dead_rows, fleet_of, rank
from tests.typed import assert_typed


@pytest.fixture
def read(db, browse):
    """A function from a query and a person to the page's text."""

    def get(query: str = "", person: str = "viewer") -> str:
        response = browse(person).get(reverse("fleet") + query)
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


def listed(text: str) -> list[str]:
    return re.findall(r'<tr id="target-([^"]+)"', text)


def test_the_unreachable_one_comes_first(shop, read, watch, embedded):
    watch(embedded, name="a-fresh-one")
    take_now(watch(replace(embedded, port=1), name="z-gone"))
    shop.settings["fsync"] = "on"  # the servers of tests run without, which is critical
    shop.save()

    text = read()

    assert listed(text) == ["z-gone", "shop-1", "a-fresh-one"]
    assert "z-gone</a> can" in text
    assert "1 of 3 targets needs you now." in text


def test_without_targets_an_admin_is_shown_how_to_begin(read):
    assert "Register a server" in read(person="admin")


def test_without_grants_a_person_is_told_whom_to_ask(shop, read):
    text = read(person="stranger")

    assert "There is no target that you may see" in text
    assert "shop-1" not in text


def test_one_sees_just_what_one_may(shop, read, watch, embedded, people):
    watch(embedded, name="secret", env="staging")
    Grant.objects.create(user=people["stranger"], role="viewer", target=shop)

    assert listed(read(person="stranger")) == ["shop-1"]
    assert [row["name"] for row in json.loads(read("?format=json", "stranger"))] == ["shop-1"]


def test_the_search_finds_names_addresses_and_tags(shop, read):
    Target.objects.update(tags=["payments"])

    for q in ("SHOP", "127.0.0.1", "payments", "development"):
        assert listed(read(f"?q={q}")) == ["shop-1"]
    assert "No target fits" in read("?q=nothing-like-it")


def test_it_groups_by_environment_and_tag(shop, read):
    Target.objects.update(tags=["red", "blue"])

    by_environment, by_tag = read("?group=environment"), read("?group=tag")

    assert re.findall(r'scope="rowgroup"[^>]*>(\w+)', by_environment) == ["development"]
    assert re.findall(r'scope="rowgroup"[^>]*>(\w+)', by_tag) == ["blue", "red"]


def test_the_export_has_a_row_a_target(shop, read):
    (row,) = json.loads(read("?format=json"))

    assert tuple(row) == COLUMNS
    assert row["state"] == "up"
    assert row["connections"] >= 0
    assert row["n_dead_tup"] >= 2000
    assert row["server_version"] // 10000 == 18


def test_the_longest_transaction_is_told_by_the_targets_clock(shop, live, embedded, rf):
    session = live(embedded, user="owner", dbname="shop", autocommit=False)
    session.execute("SELECT 1")  # opens a transaction
    take_now(shop)
    ProbeState.objects.filter(target=shop).update(taken_at=None)  # ours must not matter

    (row,) = fleet_of([shop], window_of(rf.get("/")))

    assert row["longest_xact_seconds"] is not None
    assert 0 <= row["longest_xact_seconds"] < 60


@pytest.mark.parametrize("query", ["/", "/?at=2100-01-01T00:00Z"])
def test_dead_rows_are_the_sum_over_all_tables(shop, rf, query):
    latest = HISTORY["tables"].latest._default_manager.filter(target_id=shop.pk)
    expected = sum(dead or 0 for dead in latest.values_list("n_dead_tup", flat=True))

    assert expected >= 2000
    assert dead_rows([shop], window_of(rf.get(query))) == {shop.pk: expected}


def test_a_disabled_target_comes_last_and_is_not_called_down(shop, read, watch, embedded):
    watch(embedded, name="a-disabled-one", enabled=False)

    text = read()

    assert listed(text) == ["shop-1", "a-disabled-one"]
    assert "Disabled: nothing reads it." in text


def test_the_order_is_total(shop, rf):
    (row,) = fleet_of([shop], window_of(rf.get("/")))

    assert rank({**row, "name": "a"}) < rank({**row, "name": "b"})


@pytest.mark.parametrize("query", ["/", "/?at=2100-01-01T00:00Z", "/?at=2020-01-01T00:00Z"])
def test_rows_are_what_their_type_says(shop, watch, embedded, rf, query):
    gone = watch(replace(embedded, port=1), name="z-gone")
    take_now(gone)

    for row in fleet_of([shop, gone], window_of(rf.get(query))):
        assert_typed(row, FleetRow)


def test_lines_are_what_their_type_says(shop, browse):
    ((_, lines),) = browse("viewer").get(reverse("fleet")).context["groups"]

    assert_typed(lines[0], LineRow)
