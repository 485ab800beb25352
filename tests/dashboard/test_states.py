"""What a page says where it has nothing to show: why, and the button that helps."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.models import ProbeState
from tests.people import browser_of, person

pytestmark = pytest.mark.django_db

PAGES = ("", "activity/", "vacuum/", "queries/")
FORBIDDEN = ("", "activity/", "queries/")


@pytest.fixture
def read():
    """A function from a target, a page and roles to the page's text."""

    def get(target, page: str, *roles: str) -> str:
        client = browser_of(person(f"reader-{uuid4().hex[:8]}", *roles or ("viewer",)))
        response = client.get(f"/targets/{target.name}/{page}")
        assert response.status_code == 200
        return response.content.decode()

    return get


@pytest.mark.parametrize("page", FORBIDDEN)
def test_a_login_that_sees_nobody_else_is_told_the_grant_and_not_that_all_is_well(
    embedded, watch, read, page
):
    target = watch(embedded, user="owner")
    take_now(target)

    text = read(target, page)

    assert "owner may not read this" in text
    assert re.search(r"GRANT</b> pg_monitor (<b>)?TO(</b>)? owner;", text)
    assert "Nobody is blocked" not in text
    assert "No blocked backends" not in text


def test_databases_without_tables_are_no_missing_snapshot(embedded, watch, read, worker_id):
    name = f"bare_{worker_id}"
    with embedded.connect() as setup:
        setup.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            target = watch(embedded, include=[name])
            take_now(target)
            text = read(target, "vacuum/")
        finally:
            setup.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    assert "No table to vacuum" in text
    assert "First snapshot" not in text


@pytest.mark.parametrize("page", PAGES)
def test_before_history_begins_the_way_leads_back_to_now(embedded, watch, read, page):
    target = watch(embedded)

    text = read(target, f"{page}?at=2020-01-01T00:00Z", "admin", "viewer")

    assert "Nothing is known of that moment" in text
    assert re.search(r'<a class="btn" href="[^"?]*\??">Back to now</a>', text)
    assert "address and login" not in text


def test_a_disabled_target_can_be_enabled_where_one_sees_that_it_is(embedded, watch, read):
    target = watch(embedded, enabled=False)

    assert "Enable shop-1</button>" in read(target, "", "admin", "viewer")
    assert "Enable shop-1</button>" not in read(target, "", "viewer")


def test_a_target_that_went_away_is_shown_as_it_was_before(embedded, watch, read):
    target = watch(embedded)
    take_now(target)
    target.port = 1
    target.save()
    take_now(target)
    began = ProbeState.objects.filter(target=target).values_list("failing_since", flat=True)
    since = min(moment for moment in began if moment)

    text = read(target, "")

    assert f'?at={int(since.timestamp())}">See it as it was before</a>' in text
    assert "See it as it was" not in read(watch(replace(embedded, port=1), name="never"), "")


def test_the_fleet_says_what_was_not_read_at_a_past_moment(embedded, watch):
    take_now(watch(embedded))
    at = int((timezone.now() - timedelta(hours=1)).timestamp())

    text = browser_of(person("viewer", "viewer")).get(f"/?at={at}").content.decode()

    assert "Nothing was read at that moment." in text
    assert "Nothing to report" not in text


@pytest.mark.parametrize("page", ["vacuum/queue/", "vacuum/runs/"])
def test_what_was_never_read_is_not_called_empty(embedded, watch, read, page):
    target = watch(embedded)
    ProbeState.objects.create(
        target=target, probe="tables", state="unreachable", reason="No route to the host.",
        failing_since=timezone.now(),
    )  # fmt: skip

    before = read(target, page)
    take_now(target)
    after = read(target, page)

    assert "shop-1 can&#x27;t be reached since" in before
    assert "No table is due" not in before
    assert "None ran" not in before
    assert "be reached since" not in after
    assert re.search("No table is due|In the queue|None ran", after)
