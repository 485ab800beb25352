"""The Activity page: backends, who waits for whom, and who may press what."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape as html_unescape

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.pages.activity import LineRow
from monitors.acting import batch, perform, preview
from monitors.collect import live as sharing
from monitors.collect.rounds import take_now
from monitors.history import partitions
from monitors.models import HISTORY, Action, Batch, ProbeState, Target
from monitors.rows.backend_groups import STATES, IdleRow
from monitors.rows.backends import COLUMNS
from tests.people import HTMX, browser_of, make_role, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db
READ_AT = timezone.now().replace(microsecond=123456)
START = READ_AT - timedelta(hours=2)


def keep(target, pid, *, seconds=10.0, **columns):
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


@pytest.fixture
def target():
    made = make_target()
    ProbeState.objects.create(
        target=made, probe="activity", state="ok", taken_at=timezone.now(), target_at=READ_AT
    )
    return made


@pytest.fixture
def dba(target):
    return browser_of(person("dba", "dba", target=target))


def page(client, query=""):
    response = client.get(f"/targets/shop-1/activity/{query}")
    assert response.status_code == 200
    return response.content.decode()


def rows(client, query=""):
    response = client.get(f"/targets/shop-1/activity/?format=json{query}")
    return json.loads(response.getvalue())


def test_it_shows_what_is_not_idle_longest_first(target, dba):
    keep(target, 1, seconds=3)
    keep(target, 2, seconds=60)
    keep(target, 3, state="idle")
    keep(target, 4, state=None, query_start=None, backend_type="walwriter")

    assert [row["pid"] for row in rows(dba)] == [2, 1]


def test_filter_all_lifts_the_default(target, dba):
    keep(target, 1)
    keep(target, 3, state="idle")
    keep(target, 4, state=None, query_start=None, backend_type="walwriter")

    assert {row["pid"] for row in rows(dba, "&filter=all")} == {1, 3, 4}


def test_it_marks_statements_over_5_seconds(target, dba):
    keep(target, 1, seconds=3)
    assert "over 5 seconds" not in page(dba)

    keep(target, 2, seconds=6)
    assert "over 5 seconds" in page(dba)


def test_it_exports_the_columns_of_pg_stat_activity_and_computed_ones(target, dba):
    keep(target, 1, state="idle in transaction", backend_xid=2**40, query_id=-(2**62))
    keep(target, 2, blocked_by=[1], wait_event_type="Lock", wait_event="transactionid")

    by_pid = {row["pid"]: row for row in rows(dba)}

    assert tuple(by_pid[1]) == COLUMNS
    assert (by_pid[1]["blocking"], by_pid[2]["blocking"]) == (1, 0)
    assert by_pid[2]["blocked_by"] == [1]
    assert by_pid[2]["query_seconds"] == 10.0
    assert by_pid[1]["backend_xid"] == str(2**40)
    assert by_pid[1]["query_id"] == str(-(2**62))
    start = datetime.fromisoformat(by_pid[1]["backend_start"])
    assert start == START
    assert ".123456" in by_pid[1]["backend_start"]


def test_csv_has_every_row_beyond_the_page(target, dba):
    for pid in range(1, 61):
        keep(target, pid)

    text = dba.get("/targets/shop-1/activity/?format=csv").getvalue().decode()

    assert len(list(csv.DictReader(io.StringIO(text)))) == 60


def test_an_export_without_a_login_is_401(target):
    assert Client().get("/targets/shop-1/activity/?format=json").status_code == 401


def test_it_is_404_to_a_stranger(target):
    client = browser_of(person("stranger"))

    assert client.get("/targets/shop-1/activity/").status_code == 404
    assert client.get("/targets/no-such/activity/").status_code == 404


def test_the_root_blocker_stands_on_top_with_terminate_alone(target, dba):
    keep(target, 4321, state="idle in transaction", application_name="billing-api")
    keep(target, 5107, blocked_by=[4321], wait_event_type="Lock", wait_event="relation")

    html = page(dba)
    tree = html[html.index('id="tree"') : html.index('id="backends"')]

    assert tree.index("4321") < tree.index("5107")
    assert "billing-api" in tree
    assert "Terminate 4321" in tree
    assert "Cancel 4321" not in html
    assert "Cancel 5107" in tree


def test_cancel_carries_the_microseconds_and_a_key_of_its_own(target, dba):
    keep(target, 1, seconds=1)
    keep(target, 2, seconds=1)

    html = page(dba)

    began = (READ_AT - timedelta(seconds=1)).astimezone(UTC).isoformat(" ", "microseconds")
    assert f'name="query_start" value="{began}"' in html
    keys = [part.split('"')[0] for part in html.split('name="idempotency_key" value="')[1:]]
    assert len(keys) == len(set(keys)) == 2


@pytest.mark.parametrize(
    "state", ["active", "idle in transaction", "idle in transaction (aborted)", "idle"]
)
@pytest.mark.parametrize(
    ("superuser", "allowed", "possible"),
    [(True, False, False), (True, True, True), (False, False, True), (None, False, True)],
)
def test_a_superusers_backend_is_beyond_an_operator_login_that_is_none(
    target, dba, state, superuser, allowed, possible
):
    Target.objects.update(allow_superuser=allowed)
    keep(target, 1, state=state, rolsuper=superuser)
    keep(target, 2, blocked_by=[1], wait_event_type="Lock", rolsuper=False)

    html = page(dba, "?filter=all")

    said = html.count('title="A superuser&#x27;s backend can be signalled by a superuser alone')
    assert (said == 0) is possible
    assert ('name="pid" value="1"' in html) is possible
    assert 'name="pid" value="2"' in html


@pytest.mark.parametrize(
    ("role", "cancels", "terminates"),
    [
        ("viewer", False, False),
        ("cancel-only", True, False),
        ("operator", True, False),
        ("dba", True, True),
    ],
)
def test_buttons_are_disabled_with_the_reason_for_who_may_not(target, role, cancels, terminates):
    keep(target, 1)
    keep(target, 2, state="idle in transaction")
    keep(target, 3, state="idle")

    html = page(browser_of(person("somebody", role, target=target)))

    assert ("actions/cancel_backend/" in html) is cancels
    assert ("actions/terminate_backend/" in html) is terminates
    assert ("Your role on shop-1 does not include cancel_backend" in html) is not cancels


def test_a_disabled_button_names_roles_of_ones_own_that_are_read_once(target):
    make_role()
    for pid in range(1, 9):
        keep(target, pid)
    viewer = browser_of(person("somebody", "viewer", target=target))

    with CaptureQueriesContext(connection) as asked:
        html = page(viewer)

    assert html.count("Ask an admin for operator, dba or cancel-only.") >= 8
    readings = [one for one in asked if one["sql"].startswith('SELECT "monitors_role"')]
    assert len(readings) < 8  # the page names them for sentences of its own, not one a backend


def test_without_an_operator_login_nothing_can_be_pressed(target, dba):
    target.operator_user = ""
    target.save()
    keep(target, 1)

    html = page(dba)

    assert "actions/cancel_backend/" not in html
    assert "has no operator login" in html


def forms(html, action):
    """Return what the buttons of an action post: {pid: its inputs' names}."""
    found = {}
    for rest in html.split(f"actions/{action}/")[1:]:
        values = dict(re.findall(r'name="(\w+)" value="([^"]*)"', rest.partition("</form>")[0]))
        found[int(values["pid"])] = set(values) - {"pid", "back", "csrfmiddlewaretoken"}
    return found


def test_active_and_idle_sessions_can_be_terminated(target, dba):
    keep(target, 1)
    keep(target, 2, state="idle in transaction")
    keep(target, 3, state="idle")

    assert forms(page(dba, "?filter=all"), "terminate_backend") == {
        1: {"backend_start", "query_start"},
        2: {"backend_start", "xact_start", "state_change"},
        3: {"backend_start", "state_change"},
    }
    assert set(forms(page(dba), "terminate_backend")) == {1, 2}
    assert "filter=all#backends" in page(dba)


def test_a_client_that_takes_our_name_is_none_of_ours(target, dba):
    keep(target, 1, application_name="howdah:collector:fast")

    assert set(forms(page(dba), "terminate_backend")) == {1}


def test_howdahs_own_and_the_servers_backends_have_no_button(target, dba):
    keep(target, 1, application_name="howdah:collector:fast", usename="collector")
    keep(target, 2, backend_type="autovacuum worker")

    html = page(dba)

    assert "actions/cancel_backend/" not in html
    assert "actions/terminate_backend/" not in html
    assert "own" in html


@pytest.mark.parametrize(
    ("role", "sees"), [("viewer", False), ("cancel-only", False), ("operator", True)]
)
def test_literals_show_only_to_who_may_see_them(target, role, sees):
    keep(target, 1)
    in_another_zone = START.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    key = f"activity:{target.pk}"
    cache.set(key, {f"1:{in_another_zone.isoformat()}": "SELECT 1 WHERE a = 'secret'"}, 30)

    html = page(browser_of(person("somebody", role, target=target)))

    cache.delete(key)
    assert ("secret" in html) is sees


@pytest.fixture
def share(target):
    """A function that shares a live reading of one backend: share(pid, seconds after READ_AT)."""

    def publish(pid, seconds, text="SELECT 1 WHERE a = 'secret'"):
        sample = HISTORY["activity"].sample
        at = READ_AT + timedelta(seconds=seconds)
        known = {
            "pid": pid,
            "backend_start": START,
            "query_start": READ_AT,
            "state": "active",
            "query": "SELECT ? WHERE a = ?",
            "backend_type": "client backend",
        }
        row = tuple(known.get(name) for name in sample.columns())
        sharing.publish(target.pk, sample, [row], {sharing.text_key((pid, START)): text}, at)

    yield publish
    cache.delete(f"live:activity:{target.pk}")


def test_who_looks_at_now_has_it_read_live(target, dba):
    cache.delete(f"live:watch:{target.pk}")
    page(dba, f"?at={int(READ_AT.timestamp())}")
    assert sharing.watched([target.pk]) == []

    page(dba)

    assert sharing.watched([target.pk]) == [target.pk]


def test_a_live_reading_comes_before_the_stored_one(target, dba, share):
    keep(target, 1)
    share(2, seconds=7)

    (row,) = rows(dba)

    assert (row["pid"], row["query_seconds"]) == (2, 7.0)
    assert "Live" in fresh(page(dba))


def test_an_older_live_reading_gives_way_to_the_stored_one(target, dba, share):
    keep(target, 1)
    share(2, seconds=-1)

    assert [row["pid"] for row in rows(dba)] == [1]
    assert "Live" not in fresh(page(dba))


def test_the_past_is_never_live(target, dba, share):
    share(2, seconds=1)

    assert "Live" not in fresh(page(dba, f"?at={int(READ_AT.timestamp()) - 60}"))


@pytest.mark.parametrize(
    ("role", "sees"), [("viewer", False), ("cancel-only", False), ("operator", True)]
)
def test_live_literals_show_only_to_who_may_see_them(target, share, role, sees):
    share(1, seconds=1)

    html = page(browser_of(person("somebody", role, target=target)))

    assert ("secret" in html) is sees


def fresh(html):
    start = html.index('id="fresh"')
    return html[start : html.index("fresh-paused", start)]


def test_what_was_just_cancelled_is_not_offered_again(target, dba):
    keep(target, 1, seconds=1)
    times = {"backend_start": START, "query_start": READ_AT - timedelta(seconds=1)}
    spelled = {
        name: at.astimezone(UTC).isoformat(" ", "microseconds") for name, at in times.items()
    }
    Action.objects.create(
        name="cancel_backend",
        target=target,
        target_name=target.name,
        arguments={"pid": "1", **spelled},
        asked_by_name="dba",
        state="succeeded",
    )

    assert "Cancel 1<" not in page(dba)


@pytest.mark.parametrize(
    ("word", "pids"),
    [
        ("", {1, 2, 3}),
        ("active", {1, 3}),
        ("transaction", {2}),
        ("waiting", {3}),
        ("blocked", {3}),
        ("blocking", {2}),
        ("idle", {4}),
        ("all", {1, 2, 3, 4}),
    ],
)
def test_it_filters_by_what_backends_do_and_counts_them(target, dba, word, pids):
    keep(target, 1)
    keep(target, 2, state="idle in transaction")
    keep(target, 3, blocked_by=[2], wait_event_type="Lock", wait_event="transactionid")
    keep(target, 4, state="idle")

    html = page(dba, f"?filter={word}")

    assert set(map(int, re.findall(r'id="backend-(\d+)"', html))) == pids
    assert {row["pid"] for row in rows(dba, f"&filter={word}")} == pids
    title, _ = STATES[word]
    assert re.search(rf'aria-current="true">\s*{title} {len(pids)}</a>', html)


def test_it_groups_with_counts_and_the_longest_and_leads_to_each(target, dba):
    keep(target, 1, seconds=3, application_name="web-api")
    keep(target, 2, seconds=60, application_name="web-api")
    keep(target, 3, state="idle in transaction", application_name=None)
    keep(target, 4, blocked_by=[3], wait_event_type="Lock", application_name=None)

    html = page(dba, "?group=application_name")
    none, web = rows(dba, "&group=application_name")

    assert (web["value"], web["backends"], web["active"]) == ("web-api", 2, 2)
    assert (web["longest_pid"], web["longest_seconds"]) == (2, 60.0)
    assert (none["value"], none["in_transaction"], none["blocked"]) == ("", 1, 1)
    assert none["longest_pid"] == 4
    assert "?by=application_name&amp;value=web-api#backends" in html
    assert {row["pid"] for row in rows(dba, "&by=application_name&value=web-api")} == {1, 2}
    assert {row["pid"] for row in rows(dba, "&by=application_name")} == {3, 4}
    assert "Application: web-api" in page(dba, "?by=application_name&value=web-api")


def test_statements_are_grouped_without_their_values_and_named_by_a_hash(target, dba, share):
    keep(target, 1)
    share(2, seconds=7)

    [row] = rows(dba, "&group=query")
    html = page(dba, "?group=query")
    [link] = re.findall(r"\?by=query&amp;value=([0-9a-f]+)#", html)

    assert row["value"] == "SELECT ? WHERE a = ?"
    assert [one["pid"] for one in rows(dba, f"&by=query&value={link}")] == [2]


def test_an_unknown_group_or_filter_is_a_bad_request(dba):
    for query in ("group=pid", "by=pid", "filter=busy", "sort=wobble"):
        assert dba.get(f"/targets/shop-1/activity/?{query}").status_code == 400


def test_a_parallel_statement_is_one_line_and_each_process_a_row_of_the_export(target, dba):
    keep(target, 1)
    keep(target, 2, leader_pid=1, backend_type="parallel worker", wait_event_type="IO")
    keep(target, 3, leader_pid=1, backend_type="parallel worker")
    keep(target, 4, leader_pid=99, backend_type="parallel worker")

    html = page(dba)

    assert set(re.findall(r'id="backend-(\d+)"', html)) == {"1", "4"}
    assert "+2 workers" in html
    assert "2 of 2" in html
    assert {row["pid"]: row["leader_pid"] for row in rows(dba)} == {1: None, 2: 1, 3: 1, 4: 99}


def test_it_shows_how_far_a_statement_is_and_explains_its_wait(target, dba):
    keep(target, 1, wait_event_type="IO", wait_event="DataFileRead")
    keep(target, 2, seconds=20)
    for pid, began, done in ((1, 10, 500), (2, 10, 900)):  # that of 2 is of a former statement
        HISTORY["progress"].latest._default_manager.create(
            target_id=target.pk,
            database_id=0,
            pid=pid,
            command="CREATE INDEX",
            phase="building index: scanning table",
            done=done,
            total=1000,
            autovacuum=False,
            started_at=READ_AT - timedelta(seconds=began),
            since_at=READ_AT,
            changed_at=READ_AT,
        )

    html = page(dba)
    first, second = sorted(rows(dba), key=lambda row: row["pid"])

    assert (first["progress_command"], first["progress_pct"]) == ("CREATE INDEX", 50.0)
    assert second["progress_command"] is None
    assert "CREATE INDEX: building index: scanning table" in html
    assert "that are not in shared buffers" in first["wait_meaning"]
    assert first["wait_meaning"] in html


@pytest.mark.parametrize(
    ("role", "actions"),
    [
        ("viewer", set()),
        ("operator", {"cancel_backend"}),
        ("dba", {"cancel_backend", "terminate_backend"}),
    ],
)
def test_several_can_be_marked_by_who_may_act(target, role, actions):
    keep(target, 1)
    keep(target, 2, state="idle in transaction")
    keep(target, 3, backend_type="walsender")
    keep(target, 4, rolsuper=True)

    html = page(browser_of(person("somebody", role, target=target)))

    assert set(re.findall(r"/batches/(\w+_backend)/", html)) == actions
    boxes = re.findall(r'name="backends" value="([^"]*)"', html)
    marked = [json.loads(box.replace("&quot;", '"')) for box in boxes]
    assert {one["pid"]: set(one) - {"pid", "backend_start"} for one in marked} == (
        {"1": {"query_start"}, "2": {"query_start", "xact_start", "state_change"}}
        if actions
        else {}
    )


def test_the_past_has_no_buttons(target, dba):
    keep(target, 1)
    partitions.ensure_for(HISTORY["activity"].samples, READ_AT)
    HISTORY["activity"].samples._default_manager.create(
        target_id=target.pk,
        database_id=0,
        pid=77,
        backend_start=START,
        taken_at=READ_AT - timedelta(minutes=5),
        target_at=READ_AT - timedelta(minutes=5),
        change=1,
        state="active",
        query="SELECT ?",
        query_start=READ_AT - timedelta(minutes=6),
        backend_type="client backend",
    )

    html = page(dba, f"?at={(READ_AT - timedelta(minutes=1)).timestamp()}")

    assert 'id="backend-77"' in html
    assert "actions/cancel_backend/" not in html
    assert 'name="backends"' not in html
    assert "This page shows the past" in html


def test_an_incident_is_replayed_reading_by_reading_by_links_that_can_be_shared(
    embedded, watch, live
):
    target = watch(embedded, name="replayed")
    client = browser_of(person("somebody", "dba", target=target))
    session = live(embedded, user="owner", dbname="shop", autocommit=False)
    shown = []
    for text in ("SELECT 1 AS first", "SELECT 2 AS second", "SELECT 3 AS third"):
        session.execute(text)
        take_now(target, ["activity"])
        (row,) = (
            HISTORY["activity"]
            .latest._default_manager.filter(target_id=target.pk, pid=session.info.backend_pid)
            .values()
        )
        shown.append(row["query"])

    def look(address):
        html = client.get(address).content.decode()
        links = {
            rel: html_unescape(found[1])
            for rel in ("prev", "next")
            if (found := re.search(rf'rel="{rel}"[^>]*href="([^"]+)"', html))
        }
        [query] = [one for one in shown if one in re.sub(r"<[^>]+>", "", html)] or [""]
        return query, links

    _, links = look("/targets/replayed/activity/")
    assert set(links) == {"prev"}
    third, links = look(links["prev"])
    second, before = look(links["prev"])
    first, earliest = look(before["prev"])

    assert [first, second, third] == shown
    assert "next" not in links
    assert look(before["next"]) == (third, links)
    assert "prev" not in earliest


def test_a_past_without_history_says_so(target, dba):
    keep(target, 1)

    assert "Nothing is known of that moment" in page(dba, "?at=2020-01-01T00:00Z")


def test_it_says_that_nothing_was_read_yet():
    make_target()
    client = browser_of(person("dba", "dba"))

    html = page(client)

    assert "First snapshot" in html
    assert "Lock tree" not in html


def test_nobody_blocked_has_words_of_its_own(target, dba):
    keep(target, 1)

    assert "No blocked backends. Good." in page(dba)


def test_idle_backends_are_summed_by_application(target, dba):
    keep(target, 1, state="idle", application_name="pooler")
    keep(target, 2, state="idle", application_name="pooler")

    html = page(dba)

    idle = html[html.index('aria-label="Idle backends"') :]
    assert "pooler" in idle
    assert "No statement runs" in html


def test_it_finds_by_text_and_sorts_by_any_column(target, dba):
    keep(target, 1, application_name="alpha", seconds=5)
    keep(target, 2, application_name="beta", seconds=1)

    assert [row["pid"] for row in rows(dba, "&q=BETA")] == [2]
    assert [row["pid"] for row in rows(dba, "&sort=-application_name")] == [2, 1]
    assert dba.get("/targets/shop-1/activity/?sort=password").status_code == 400


def test_htmx_gets_the_body_alone(target, dba):
    keep(target, 1)

    html = dba.get("/targets/shop-1/activity/", headers=HTMX).content.decode()

    assert '<div id="body"' in html
    assert "<html" not in html


def test_it_takes_no_post(target, dba):
    assert dba.post("/targets/shop-1/activity/").status_code == 405


def test_a_name_from_the_target_is_never_markup(target, dba):
    keep(target, 1, application_name='x" onmouseover=alert(1) <script>', query="<img src=x>")

    html = page(dba)

    assert "<script>'" not in html
    assert '<img src="x">' not in html
    assert "<img src=x>" not in html
    assert 'x" onmouseover' not in html


def test_what_hides_its_statement_is_no_idle_backend(target, dba):
    keep(target, 1, state="disabled", query_start=None, xact_start=None, query="")
    keep(
        target, 2, state="disabled", query_start=None, query="",
        blocked_by=[1], wait_event_type="Lock", wait_event="relation",
    )  # fmt: skip
    keep(target, 3, state=None, query_start=None, backend_type="walwriter")

    assert {row["pid"] for row in rows(dba)} == {1, 2}


def test_a_stream_of_a_walsender_is_no_long_statement(target, dba):
    keep(target, 1, seconds=900, backend_type="walsender", application_name="standby")

    assert "over 5 seconds" not in page(dba)


def test_a_process_without_a_name_is_called_by_its_kind(target, dba):
    keep(
        target, 1, backend_type="parallel worker", application_name="", usename=None,
        state="active", query="SELECT 1",
    )  # fmt: skip
    keep(target, 2, blocked_by=[1], wait_event_type="Lock", wait_event="relation")

    text = page(dba)

    assert "None" not in text
    assert text.count("parallel worker") >= 2


def test_a_leader_that_blocks_by_several_workers_is_shown_once(target, dba):
    keep(target, 1)
    keep(target, 2, blocked_by=[1, 1, 1], wait_event_type="Lock", wait_event="relation")

    found = {row["pid"]: row for row in rows(dba)}

    assert (found[2]["blocked_by"], found[1]["blocking"]) == ([1], 1)


def test_rows_are_what_their_types_say(target):
    keep(target, 1, blocked_by=[2])
    keep(target, 2, state="idle", usename=None)

    shown = browser_of(person("viewer", "viewer")).get(
        f"/targets/{target.name}/activity/", {"filter": "all"}
    )

    assert len(shown.context["listing"].rows) == 2
    for line in shown.context["listing"].rows:
        assert_typed(line, LineRow)
    assert_typed(shown.context["idle"][0], IdleRow)


def test_what_was_ticked_is_listed_with_its_guard_and_ended_each_with_its_result(
    embedded, watch, live
):
    target = watch(embedded, name="shop-1", operator_user="operator")
    client = browser_of(person("somebody", "dba", target=target))
    runs = live(embedded, user="owner", dbname="shop")
    runs.pgconn.send_query(b"SELECT pg_sleep(60)")
    idles = live(embedded, user="owner", dbname="shop", autocommit=False)
    idles.execute("SELECT 1")
    take_now(target, ["activity"])
    boxes = {
        json.loads(box)["pid"]: box
        for box in map(html_unescape, re.findall(r'name="backends" value="([^"]*)"', page(client)))
    }
    pids = [str(session.info.backend_pid) for session in (runs, idles)]
    ticked = {"backends": [boxes[pid] for pid in pids]}

    sent = client.post("/targets/shop-1/batches/terminate_backend/", ticked)
    made = Batch.objects.get()
    preview.preview_batch(str(made.pk))
    html = client.get(sent.headers["Location"]).content.decode()
    client.post(f"/batches/{made.pk}/request/")
    while (row := batch.waiting_rows(target.pk).first()) is not None:
        perform.perform(str(row.pk))
    ended = client.get(sent.headers["Location"]).content.decode()

    assert "2 of 2 backends" in html
    assert "Terminate 2 backends" in html
    assert html.count("state_change 2") == 1  # of the one that idles
    assert html.count("query_start 2") == 1
    assert ended.count("Succeeded</span>") == 2
    assert all(f"pid {pid}" in ended for pid in pids)


@pytest.mark.parametrize("box", ["", "1", "[]x", '"pid"', "[1]", "[" * 5000, "null"])
def test_a_box_that_is_none_of_the_pages_is_a_bad_form(dba, box):
    answer = dba.post("/targets/shop-1/batches/cancel_backend/", {"backends": [box]})

    assert answer.status_code == 400
    assert not Batch.objects.exists()
