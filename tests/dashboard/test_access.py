"""Who may open what: every address, every person, every method."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import time

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from dashboard.pages import PAGES
from monitors.models import (
    HISTORY,
    Action,
    AuditEntry,
    Batch,
    Database,
    FindingRecord,
    Grant,
    Job,
    StandingRule,
    StuckDefinition,
    TargetCheck,
)
from monitors.rows.backends import epoch_us
from tests.addresses import OF_POOLERS

PERSONS = ("anonymous", "stranger", "viewer", "operator", "dba", "admin", "cancel-only")

# What GET answers to each person, in that order. 302 of an anonymous is the way to the login.
EVERYBODY = (302, 200, 200, 200, 200, 200, 200)
VIEWERS = (302, 404, 200, 200, 200, 404, 200)
NOWHERE = (302, 404, 404, 404, 404, 404, 404)
MANAGERS = (302, 404, 403, 403, 403, 200, 403)
ADMINS = (302, 403, 403, 403, 403, 200, 403)
POST_ONLY = (302, 405, 405, 405, 405, 405, 405)
EXPECTED = {
    **{page.name: VIEWERS for page in PAGES},  # unless another line says more
    **dict.fromkeys(OF_POOLERS, NOWHERE),  # the target of this test is a server
    "fleet": EVERYBODY,
    "actions": EVERYBODY,
    "account": EVERYBODY,
    "findings": EVERYBODY,
    "finding": VIEWERS,
    "finding-acknowledge": POST_ONLY,
    "finding-snooze": POST_ONLY,
    "finding-reopen": POST_ONLY,
    "thresholds": ADMINS,
    "pool-calculator": EVERYBODY,  # reckons with what is typed alone
    "stuck": EVERYBODY,  # lists what the person may see
    "stuck-definitions": EVERYBODY,
    "stuck-definition-remove": POST_ONLY,
    "standing-rules": EVERYBODY,
    "standing-rule-new": EVERYBODY,  # a form; saving takes the right
    "standing-rule-firings": (302,) * 7,
    "standing-rules-stop": POST_ONLY,
    "standing-rule-edit": (302, 404, 200, 200, 200, 200, 200),
    "standing-rule-switch": POST_ONLY,
    "standing-rule-remove": POST_ONLY,
    "find": EVERYBODY,  # finds what the person may see
    "horizon": VIEWERS,
    "vacuum-queue": VIEWERS,
    "vacuum-runs": VIEWERS,
    "table": VIEWERS,
    "table-what-if": VIEWERS,
    "index": VIEWERS,
    "job-new": VIEWERS,
    "job-edit": VIEWERS,
    "job-run": POST_ONLY,
    "job-switch": POST_ONLY,
    "job-remove": POST_ONLY,
    "query": VIEWERS,
    "backend": VIEWERS,
    "strip": VIEWERS,
    "action": VIEWERS,
    "batch": VIEWERS,
    "batches": VIEWERS,
    "targets": EVERYBODY,  # lists those that the person may manage
    "target-new": ADMINS,
    "people": ADMINS,
    "person": ADMINS,
    "roles": ADMINS,
    "role-new": ADMINS,
    "role-edit": ADMINS,
    "role-remove": POST_ONLY,
    "matrix": EVERYBODY,  # of themselves, unless they manage people or read the whole audit
    "person-password": POST_ONLY,
    "person-deactivate": POST_ONLY,
    "person-activate": POST_ONLY,
    "person-join": POST_ONLY,
    "person-leave": POST_ONLY,
    "grant-give": POST_ONLY,
    "grant-take": POST_ONLY,
    "target-check": ADMINS,
    "target-edit": MANAGERS,
    "target-remove": MANAGERS,
    "target-enable": POST_ONLY,
    "target-disable": POST_ONLY,
    "action-new": POST_ONLY,
    "action-request": POST_ONLY,
    "action-stop": POST_ONLY,
    "action-approve": POST_ONLY,
    "action-undo": POST_ONLY,
    "batch-new": POST_ONLY,
    "batch-request": POST_ONLY,
    "batch-stop": POST_ONLY,
    "logout": POST_ONLY,
    "account-theme": POST_ONLY,
    "login": (200, 302, 302, 302, 302, 302, 302),
    "healthz-live": (200,) * len(PERSONS),
    "healthz-ready": (503,) * len(PERSONS),  # no worker runs in tests
}

# What POST answers to a person without the right; nothing is changed by it.
ACTING = {
    "action-new": 404,
    "action-request": 404,
    "action-stop": 404,
    "action-approve": 404,
    "action-undo": 404,
    "batch-new": 404,
    "batch-request": 404,
    "batch-stop": 404,
    "job-new": 404,
    "job-edit": 404,
    "job-run": 404,
    "job-switch": 404,
    "job-remove": 404,
    "finding-acknowledge": 404,
    "finding-snooze": 404,
    "finding-reopen": 404,
    "thresholds": 403,
    "stuck-definitions": 403,
    "stuck-definition-remove": 403,
    "standing-rule-new": 403,
    "standing-rules-stop": 403,
    "standing-rule-edit": 404,
    "standing-rule-switch": 404,
    "standing-rule-remove": 404,
    "strip": 404,
    "target-edit": 404,
    "target-remove": 404,
    "target-enable": 404,
    "target-disable": 404,
    "target-new": 403,
    "people": 403,
    "role-new": 403,
    "role-edit": 403,
    "role-remove": 403,
    "person-password": 403,
    "person-deactivate": 403,
    "person-activate": 403,
    "person-join": 403,
    "person-leave": 403,
    "grant-give": 403,
    "grant-take": 403,
}


def patterns(entries: list[URLPattern | URLResolver]) -> Iterator[URLPattern]:
    for entry in entries:
        if isinstance(entry, URLResolver):
            yield from patterns(entry.url_patterns)
        else:
            yield entry


PATTERNS = {str(pattern.name): pattern for pattern in patterns(get_resolver().url_patterns)}


@pytest.fixture
def addresses(shop, place, people) -> dict[str, str]:
    """An address for each URL name, of objects that exist."""
    action = Action.objects.create(
        name="vacuum", target=shop, target_name=shop.name, asked_by_name="dba", state="succeeded"
    )
    batch = Batch.objects.create(
        name="vacuum",
        target=shop,
        target_name=shop.name,
        asked_by_name="dba",
        asked_at=timezone.now(),
        finished_at=timezone.now(),
    )
    HISTORY["indexes"].latest._default_manager.create(
        target_id=shop.pk,
        database_id=Database.objects.get(target=shop, datid=place["datid"]).pk,
        indexrelid=4711,
        relid=place["relid"],
        since_at=timezone.now(),
        changed_at=timezone.now(),
    )
    now = timezone.now()
    found = FindingRecord.objects.create(
        target=shop, advisor="blocked", object_key="x", title="A blocks B.", severity=2, worst=2,
        first_seen_at=now, opened_at=now, seen_at=now,
    )  # fmt: skip
    job = Job.objects.create(
        name="nightly", target=shop, action="vacuum", opens_at=time(22), open_minutes=60
    )
    check = TargetCheck.objects.create(target=shop, asked_by=people["admin"], result={})
    backend = HISTORY["activity"].latest._default_manager.filter(target_id=shop.pk).values()[0]
    words = {
        "name": shop.name,
        "pid": backend["pid"],
        "start": epoch_us(backend["backend_start"]),
        "datid": place["datid"],
        "relid": place["relid"],
        "indexrelid": 4711,
        "query_id": HISTORY["statements"].latest._default_manager.filter(target_id=shop.pk)[0].pk,
        "person_id": people["viewer"].pk,
        "group_id": Group.objects.create(name="night shift").pk,
        "grant_id": Grant.objects.get(user=people["viewer"]).pk,
        "action": "vacuum",
        "action_id": action.pk,
        "batch_id": batch.pk,
        "finding_id": found.pk,
        "job": job.name,
        "rule": StandingRule.objects.create(name="no-reports", target=shop, seconds=60).name,
        "definition_id": StuckDefinition.objects.create(usename="etl").pk,
        "check_id": check.pk,
        "role": "cancel-only",
    }
    return {
        name: reverse(name, kwargs={word: words[word] for word in words_of(name)})
        for name in PATTERNS
    }


def words_of(name: str) -> list[str]:
    """Return the words that an address takes, also those of the pattern it is included under."""
    lists = get_resolver().reverse_dict.getlist(name)
    return list(lists[0][0][0][1])


def test_every_address_has_its_expectation():
    assert set(EXPECTED) == set(PATTERNS)


@pytest.mark.parametrize("person", PERSONS)
def test_get_answers_each_person_as_expected(person, addresses, browse):
    client = browse(person)

    found = {name: client.get(address).status_code for name, address in addresses.items()}

    assert found == {name: statuses[PERSONS.index(person)] for name, statuses in EXPECTED.items()}


@pytest.mark.parametrize("method", ["trace", "put", "patch", "delete"])
def test_no_address_takes_a_method_that_it_does_not_need(method, addresses, browse):
    client = browse("dba")
    public = {"login"}  # sends away whoever has logged in, by any method

    for name, address in addresses.items():
        status = client.generic(method.upper(), address).status_code
        assert status == 405 or name in public, (name, status)


def test_get_changes_nothing(addresses, browse):
    before = Action.objects.count()
    client = browse("dba")

    for address in addresses.values():
        client.head(address)
        client.get(address)

    assert Action.objects.count() == before


@pytest.mark.parametrize("name", sorted(ACTING))
def test_a_stranger_can_post_nothing(name, addresses, browse):
    assert browse("stranger").post(addresses[name]).status_code == ACTING[name]


@pytest.mark.parametrize(
    "name",
    [name for name, status in ACTING.items() if status == 403 and name != "standing-rule-new"],
)
def test_a_dba_manages_neither_targets_nor_people(name, addresses, browse):
    assert browse("dba").post(addresses[name]).status_code == 403


MOMENT = "2026-03-01T12:00:00.000001+00:00"
TABLE = {"database": "shop", "table": "public.t"}
BACKEND = {"pid": "4711", "backend_start": MOMENT, "query_start": MOMENT}


@pytest.mark.parametrize(
    ("person", "action", "arguments"),
    [
        ("viewer", "vacuum", TABLE),
        ("viewer", "cancel_backend", BACKEND),
        ("cancel-only", "vacuum", TABLE),
        ("cancel-only", "terminate_backend", BACKEND),
        ("operator", "vacuum_full", TABLE),
        ("operator", "terminate_backend", BACKEND),
        ("operator", "set_autovacuum", TABLE),
        ("operator", "reindex", TABLE),
        ("operator", "cluster", TABLE),
    ],
)
def test_a_role_can_not_ask_for_more_than_it_has(
    person, action, arguments, addresses, browse, shop
):
    address = reverse("action-new", args=[shop.name, action])

    assert browse(person).post(address, arguments).status_code == 403
    assert not Action.objects.filter(state__in=["draft", "queued", "running"]).exists()


def test_a_role_of_ones_own_may_what_it_names(addresses, browse, shop):
    address = reverse("action-new", args=[shop.name, "cancel_backend"])

    assert browse("cancel-only").post(address, BACKEND).status_code == 302

    asked = Action.objects.get(name="cancel_backend")
    assert (asked.asked_by_name, asked.state) == ("cancel-only", "queued")


def test_without_a_login_every_post_leads_to_the_login(addresses):
    for name, address in addresses.items():
        if name in {"login", "healthz-live", "healthz-ready"}:
            continue
        response = Client().post(address)
        assert (response.status_code, response["Location"]) == (302, "/login/"), name


def test_a_post_without_its_token_is_refused(people, addresses):
    client = Client(enforce_csrf_checks=True)
    client.force_login(people["dba"])

    for name, address in addresses.items():
        if name.startswith("healthz"):
            continue
        response = client.post(address, {"theme": "dark"})
        assert response.status_code == 403, name
        assert "too old" in response.content.decode()


def test_programs_without_a_login_get_401(addresses):
    for name in ("vacuum", "overview", "fleet", "activity", "actions", "queries", "findings"):
        for wanted in ("json", "csv"):
            response = Client().get(addresses[name], {"format": wanted})
            assert response.status_code == 401


def test_htmx_without_a_login_is_sent_away_and_shown_nothing(addresses):
    response = Client().get(
        addresses["vacuum"],
        headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/targets/shop-1/?q=a"},
    )

    assert response.status_code == 401
    assert response["HX-Redirect"] == "/login/?next=%2Ftargets%2Fshop-1%2F%3Fq%3Da"
    assert not response.content


def test_an_unknown_address_tells_an_anonymous_nothing():
    assert Client().get("/no/such/page/").status_code == 302


def test_what_one_may_not_see_looks_like_what_is_not_there(addresses, browse):
    client = browse("stranger")
    hidden = client.get(addresses["overview"]).content
    absent = client.get(reverse("overview", args=["no-such-target"])).content

    assert hidden == absent


def test_a_right_that_was_taken_away_counts_at_once(addresses, browse, people):
    client = browse("viewer")
    assert client.get(addresses["vacuum"]).status_code == 200

    Grant.objects.filter(user=people["viewer"]).delete()

    assert client.get(addresses["vacuum"]).status_code == 404


def test_a_person_who_may_no_longer_log_in_is_out_at_once(addresses, browse, people):
    client = browse("dba")
    people["dba"].is_active = False
    people["dba"].save()

    assert client.get(addresses["fleet"]).status_code == 302


def test_no_cache_keeps_a_page(addresses, browse):
    response = browse("viewer").get(addresses["vacuum"])

    assert "no-store" in response["Cache-Control"]


def test_another_host_name_is_refused(addresses, browse):
    assert (
        browse("viewer").get(addresses["fleet"], headers={"Host": "evil.example"}).status_code
        == 400
    )


def test_an_action_of_another_target_is_not_found(addresses, browse, people, watch, embedded):
    other = watch(embedded, name="other", env="staging")
    Grant.objects.create(user=people["stranger"], role="dba", target=other)
    client = browse("stranger")

    assert client.get(addresses["action"]).status_code == 404
    assert client.get(reverse("action", args=[uuid.uuid4()])).status_code == 404
    assert client.post(addresses["action-stop"]).status_code == 404


@pytest.mark.parametrize("wanted", ["json", "csv"])
def test_an_export_is_in_the_audit(wanted, addresses, browse, people):
    query = {"format": wanted, "q": "a"}

    assert browse("viewer").get(addresses["vacuum"], query).status_code == 200

    entry = AuditEntry.objects.get(what="export")
    assert (entry.who, entry.target_name, entry.object_name) == ("viewer", "shop-1", "vacuum")
    assert entry.detail == {"query": f"format={wanted}&q=a"}


def test_a_page_or_a_refused_export_is_not(addresses, browse):
    browse("viewer").get(addresses["vacuum"])
    browse("viewer").head(addresses["vacuum"], {"format": "csv"})
    browse("viewer").get(addresses["vacuum"], {"format": "xlsx"})
    browse("anonymous").get(addresses["vacuum"], {"format": "csv"})
    browse("stranger").get(addresses["vacuum"], {"format": "csv"})

    assert not AuditEntry.objects.filter(what="export").exists()
