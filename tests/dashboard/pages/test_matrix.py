"""The page Who may what: its cells, the reasons of one, its export, and who sees it."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from monitors.people.permissions import ORDERED, by_group
from tests.people import browser_of, make_target, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin():
    return browser_of(person("root", "admin"))


@pytest.fixture
def ann():
    make_target("pay-1", environment="production")
    return person("ann", "cancel-only", target=make_target("shop-1"))


def page(client, query="", status=200):
    response = client.get(f"/people/matrix/{query}")
    assert response.status_code == status
    return response.getvalue().decode()


def states(text):
    """Return the states of the cells of each line, by the name of what it is about."""
    lines = text.partition("<tbody>")[2].partition("</tbody>")[0].split("</tr>")[:-1]
    names = [re.findall(r'class="name"[^>]*>\s*([\w-]+)', line)[0] for line in lines]
    return {
        name: re.findall(r'data-state="(\w+)"', line)
        for name, line in zip(names, lines, strict=True)
    }


def test_a_person_is_shown_on_every_target(admin, ann):
    found = states(page(admin, "?person=ann"))

    assert list(found) == ["everything", "pay-1", "shop-1"]
    assert {len(line) for line in found.values()} == {len(ORDERED)}
    yes = dict(zip(ORDERED, found["shop-1"], strict=True))
    assert {name for name, state in yes.items() if state != "no"} == {"view", "cancel_backend"}
    assert set(found["pay-1"]) == {"no"}


def test_a_target_is_shown_for_every_person_and_a_group_of_permissions(admin, ann):
    found = states(page(admin, "?by=target&target=shop-1&group=Sessions"))

    others = len(by_group()["Sessions"]) - 1
    assert found == {"ann": ["yes", *["no"] * others], "root": ["no", *["no"] * others]}


def test_the_reasons_of_a_cell_stand_in_its_address(admin, ann):
    text = page(admin, "?person=ann&target=pay-1&permission=cancel_backend")

    assert "What ann has does not reach pay-1: cancel-only on target shop-1." in text
    assert 'aria-current="true"' in text
    assert "cancel-only on target shop-1" in page(
        admin, "?person=ann&target=shop-1&permission=cancel_backend"
    )


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?person=nobody", 404),
        ("?target=nowhere", 404),
        ("?permission=vaccum", 404),
        ("?by=colour", 400),
        ("?group=Colours", 400),
        ("?sort=may", 400),
    ],
)
def test_words_that_mean_nothing_are_said(admin, query, status):
    page(admin, query, status)


def test_an_export_has_a_row_a_person_target_and_permission(admin, ann):
    rows = json.loads(admin.get("/people/matrix/?person=ann&q=shop&format=json").getvalue())

    assert [row["permission"] for row in rows] == list(ORDERED)
    assert {(row["username"], row["target"], row["environment"]) for row in rows} == {
        ("ann", "shop-1", "development")
    }
    by_name = {row["permission"]: row for row in rows}
    assert by_name["cancel_backend"]["granted_by"] == ["cancel-only on target shop-1"]
    assert by_name["vacuum"]["lacks"] == "Needs vacuum: operator or dba."
    text = admin.get("/people/matrix/?by=target&format=csv").getvalue().decode()
    assert len(list(csv.DictReader(io.StringIO(text)))) == 2 * len(ORDERED)


def test_it_stays_a_page_with_many_targets_and_people(admin, django_assert_max_num_queries):
    for number in range(60):
        make_target(f"t{number:02}")
        person(f"p{number:02}", "operator")

    with django_assert_max_num_queries(30):
        text = page(admin, "?person=p07")
    assert len(states(text)) == 50
    assert "1 to 50 of 61" in text
    assert len(states(page(admin, "?by=target&page=2"))) == 11
    assert len(by_group()) > 4


@pytest.mark.parametrize("role", ["dba", "admin"])
def test_who_reads_the_whole_audit_or_manages_people_sees_everybody(ann, role):
    theirs = browser_of(person("vic", role))

    assert set(states(page(theirs, "?by=target&target=shop-1"))) == {"ann", "vic"}
    assert "Who may what" in theirs.get("/").content.decode()


@pytest.mark.parametrize("role", ["viewer", "dba"])
def test_others_see_themselves_on_their_own_targets(ann, role):
    theirs = browser_of(person("vic", role, target=make_target("own-1")))

    assert list(states(page(theirs))) == ["everything", "own-1"]
    assert list(states(page(theirs, "?by=target&target=own-1"))) == ["vic"]
    assert "shop-1" not in page(theirs) + page(theirs, "?format=csv")
    page(theirs, "?person=ann", 404)
    page(theirs, "?by=target&target=shop-1", 404)
    assert "Who may what" not in theirs.get("/").content.decode()
    assert 'href="/people/matrix/"' in theirs.get("/account/").content.decode()
