"""The Stuck page: what is stuck where, who may press what, and what is not known."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.utils import timezone

from dashboard.pages.stuck import LineRow
from monitors.acting import stuck
from monitors.models import (
    HISTORY,
    Action,
    AuditEntry,
    Environment,
    ProbeState,
    StandingRule,
    StuckDefinition,
)
from monitors.rows.standing_rules import RuleRow
from monitors.rows.stuck import COLUMNS
from tests.people import HTMX, browser_of, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db
READ_AT = timezone.now().replace(microsecond=123456)
START = READ_AT - timedelta(hours=2)


def keep(target, pid, *, seconds=1000.0, **columns):
    """Store a backend as the last snapshot left it."""
    begun = READ_AT - timedelta(seconds=seconds)
    options = {
        "state": "active",
        "query": f"SELECT {pid} FROM t WHERE a = ?",
        "query_start": begun,
        "xact_start": begun,
        "state_change": begun,
        "application_name": "web-api",
        "usename": "joe",
        "datname": "shop",
        "backend_type": "client backend",
        **columns,
    }
    HISTORY["activity"].latest._default_manager.create(
        target_id=target.pk,
        database_id=0,
        pid=pid,
        backend_start=START,
        since_at=READ_AT,
        changed_at=READ_AT,
        **options,
    )


def read(target, **columns):
    """Say that a target was read just now."""
    options = {"state": "ok", "taken_at": timezone.now(), "target_at": READ_AT, **columns}
    return ProbeState.objects.create(target=target, probe="activity", **options)


@pytest.fixture
def two():
    """Two targets: on one a root with two waiters, on the other a statement that runs long."""
    shop = make_target("shop-1")
    other = make_target("pay-1", environment="production")
    read(shop, stuck=3)
    read(other, stuck=1)
    keep(shop, 10, seconds=60, state="idle in transaction")
    keep(shop, 11, seconds=50, wait_event_type="Lock", blocked_by=[10])
    keep(shop, 12, seconds=40, wait_event_type="Lock", blocked_by=[10, 11])
    keep(other, 20, seconds=1000, usename="etl")
    return shop, other


def text_of(client, query=""):
    response = client.get(f"/stuck/{query}")
    assert response.status_code == 200
    return response.content.decode()


def rows_of(client, query=""):
    return json.loads(client.get(f"/stuck/?format=json{query}").getvalue())


def presses(text):
    """Return (target, action) of the forms that act."""
    return re.findall(r'<form[^>]*action="/targets/([\w-]+)/actions/(\w+)/"', text)


def fields_of(text):
    """Return what the first form that releases on shop-1 sends."""
    [form, *_] = re.findall(r"<form[^>]*shop-1/actions/release_backend/.*?</form>", text, re.S)
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))


def test_the_worst_of_all_targets_comes_first(two):
    client = browser_of(person("dba", "dba"))

    rows, text = rows_of(client), text_of(client)

    assert [(row["target"], row["pid"], row["stuck"], row["blocking"]) for row in rows] == [
        ("shop-1", 10, "blocking", 2),
        ("shop-1", 11, "blocked", 1),
        ("pay-1", 20, "running", 0),
        ("shop-1", 12, "blocked", 0),
    ]
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["why"] == "Has kept others waiting for 50 s, over the limit of 30 s."
    assert "4 backends are stuck on 2 targets." in text
    assert 'data-env="plum"' in text
    assert "4<span" in re.sub(r"\s+", "", text.split('href="/stuck/"')[1][:600])
    assert presses(text) == [(row["target"], "release_backend") for row in rows]
    for row in client.get("/stuck/").context["listing"].rows:
        assert_typed(row, LineRow)
    assert [row["pid"] for row in rows_of(client, "&q=etl")] == [20]


def test_each_sees_and_presses_what_they_may(two):
    shop, _ = two
    cache.set(f"activity:{shop.pk}", {f"10:{START.isoformat()}": "SELECT 'secret'"}, 30)

    operator = text_of(browser_of(person("op", "operator", target=shop)))
    viewer = text_of(browser_of(person("viewer", "viewer")))
    nobody = text_of(browser_of(person("nobody")))

    assert presses(operator) == [("shop-1", "cancel_backend")] * 2
    assert "pay-1" not in operator
    assert "secret" in operator
    assert presses(viewer) == []
    assert "does not include release_backend" in viewer
    assert "secret" not in viewer
    assert "There is no target that you may see" in nobody
    assert "shop-1" not in nobody


def test_a_press_is_one_action_and_is_then_shown_in_its_place(two):
    client = browser_of(person("dba", "dba"))
    fields = fields_of(text_of(client))

    for _ in range(2):
        answer = client.post("/targets/shop-1/actions/release_backend/", fields, headers=HTMX)
        assert answer.status_code == 200

    [row] = Action.objects.all()
    assert (row.name, row.state, row.arguments["pid"]) == ("release_backend", "queued", "10")
    assert f"/actions/{row.pk}/" in text_of(client)
    assert ("shop-1", "release_backend") in presses(text_of(client))  # of its waiters
    assert len(presses(text_of(client))) == 3


def test_where_a_reason_is_asked_for_the_press_has_a_field(two):
    Environment.objects.filter(name="development").update(reason_required=True)
    client = browser_of(person("dba", "dba"))
    text = text_of(client)
    fields = fields_of(text)

    assert text.count('name="reason"') == 3
    without = client.post("/targets/shop-1/actions/release_backend/", fields)
    assert (without.status_code, Action.objects.count()) == (409, 0)
    client.post("/targets/shop-1/actions/release_backend/", {**fields, "reason": "It hangs"})
    assert Action.objects.get().reason == "It hangs"


def test_what_is_not_read_now_is_named_with_its_age(two):
    shop, _ = two
    long_ago = timezone.now() - timedelta(minutes=14)
    ProbeState.objects.filter(target=shop).update(
        state="unreachable", taken_at=long_ago, reason="connection refused"
    )
    client = browser_of(person("dba", "dba"))

    text = text_of(client)

    assert [row["pid"] for row in rows_of(client)] == [20]
    assert "Of 1 target it is not known now." in text
    assert "connection refused" in text
    assert "14 min ago" in text
    ProbeState.objects.update(state="failed")
    assert "No target is read now." in text_of(client)
    assert "Nothing is stuck" not in text_of(client)


def test_an_admin_defines_and_removes_and_nobody_else(two):
    admin, dba = browser_of(person("root", "admin", "viewer")), browser_of(person("dba", "dba"))
    fields = {"application_name": "web-*", "usename": "etl", "running": "7200"}

    assert dba.post("/stuck/definitions/", fields).status_code == 403
    assert "Define it for somebody" not in dba.get("/stuck/definitions/").content.decode()
    assert admin.post("/stuck/definitions/", {"running": "5"}).status_code == 400
    assert admin.post("/stuck/definitions/", {**fields, "running": "0"}).status_code == 400
    assert admin.post("/stuck/definitions/", fields).status_code == 302

    assert [row["pid"] for row in rows_of(admin)] == [10, 11, 12]
    listed = json.loads(dba.get("/stuck/definitions/?format=json").getvalue())
    made = {row["scope"]: row for row in listed}["application web-*, user etl"]
    assert (made["running"], made["blocked"], made["source"]) == (7200, None, "root")
    assert {row["scope"] for row in listed} >= {"fleet", "application pg_dump"}
    row = StuckDefinition.objects.get()
    assert dba.post(f"/stuck/definitions/{row.pk}/remove/").status_code == 403
    assert admin.post(f"/stuck/definitions/{row.pk}/remove/").status_code == 302
    assert len(rows_of(admin)) == 4
    events = AuditEntry.objects.filter(what__startswith="stuck.", result="").values_list("what")
    assert set(events) == {("stuck.define",), ("stuck.forget",)}


def test_commands_say_what_the_pages_say(two, capsys):
    person("root", "admin")
    person("dba", "dba")

    def said(*arguments):
        call_command(*arguments)
        return capsys.readouterr().out.strip()

    assert [row["pid"] for row in json.loads(said("stuck", "--json"))] == [10, 11, 20, 12]
    assert len(said("stuck", "--target", "pay-1").splitlines()) == 1
    said("stuck", "define", "--application", "web-*", "--user", "etl", "--as", "root")
    [defined] = json.loads(said("stuck", "definitions", "--json"))
    assert (defined["usename"], defined["running"]) == ("etl", None)
    assert [row["pid"] for row in json.loads(said("stuck", "--json"))] == [10, 11, 12]
    said("stuck", "forget", "--application", "web-*", "--user", "etl", "--as", "root")
    assert said("stuck", "definitions") == ""

    add = ("rule", "add", "no-etl", "--as", "dba", "--user", "etl", "--seconds", "60")
    assert said(*add, "--target", "pay-1") == "no-etl watches in shadow."
    stuck.look(two[1].pk, {"activity"})
    assert [row["result"] for row in json.loads(said("rule", "firings", "--json"))] == ["would"]
    assert "would have fired 1 times" in said("rule", "enable", "no-etl", "--as", "dba")
    [row] = json.loads(said("rule", "list", "--json"))
    assert (row["mode"], row["scope"], row["would_24h"]) == ("live", "target pay-1", 1)
    said("rule", "stop-all", "--as", "dba")
    said("rule", "go-on", "--as", "root")
    said("rule", "disable", "no-etl", "--as", "dba")
    said("rule", "remove", "no-etl", "--as", "dba")
    assert said("rule", "list") == ""


RULE = {
    "name": "no-etl",
    "scope": "target pay-1",
    "usename": "etl",
    "state": "running",
    "seconds": "60",
    "action": "cancel_backend",
    "at_most": "6",
}


def test_a_rule_is_made_watched_and_enabled_by_who_may(two):
    dba, viewer = browser_of(person("dba", "dba")), browser_of(person("viewer", "viewer"))
    stranger = browser_of(person("stranger"))

    assert viewer.post("/stuck/rules/new/", RULE).status_code == 403
    assert dba.post("/stuck/rules/new/", {**RULE, "seconds": "1"}).status_code == 400
    wrong = {**RULE, "state": "idle_in_transaction"}
    assert "Cancel does nothing" in dba.post("/stuck/rules/new/", wrong).content.decode()
    assert dba.post("/stuck/rules/new/", RULE).status_code == 302
    stuck.look(two[1].pk, {"activity"})

    text = dba.get("/stuck/rules/").content.decode()
    assert "it would have fired 1 time" in " ".join(text.split())
    [row] = json.loads(viewer.get("/stuck/rules/?format=json").getvalue())
    assert (row["mode"], row["would_24h"], row["owner"]) == ("shadow", 1, "dba")
    [fired] = json.loads(viewer.get("/stuck/firings/?format=json").getvalue())
    assert (fired["pid"], fired["query"]) == (20, "SELECT 20 FROM t WHERE a = ?")
    assert json.loads(stranger.get("/stuck/rules/?format=json").getvalue()) == []
    assert json.loads(stranger.get("/stuck/firings/?format=json").getvalue()) == []
    for row in dba.get("/stuck/rules/").context["rows"]:
        assert_typed(row, RuleRow)

    assert viewer.post("/stuck/rules/no-etl/switch/", {"mode": "live"}).status_code == 403
    assert stranger.post("/stuck/rules/no-etl/switch/", {"mode": "live"}).status_code == 404
    assert dba.post("/stuck/rules/no-etl/switch/", {"mode": "all"}).status_code == 400
    dba.post("/stuck/rules/no-etl/switch/", {"mode": "live"})
    stuck.look(two[1].pk, {"activity"})
    assert Action.objects.get().reason == "Rule no-etl"
    changed = dba.post("/stuck/rules/no-etl/", {**RULE, "seconds": "70"})
    assert (changed.status_code, StandingRule.objects.get().shadow) == (302, True)
    dba.post("/stuck/stop/", {"stopped": "true"})
    assert "All rules are stopped" in dba.get("/stuck/rules/").content.decode()
    assert viewer.post("/stuck/stop/", {"stopped": "true"}).status_code == 403
    assert dba.post("/stuck/rules/no-etl/remove/").status_code == 302
    assert not StandingRule.objects.exists()
