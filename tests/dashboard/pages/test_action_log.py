"""The log of actions and the audit: who sees what, filters and exports."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from dashboard.pages.action_log import ActionRow, LineRow, action_lines
from monitors.audit import entries
from monitors.models import Action, AuditEntry
from monitors.rows.audit import AuditRow, read_all
from tests.people import browser_of, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db


def acted(target, name="vacuum", **fields):
    options = {
        "sql": f"VACUUM public.{target.name.replace('-', '_')}",
        "asked_by_name": "maren",
        "state": "succeeded",
        "object_name": "shop: public.t",
        **fields,
    }
    created_at = options.pop("created_at", None)
    row = Action.objects.create(name=name, target=target, target_name=target.name, **options)
    if created_at:
        Action.objects.filter(pk=row.pk).update(created_at=created_at)
    return row


def listed(client, query="", path="/actions/"):
    return json.loads(client.get(f"{path}?format=json{query}").getvalue())


@pytest.fixture
def shop():
    return make_target("shop-1")


@pytest.fixture
def bank():
    return make_target("bank-1")


def test_it_lists_the_actions_of_visible_targets_alone(shop, bank):
    acted(shop)
    acted(bank)
    viewer = browser_of(person("viewer", "viewer", target=shop))

    assert [line["target"] for line in listed(viewer)] == ["shop-1"]
    page = viewer.get("/actions/").content.decode()
    assert "public.shop_1" in page
    assert "bank-1" not in page
    assert "bank_1" not in page


def test_a_targets_own_log_has_its_actions_alone_and_is_404_to_a_stranger(shop, bank):
    acted(shop)
    acted(bank)
    dba = browser_of(person("dba", "dba"))

    lines = listed(dba, path="/targets/bank-1/actions/")

    assert [line["target"] for line in lines] == ["bank-1"]
    stranger = browser_of(person("stranger"))
    assert stranger.get("/targets/bank-1/actions/").status_code == 404


def test_drafts_are_in_no_list(shop):
    acted(shop, state="draft")

    assert listed(browser_of(person("dba", "dba"))) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("&action=analyze", ["b"]),
        ("&person=tomasz", ["c"]),
        ("&outcome=failed", ["c"]),
        ("&target=bank-1", ["b"]),
        ("&q=DEAD ROWS", ["a"]),
        ("&q=100%", []),
        ("", ["c", "b", "a"]),
    ],
)
def test_it_filters(shop, bank, query, found):
    acted(shop, reason="a", effect="dead rows 9 → 0")
    acted(bank, "analyze", reason="b")
    acted(shop, reason="c", asked_by_name="tomasz", state="failed")

    lines = listed(browser_of(person("dba", "dba")), query)

    assert [line["reason"] for line in lines] == found


def test_the_window_is_seven_days_unless_the_query_names_another(shop):
    now = timezone.now()
    acted(shop, reason="today")
    acted(shop, reason="last week", created_at=now - timedelta(days=6))
    acted(shop, reason="long ago", created_at=now - timedelta(days=20))
    dba = browser_of(person("dba", "dba"))

    def reasons(query=""):
        return [line["reason"] for line in listed(dba, query)]

    assert reasons() == ["today", "last week"]
    assert reasons("&window=1h") == ["today"]
    assert reasons("&window=30d") == ["today", "last week", "long ago"]


def test_the_export_has_more_than_the_page_and_times_of_six_digits(shop):
    begun = timezone.now().replace(microsecond=120000)
    for _ in range(60):
        acted(shop, started_at=begun, finished_at=begun + timedelta(seconds=1.5))
    dba = browser_of(person("dba", "dba"))

    text = dba.get("/actions/?format=csv").getvalue().decode()
    lines = list(csv.DictReader(io.StringIO(text)))

    assert len(lines) == 60
    assert lines[0]["seconds"] == "1.5"
    assert ".120000" in lines[0]["started_at"]
    assert dba.get("/actions/").content.decode().count('id="action-') == 50
    assert dba.get("/actions/?page=2").content.decode().count('id="action-') == 10


def test_a_formula_in_a_reason_is_no_formula_in_csv(shop):
    acted(shop, reason="=1+1")

    text = browser_of(person("dba", "dba")).get("/actions/?format=csv").getvalue().decode()

    assert "'=1+1" in text


def test_a_signal_is_listed_by_its_function(shop):
    acted(shop, "cancel_backend", arguments={"pid": "4711"}, sql="WITH target AS …")

    page = browser_of(person("dba", "dba")).get("/actions/").content.decode()

    assert "pg_cancel_backend(<i>4711</i>)" in page


def test_the_audit_shows_everything_to_an_admin_own_targets_to_a_dba_own_deeds_to_others(
    shop, bank
):
    entries.add("target.edit", "admin", "test", target_name="bank-1")
    entries.add("target.edit", "admin", "test", target_name="shop-1")
    entries.add("login", "viewer", "test")
    people = {
        "admin": person("admin", "admin"),
        "dba": person("dba", "dba", target=shop),
        "viewer": person("viewer", "viewer", target=shop),
    }

    seen = {
        name: {
            (line["what"], line["target_name"]) for line in listed(browser_of(user), "&view=audit")
        }
        for name, user in people.items()
    }

    assert seen["admin"] == {("target.edit", "bank-1"), ("target.edit", "shop-1"), ("login", "")}
    assert seen["dba"] == {("target.edit", "shop-1")}
    assert seen["viewer"] == {("login", "")}


def test_the_audits_page_names_kind_and_source(shop):
    entries.add("target.edit", "admin", "192.0.2.7", target_name="shop-1")

    page = browser_of(person("admin", "admin")).get("/actions/?view=audit").content.decode()

    assert "192.0.2.7" in page
    assert "target.edit" in page


def test_what_runs_or_waits_stands_on_top(shop):
    acted(shop, state="waiting", reason="disk is full")
    acted(shop)

    page = browser_of(person("dba", "dba")).get("/actions/").content.decode()

    assert "1 runs or waits" in page
    assert "disk is full" in page


def test_empty_has_words_of_its_own(shop):
    dba = browser_of(person("dba", "dba"))

    assert "No action in this window" in dba.get("/actions/").content.decode()
    assert "Nothing matches" in dba.get("/actions/?q=x").content.decode()


def test_exports_need_a_login_and_pages_no_post(shop):
    assert Client().get("/actions/?format=json").status_code == 401
    assert browser_of(person("dba", "dba")).post("/actions/").status_code == 405


def test_rows_are_what_their_types_say(shop):
    acted(shop, started_at=timezone.now(), finished_at=timezone.now())
    entries.add("export", "maren", "test", object_name="tables")
    dba = browser_of(person("dba", "dba"))

    for entry in read_all(AuditEntry.objects.all()):
        assert_typed(entry, AuditRow)
    for row in action_lines(Action.objects.all()):
        assert_typed(row, ActionRow)
    for line in dba.get("/actions/").context["listing"].rows:
        assert_typed(line, LineRow)
