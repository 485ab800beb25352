"""The list of a target's batches: on the page, as exports, on the command line."""

from __future__ import annotations

import json
from datetime import time, timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from dashboard.pages.batches import LineRow
from monitors.acting import batch as batches, perform, preview
from monitors.models import Action, Batch, Job, JobRun
from monitors.rows import batches as batch_rows
from monitors.rows.batches import BatchRow
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db
LIST = "/targets/shop-1/batches/"


@pytest.fixture
def asked(shop, people, place):
    """A function that makes a batch with rows in some states: asked(["succeeded"], reason=…)."""

    def make(states, *, ago=timedelta(0), **fields):
        now = timezone.now() - ago
        usual = {"asked_at": now, "finished_at": now, "asked_by_name": "dba"}
        made = Batch.objects.create(
            name="vacuum", target=shop, target_name=shop.name, asked_by=people["dba"],
            **{**usual, **fields},
        )  # fmt: skip
        Action.objects.bulk_create(
            Action(
                name="vacuum", target=shop, target_name=shop.name, batch=made, batch_position=place,
                asked_by_name="dba", state=state,
            )
            for place, state in enumerate(states)
        )  # fmt: skip
        return made

    return make


def exported(client, **query):
    response = client.get(LIST, {"format": "json", **query})
    return json.loads(b"".join(response.streaming_content))


def test_a_batch_stands_in_the_list_with_what_became_of_its_tables(browse, people, place, shop):
    tables = [
        {"database": "shop", "relid": str(place["relid"])},
        {"database": "shop", "relid": "1"},
    ]
    made = batches.preview(people["operator"], shop, "vacuum", tables, {}, source="test")
    preview.preview_batch(str(made.pk))
    client = browse("viewer")
    assert exported(client) == []  # a preview is its maker's alone

    batches.request(people["operator"], made, reason="too full", source="test")
    [begun] = exported(client)
    perform.perform(str(made.actions.get(state="queued").pk))
    [ended] = exported(client)
    page = client.get(LIST).content.decode()

    assert (begun["state"], begun["open"], begun["skipped"], begun["seconds"]) == (
        "running",
        1,
        1,
        None,
    )
    assert (ended["state"], ended["succeeded"], ended["skipped"]) == ("ended", 1, 1)
    assert (ended["asked_by"], ended["reason"], ended["tables"]) == ("operator", "too full", 2)
    assert f'href="/batches/{made.pk}/"' in page
    assert "Vacuum 2 tables" in page
    assert "too full" in page


def test_failures_are_counted_and_can_be_chosen(browse, asked):
    bad = asked(["succeeded", "failed", "lost", "expired", "cancelled"])
    asked(["succeeded"])
    client = browse("viewer")

    assert [line["id"] for line in exported(client, filter="failed")] == [str(bad.pk)]
    [line] = exported(client, filter="failed")
    assert (line["succeeded"], line["failed"], line["cancelled"]) == (1, 3, 1)
    assert "With failures 1" in client.get(LIST).content.decode()
    assert client.get(LIST, {"filter": "odd"}).status_code == 400


def test_a_batch_of_a_job_names_it_and_says_what_holds_it(browse, asked, shop, people):
    made = asked(["queued"], finished_at=None, asked_from="job:nightly")
    job = Job.objects.create(
        name="nightly", target=shop, action="vacuum", opens_at=time(0), open_minutes=60,
        owner=people["dba"], owner_name="dba",
    )  # fmt: skip
    JobRun.objects.create(
        job=job, batch=made, state="held", text="Held: 7 backends are active.",
        started_at=timezone.now(), closes_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    client = browse("viewer")

    [line] = exported(client, filter="open")
    page = client.get(LIST).content.decode()
    assert (line["job"], line["state"], line["held"]) == (
        "nightly",
        "held",
        "Held: 7 backends are active.",
    )
    assert "Held: 7 backends are active." in page
    job.delete()
    assert exported(client)[0]["job"] == "nightly"


def test_the_list_is_paged_by_the_database(browse, asked, django_assert_max_num_queries):
    for number in range(53):
        asked(["succeeded"], ago=timedelta(minutes=number))
    client = browse("viewer")

    with django_assert_max_num_queries(60) as few:
        first = client.get(LIST).content.decode()
    fetched = [one["sql"] for one in few.captured_queries]
    second = client.get(LIST, {"page": "2"}).content.decode()

    assert any('FROM "monitors_batch"' in sql and "LIMIT 50" in sql for sql in fetched)
    assert first.count('id="batch-') == 50
    assert second.count('id="batch-') == 3
    assert len(exported(client)) == 53


def test_what_was_long_ago_is_found_in_a_wider_window(browse, asked):
    asked(["succeeded"], ago=timedelta(days=20))
    client = browse("viewer")

    assert "No batch in this window" in client.get(LIST, {"window": "7d"}).content.decode()
    assert "Vacuum 1 table" in client.get(LIST).content.decode()


@pytest.mark.parametrize("page", ["actions", "jobs"])
def test_actions_and_jobs_lead_to_it(browse, shop, page):
    text = browse("viewer").get(f"/targets/shop-1/{page}/").content.decode()

    assert f'href="{LIST}"' in text


def test_the_command_lists_them_too(asked, capsys):
    made = asked(["succeeded", "failed"])

    call_command("job", "batches", "--target", "shop-1", "--json")
    [line] = json.loads(capsys.readouterr().out)
    call_command("job", "batches", "--target", "shop-1")
    text = capsys.readouterr().out

    assert (line["id"], line["failed"]) == (str(made.pk), 1)
    assert "vacuum  dba  2 tables, 1 done, 1 failed, 0 skipped  ended" in text


def test_rows_are_what_their_types_say(browse, asked):
    asked(["succeeded", "failed"])
    asked(["running"], finished_at=None)

    for row in batch_rows.rows_of(Batch.objects.all()):
        assert_typed(row, BatchRow)
    for line in browse("viewer").get(LIST).context["listing"].rows:
        assert_typed(line, LineRow)
