"""The Load page: average active sessions of really running statements, by all that they are."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from dashboard.pages.load import level_of
from monitors.collect.rounds import take_now
from monitors.history.active_sessions import DIMENSIONS, Line, Slice
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.rows.load import COLUMNS, Load, LoadRow, load_of
from tests.typed import assert_typed


@pytest.fixture
def read(shop, browse):
    """A function from a query to the page, as a viewer sees it."""
    client = browse("viewer")

    def get(query: str = "", *, status: int = 200) -> str:
        response = client.get(reverse("load", args=[shop.name]) + query)
        assert response.status_code == status
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def busy(shop, embedded, blocked):
    """Three snapshots with one session that waits for another's lock, then one without."""
    both = blocked(embedded)
    for _ in range(3):
        take_now(shop, ["activity", "databases"])
    with embedded.connect() as superuser:
        for session in (both.waiter, both.root):
            superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [session.info.backend_pid])
    take_now(shop, ["activity", "databases"])
    return both


def rows_of(text: str) -> dict[str, LoadRow]:
    return {row["value"]: row for row in json.loads(text)}


def test_it_divides_what_was_active_by_each_dimension(read, busy, shop):
    for by in DIMENSIONS:
        found = rows_of(read(f"?by={by}&format=json"))
        for row in found.values():
            assert tuple(row) == COLUMNS
            assert row["dimension"] == by
    locks = rows_of(read("?format=json"))["Lock"]
    # `shop` was read once before: three of five snapshots show the one that waits.
    assert locks["snapshots"] == 5
    assert locks["average_active_sessions"] == pytest.approx(0.6)
    assert rows_of(read("?by=wait_event&format=json"))["Lock: relation"]
    limited = rows_of(read("?by=datname&wait_event_type=Lock&format=json"))
    assert {name: row["share_pct"] for name, row in limited.items()} == {"shop": 100}
    page = read("?wait_event_type=Lock")
    assert re.search(r"Only</span>.*?Wait type.*?Lock", page, re.DOTALL)
    [key] = re.findall(r"query=([0-9a-f]{32})", page)
    assert len(rows_of(read(f"?by=usename&query={key}&format=json"))) == 1


def test_it_is_judged_by_the_cores_that_somebody_said(read, busy, shop):
    assert "how many cores the machine has was not said" in read()

    shop.cores = 1
    shop.save(update_fields=["cores"])

    page = read()
    assert "active sessions on average on 1 core, " in page
    assert ">Cores<" not in page
    assert re.search(r'"lines": ?\[\{"label": ?"Cores", ?"value": ?1', page)


@pytest.mark.parametrize(
    ("mean", "cores", "level"),
    [
        (None, 2, ""),
        (1, None, ""),
        (2, 2, "good"),
        (2.01, 2, "warning"),
        (4, 2, "warning"),
        (4.01, 2, "critical"),
    ],
)
def test_more_than_one_session_a_core_is_a_warning_more_than_two_are_critical(mean, cores, level):
    assert level_of(mean, cores) == level


def test_a_past_moment_shows_the_load_of_then(read, busy, shop):
    at = timezone.now()
    before = read(f"?at={at.timestamp():.6f}&format=json")
    assert rows_of(before)["Lock"]["snapshots"] == 5

    take_now(shop, ["activity"])

    assert read(f"?at={at.timestamp():.6f}&format=json") == before
    early = at - timedelta(days=2)
    assert rows_of(read(f"?at={early.timestamp():.6f}&format=json")) == {}
    assert "active sessions" not in read(f"?at={early.timestamp():.6f}")


def test_words_that_mean_nothing_are_said(read):
    assert "by" in read("?by=nothing", status=400)
    assert rows_of(read("?by=usename&usename=nobody&format=json")) == {}
    assert "No session was active at a snapshot of this window." in read("?usename=nobody")


def test_rows_are_what_their_type_says(read, busy, shop):
    found = load_of(shop, Window.last("1h", timezone.now()), "query", Slice())

    assert_typed(found.rows("query")[0], LoadRow)
    assert found.error is not None


def test_counters_hold_for_the_time_since_the_point_before():
    counters = Series([0, 10, 40, 50], {"active_time": [None, 3.0, 1.0, None]})

    found = Load("query", Slice(), {}, Line(Series(), [1, 3]), counters)

    assert found.counted("active_time") == pytest.approx((3 * 10 + 1 * 30) / 40)
    assert found.counted("idle_in_transaction_time") is None
    assert (found.mean, found.peak, found.error) == (2, 3, 1)


def test_the_command_prints_what_the_page_exports(read, busy, capsys):
    call_command("load", "shop-1", "--by", "usename", "--json")
    told = json.loads(capsys.readouterr().out)

    assert told == json.loads(read("?by=usename&format=json"))
