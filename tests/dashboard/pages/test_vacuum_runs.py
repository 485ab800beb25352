"""The page of vacuums that ran and its export."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from monitors.history.window import Window
from monitors.models import Action, Database, VacuumRun
from monitors.rows.runs import COLUMNS, RunMark, RunRow, marks_of, rows_of
from tests.typed import assert_typed


@pytest.fixture
def runs(shop, browse):
    """A function from a query to the page's text, as a viewer sees it."""
    client, address = browse("viewer"), reverse("vacuum-runs", args=[shop.name])

    def get(query: str = "") -> str:
        response = client.get(address + query)
        assert response.status_code == 200
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def ran(shop, place):
    """A function that writes a run of the table `junk` down: ran(kind, hours ago)."""
    database = Database.objects.get(target=shop, datid=place["datid"])

    def add(kind: str = "autovacuum", hours: float = 1, **fields):
        values = {"exactness": "timed", "schemaname": "public", "relname": "junk", "relkind": "r"}
        now = timezone.now()
        return VacuumRun.objects.create(
            target_id=shop.pk, database_id=database.pk, kind=kind, seen_at=now,
            **{"relid": place["relid"], **values, "ended_at": now - timedelta(hours=hours), **fields},
        )  # fmt: skip

    return add


def kinds(text: str) -> list[str]:
    return [row["kind"] for row in json.loads(text)]


def test_newest_first_and_a_day_by_default(runs, ran):
    ran("vacuum", 2)
    ran("autovacuum", 1)
    ran("analyze", 30)

    assert kinds(runs("?format=json")) == ["autovacuum", "vacuum"]
    assert kinds(runs("?format=json&window=7d")) == ["autovacuum", "vacuum", "analyze"]
    assert tuple(json.loads(runs("?format=json"))[0]) == COLUMNS


def test_it_says_when_the_dead_rows_after_a_run_were_read(runs, ran):
    read_at = timezone.now() - timedelta(minutes=59)
    run = ran("autovacuum", 1, n_dead_after=30_000)
    VacuumRun.objects.filter(pk=run.pk).update(seen_at=read_at)

    said = f'read <time datetime="{read_at:%Y-%m-%dT%H:%M}'
    assert said in runs()
    assert json.loads(runs("?format=json"))[0]["seen_at"].startswith(f"{read_at:%Y-%m-%dT%H:%M}")

    VacuumRun.objects.update(n_dead_after=0)  # nothing died later
    assert said not in runs()


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("filter=auto", {"autovacuum", "autoanalyze"}),
        ("filter=manual", {"vacuum", "analyze"}),
        ("filter=howdah", {"analyze"}),
        ("filter=wraparound", {"autovacuum"}),
        ("filter=passes", {"vacuum"}),
        ("q=vera", {"analyze"}),
        ("q=other", {"autoanalyze"}),
        ("database=shop", {"autovacuum", "autoanalyze", "vacuum", "analyze"}),
        ("database=none", set()),
    ],
)
def test_it_filters_and_exports_what_matches(runs, ran, shop, query, shown):
    action = Action.objects.create(
        name="analyze", target=shop, target_name=shop.name, asked_by_name="vera", state="succeeded"
    )
    ran("autovacuum", wraparound=True)
    ran("autoanalyze", relid=1, relname="other")
    ran("vacuum", passes=3)
    ran("analyze", by="vera", action_id=action.pk)

    assert set(kinds(runs(f"?format=json&{query}"))) == shown


def test_it_sorts_with_what_is_not_known_last(runs, ran):
    for seconds in (5, None, 900):
        ran(seconds=seconds)

    def order(sort):
        return [row["seconds"] for row in json.loads(runs(f"?format=json&sort={sort}"))]

    assert order("-seconds") == [900, 5, None]
    assert order("seconds") == [5, 900, None]


def test_fifty_make_a_page_and_the_export_has_all(runs, ran):
    for _ in range(60):
        ran()

    assert runs().count('<tr id="run-') == 50
    assert runs("?page=2").count('<tr id="run-') == 10
    assert len(kinds(runs("?format=json"))) == 60


def test_it_is_honest_about_what_is_not_known(runs, ran):
    ran(count=3, exactness="counted")
    ran("vacuum_full", exactness="seen")

    text = runs()

    assert "autovacuum 3 times" in text
    assert "counted, the last one ended then" in text
    assert "or a little before" in text
    assert "not known" in text


def test_a_foreign_name_is_escaped(runs, ran):
    ran(relname="<img src=x>", relid=1)

    assert "<img src=x" not in runs()


def test_another_column_to_sort_by_is_a_bad_request(browse, shop):
    address = reverse("vacuum-runs", args=[shop.name])

    assert browse("viewer").get(address, {"sort": "by"}).status_code == 400


def test_none_has_words(runs):
    assert "None ran in this window" in runs()


def test_rows_are_what_their_types_say(shop, ran):
    ran("autovacuum", 1, n_dead_after=30_000, seconds=3, phases={"scanning heap": 1.5}, passes=1)
    ran("vacuum", 2, relkind="t", relname=None)

    rows = rows_of(shop, Window.last("1h", timezone.now()), VacuumRun.objects.all())

    for row in rows:
        assert_typed(row, RunRow)
    for mark in marks_of(rows):
        assert_typed(mark, RunMark)
