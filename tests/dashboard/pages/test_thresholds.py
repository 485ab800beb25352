"""The Thresholds page: what holds where, and changing it."""

from __future__ import annotations

import json

import pytest

from monitors.advisors import ADVISORS
from monitors.models import AuditEntry, Environment, Fleet, Target
from tests.people import browser_of, make_target, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin():
    return browser_of(person("root", "admin"))


@pytest.fixture
def target():
    return make_target()


def text_of(response, status=200):
    assert response.status_code == status
    content = response.streaming_content if response.streaming else [response.content]
    return b"".join(content).decode()


def rows_of(client, query=""):
    rows = json.loads(text_of(client.get(f"/thresholds/?format=json{query}")))
    return {f"{row['advisor']}.{row['name']}": row for row in rows}


def test_it_shows_every_threshold_with_its_default(admin):
    rows = rows_of(admin)

    assert len(rows) == sum(len(advisor.defaults) for advisor in ADVISORS)
    assert rows["blocked.critical_seconds"] == {
        "advisor": "blocked",
        "name": "critical_seconds",
        "default": 300.0,
        "value": 300.0,
        "source": "default",
        "own": None,
    }
    assert 'placeholder="300"' in text_of(admin.get("/thresholds/"))


def test_each_scope_has_its_own_and_the_narrower_wins(admin, target):
    field = "blocked.critical_seconds"
    for query, value in (
        ("", "200"),
        ("?environment=development", "100"),
        ("?target=shop-1", "50.5"),
    ):
        response = admin.post(f"/thresholds/{query}", {field: value})
        assert (response.status_code, response.url) == (302, f"/thresholds/{query}")

    found = rows_of(admin, "&target=shop-1")[field]
    assert (found["value"], found["source"], found["own"]) == (50.5, "target shop-1", 50.5)
    found = rows_of(admin, "&environment=production")[field]
    assert (found["value"], found["source"], found["own"]) == (200, "fleet", None)
    assert [one.object_name for one in AuditEntry.objects.filter(what="threshold.set")] == [
        field
    ] * 3
    assert 'value="50.5"' in text_of(admin.get("/thresholds/?target=shop-1"))


def test_an_empty_field_forgets_it(admin):
    field = "blocked.critical_seconds"
    admin.post("/thresholds/", {field: "200"})
    admin.post("/thresholds/", {field: " ", "blocked.warning_seconds": ""})

    assert Fleet.objects.get().thresholds == {}
    [entry] = AuditEntry.objects.filter(what="threshold.reset")
    assert (entry.object_name, entry.detail["before"]) == (field, 200)


def test_one_wrong_field_saves_none(admin):
    typed = {"blocked.critical_seconds": "many", "blocked.warning_seconds": "9"}

    text = text_of(admin.post("/thresholds/", typed), 400)

    assert "&#x27;many&#x27; is no number from 0 to 1,000,000,000,000,000." in text
    assert 'value="many"' in text
    assert not Fleet.objects.exists()


@pytest.mark.parametrize(
    ("field", "words"),
    [("bloked.x", "There is no advisor bloked."), ("blocked.x", "blocked has no threshold x.")],
)
def test_unknown_names_are_refused(admin, field, words):
    assert words in text_of(admin.post("/thresholds/", {field: "1"}), 400)
    assert admin.post("/thresholds/", {}).status_code == 400


@pytest.mark.parametrize("query", ["?environment=nowhere", "?target=nowhere"])
def test_what_does_not_exist_is_not_found(admin, query):
    assert admin.get(f"/thresholds/{query}").status_code == 404


def test_who_manages_one_target_sets_that_ones_alone(target):
    client = browser_of(person("keeper", "admin", target=target))

    assert (
        client.post("/thresholds/?target=shop-1", {"blocked.warning_seconds": "9"}).status_code
        == 302
    )
    assert Target.objects.get().thresholds == {"blocked": {"warning_seconds": 9}}
    for query in ("", "?environment=development"):
        assert (
            client.post(f"/thresholds/{query}", {"blocked.warning_seconds": "9"}).status_code == 403
        )
    assert Environment.objects.get(name="development").thresholds == {}


@pytest.mark.parametrize("role", ["viewer", "operator", "dba"])
def test_others_change_nothing(target, role):
    client = browser_of(person("somebody", role))

    for query in ("", "?environment=development", "?target=shop-1"):
        assert (
            client.post(f"/thresholds/{query}", {"blocked.warning_seconds": "9"}).status_code == 403
        )
    assert 'href="/thresholds/"' not in text_of(client.get("/"))
