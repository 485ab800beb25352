"""The finder: tables and statements by words, of what a person may see."""

from __future__ import annotations

import re

import pytest
from django.utils import timezone

from dashboard.pages.find import FoundStatement, FoundTable
from monitors.models import HISTORY, Database
from tests.people import browser_of, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db


@pytest.fixture
def target():
    return make_target()


@pytest.fixture
def filled(target):
    """A function that gives a target one table and one statement: filled(target, word)."""

    def fill(where, word, relid=7):
        database = Database.objects.create(target=where, datid=5, datname="shop")
        common = {"since_at": timezone.now(), "changed_at": timezone.now(), "target_id": where.pk}
        HISTORY["tables"].latest._default_manager.create(
            **common,
            database_id=database.pk,
            relid=relid,
            relkind="r",
            schemaname="public",
            relname=f"{word}_items",
        )
        return HISTORY["statements"].latest._default_manager.create(
            **common,
            database_id=0,
            queryid=1,
            userid=1,
            dbid=5,
            toplevel=True,
            usename="app",
            query=f"SELECT '<b>' FROM {word}_items WHERE a = $1",
        )

    return fill


def found(client, query):
    response = client.get("/find/", query)
    assert response.status_code == 200
    return response.content.decode()


def test_it_finds_tables_and_statements_by_every_word(target, filled):
    statement = filled(target, "order")
    client = browser_of(person("viewer", "viewer"))

    text = found(client, {"q": "ITEMS ord"})

    assert "/targets/shop-1/databases/5/tables/7/" in text
    assert f"/targets/shop-1/queries/{statement.pk}/" in text
    assert "&lt;b&gt;" in text
    assert "public.order_items" in re.sub(r"<[^>]+>", "", text)
    assert found(client, {"q": "items nowhere"}).strip() == ""


@pytest.mark.parametrize("q", ["", " ", "o"])
def test_too_few_letters_find_nothing(target, filled, q):
    filled(target, "order")

    assert found(browser_of(person("viewer", "viewer")), {"q": q}).strip() == ""


def test_nobody_finds_what_they_may_not_see(target, filled):
    other = make_target("other")
    filled(target, "order")
    filled(other, "order", relid=8)
    client = browser_of(person("somebody", "viewer", target=other))

    text = found(client, {"q": "order"})

    assert "shop-1" not in text
    assert "/targets/other/databases/5/tables/8/" in text
    assert found(client, {"q": "order", "target": "shop-1"}).strip() == ""


def test_on_a_targets_page_only_its_own_are_found(target, filled):
    filled(target, "order")
    filled(make_target("other"), "order", relid=8)

    text = found(browser_of(person("viewer", "viewer")), {"q": "order", "target": "other"})

    assert "shop-1" not in text
    assert "/targets/other/" in text


def test_what_is_gone_is_not_found(target, filled):
    filled(target, "order")
    for probe in ("tables", "statements"):
        HISTORY[probe].latest._default_manager.update(gone_at=timezone.now())

    assert found(browser_of(person("viewer", "viewer")), {"q": "order"}).strip() == ""


def test_what_it_finds_is_what_its_types_say(target, filled):
    filled(target, "order")
    shown = browser_of(person("viewer", "viewer")).get("/find/", {"q": "order"})

    assert_typed(shown.context["tables"][0], FoundTable)
    assert_typed(shown.context["statements"][0], FoundStatement)
