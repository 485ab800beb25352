"""Who holds the horizon back, on a page of its own and on the Vacuum page."""

from __future__ import annotations

import csv
import io
import json

import pytest
from django.urls import reverse
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Snapshot
from monitors.rows.horizon import COLUMNS


@pytest.fixture
def shown(shop, browse):
    """A function from a query to the page's text, as a dba sees it."""
    client = browse("dba")

    def get(query: str = "", name: str = "horizon") -> str:
        response = client.get(reverse(name, args=[shop.name]) + query)
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def held(shop, embedded, live):
    """A session that idles in a transaction while others use ids up; read."""
    holder = live(embedded, dbname="shop", autocommit=False, application_name="<b>billing</b>")
    holder.execute("SELECT pg_current_xact_id()")
    with embedded.connect(dbname="shop") as session:
        for _ in range(3):
            session.execute("SELECT pg_current_xact_id()")
    take_now(shop, ["databases", "activity", "horizon"])
    return holder


def rows_of(text, holder):
    pid = str(holder.info.backend_pid)
    return [row for row in json.loads(text) if row["holder"] == pid]


def test_a_session_has_its_scope_its_age_and_a_button(shown, held):
    text = shown()
    pid = held.info.backend_pid

    assert f"Backend {pid} (&lt;b&gt;billing&lt;/b&gt;, idle in transaction since" in text
    assert "<b>billing" not in text
    assert "Keeps dead rows of database shop and the shared catalogs." in text
    assert "actions/terminate_backend/" in text
    assert f'name="pid" value="{pid}"' in text
    assert 'name="state_change"' in text


def test_the_vacuum_page_has_the_same(shown, held):
    text = shown(name="vacuum")

    assert "Why dead rows stay" in text
    assert f"Backend {held.info.backend_pid} (" in text


def test_when_nothing_holds_it_says_so(shown, shop):
    HISTORY["horizon"].latest._default_manager.all().delete()

    assert "Nothing held the horizon back <" in shown()
    assert "Nothing held the horizon back <" in shown(name="vacuum")


def test_what_was_not_read_is_not_called_nothing(shown, shop):
    HISTORY["horizon"].latest._default_manager.all().delete()
    Snapshot.objects.filter(probe="horizon").delete()

    assert "Nothing holds" not in shown()
    assert "Who holds the horizon was not read lately." in shown(name="vacuum")


def test_the_export_has_just_the_keys_that_are_promised(shown, held):
    [row] = rows_of(shown("?format=json"), held)

    assert tuple(row) == COLUMNS
    assert (row["kind"], row["database"], row["state"]) == (
        "session",
        "shop",
        "idle in transaction",
    )
    assert isinstance(row["xmin"], str)
    assert row["xmin_age"] >= 4  # Django's own database is on this server too
    assert row["held_seconds"] >= 0
    assert row["held_since"] is not None


def test_csv_says_the_same_as_json(shown, held):
    lines = list(csv.DictReader(io.StringIO(shown("?format=csv"), newline="")))

    assert [line["holder"] for line in lines] == [
        row["holder"] for row in json.loads(shown("?format=json"))
    ]


def test_what_has_no_backend_shows_its_statement_to_copy(shown, shop):
    now = timezone.now()
    HISTORY["horizon"].latest._default_manager.create(
        target_id=shop.pk, database_id=0, kind="prepared xact", holder="o'clock", xmin_age=9,
        horizon_xid=5, datname="shop", who="owner", since=now, since_at=now, changed_at=now,
    )  # fmt: skip

    text = shown()

    assert "in database shop, as its owner owner or a superuser" in text
    assert "o&#x27;&#x27;clock" in text
    assert "data-copy" in text


def test_the_past_shows_who_held_it_then_and_offers_nothing(shown, shop, held):
    then = timezone.now().isoformat().replace("+", "%2B")
    held.rollback()
    take_now(shop, ["databases", "activity", "horizon"])

    assert rows_of(shown("?format=json"), held) == []
    [row] = rows_of(shown(f"?format=json&at={then}"), held)
    assert row["application_name"] == "<b>billing</b>"
    text = shown(f"?at={then}")
    assert f"Backend {held.info.backend_pid}" in text
    assert 'action="/targets/shop-1/actions/' not in text
