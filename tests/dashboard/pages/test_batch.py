"""Several tables at once: from the boxes over the frozen list to a result for each."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from monitors.acting import batch as batches, perform, preview
from monitors.models import Action, Batch
from tests.people import browser_of, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(shop):
    return browser_of(person("olga", "operator", target=shop))


@pytest.fixture
def box(place):
    """What the box of the table `junk` says."""
    return f"{place['datid']}.{place['relid']}"


def opened(client: Client, what: dict[str, object], action: str = "vacuum") -> Batch:
    """Post the form as a browser does, and let the worker look at each table."""
    response = client.post(f"/targets/shop-1/batches/{action}/", what)
    assert response.status_code == 302
    made = Batch.objects.get(pk=response["Location"].split("/")[2])
    preview.preview_batch(str(made.pk))
    return made


def html_of(client: Client, made: Batch) -> str:
    return client.get(f"/batches/{made.pk}/").content.decode()


def test_the_page_offers_boxes_and_the_due_ones_to_whom_may(operator, browse, box):
    page = operator.get("/targets/shop-1/vacuum/?filter=all").content.decode()
    viewer = browse("viewer").get("/targets/shop-1/vacuum/?filter=all").content.decode()

    assert f'name="tables" value="{box}"' in page
    assert "Vacuum all due: 1…" in page
    assert 'name="tables"' not in viewer
    assert "Vacuum all due" not in viewer


@pytest.mark.parametrize("how", ["chosen", "due"])
def test_from_the_boxes_to_a_result_for_each_without_script(operator, box, junk, how):
    asked = {"tables": [box, box]} if how == "chosen" else {"due": "1"}
    made = opened(operator, {**asked, "analyze": "true"})
    preview = html_of(operator, made)
    assert "1 of 1 table</b> would be worked on, 2,000 dead rows" in preview
    assert "VACUUM" in preview
    assert f'action="/batches/{made.pk}/request/"' in preview

    answer = operator.post(f"/batches/{made.pk}/request/", {"reason": "too full"})
    while (row := batches.waiting_rows(made.target_id or 0).first()) is not None:
        perform.perform(str(row.pk))
    done = html_of(operator, made)
    exported = operator.get(f"/batches/{made.pk}/?format=json")

    assert answer["Location"] == f"/batches/{made.pk}/"
    assert "Ended" in done
    assert "dead rows 2,000 → 0" in done
    assert "too full" in done
    assert "every " not in done.split('id="body"')[1].split(">")[0]
    [line] = json.loads(b"".join(exported.streaming_content))
    assert line["state"] == "succeeded"
    assert junk.replace('"', '""') in line["object"]


def test_other_options_are_a_new_preview_of_the_same_list(operator, box):
    made = opened(operator, {"tables": [box]})
    page = html_of(operator, made)
    assert f'<input type="hidden" name="tables" value="{box}">' in page

    again = opened(operator, {"tables": [box], "truncate": "off", "parallel": "1"})

    assert again.pk != made.pk
    assert again.options == {"truncate": "off", "parallel": "1"}
    assert "TRUNCATE" in again.actions.get().sql


def test_it_can_be_stopped(operator, box):
    made = opened(operator, {"tables": [box]})
    operator.post(f"/batches/{made.pk}/request/")
    assert "Stop all that is left" in html_of(operator, made)

    operator.post(f"/batches/{made.pk}/stop/")

    assert made.actions.get().state == "cancelled"
    assert "Ended" in html_of(operator, made)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"tables": ["1.1"]}, 400),
        ({"tables": ["x"]}, 400),
        ({}, 302),
    ],
)
def test_a_list_that_makes_no_sense_freezes_nothing(operator, asked, status):
    assert operator.post("/targets/shop-1/batches/vacuum/", asked).status_code == status
    assert not Batch.objects.exists()


def test_only_harmless_actions_go_on_several_tables(browse, box):
    answer = browse("dba").post("/targets/shop-1/batches/vacuum_full/", {"tables": [box]})

    assert answer.status_code == 404
    assert not Action.objects.exists()


def test_a_preview_is_its_makers_alone(operator, browse, box):
    made = opened(operator, {"tables": [box]})

    assert browse("dba").get(f"/batches/{made.pk}/").status_code == 404
    assert browse("stranger").get(f"/batches/{made.pk}/").status_code == 404
