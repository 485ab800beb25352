"""From the button over the preview to the outcome, as a browser and as HTMX."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress

import psycopg
import pytest
from django.utils import timezone
from psycopg import sql

from monitors.acting import limits, perform, preview
from monitors.models import Action, AuditEntry, Environment
from tests.people import HTMX, browser_of, make_target, person

pytestmark = pytest.mark.django_db
DIALOG = {**HTMX, "HX-Target": "preview"}
OUTCOME = {**HTMX, "HX-Target": "outcomes"}


@pytest.fixture
def target(embedded, watch):
    return watch(embedded, operator_user="operator")


@pytest.fixture
def dba(target):
    return browser_of(person("dba", "dba", target=target))


@pytest.fixture
def table(embedded, worker_id):
    name = f"acted_{worker_id}_{uuid.uuid4().hex[:8]}"
    with embedded.connect(user="owner", dbname="shop") as connection:
        made = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE TABLE public.{} (id bigint)").format(made))
        connection.execute(
            sql.SQL("INSERT INTO public.{} SELECT generate_series(1, 500)").format(made)
        )
    yield f"public.{name}"
    with embedded.connect(dbname="shop") as connection:
        connection.execute(sql.SQL("DROP TABLE public.{}").format(made))


def times_of(server, pid):
    with server.connect() as connection:
        row = connection.execute(
            "SELECT pid::text, backend_start::text, query_start::text FROM pg_stat_activity"
            " WHERE pid = %s",
            [pid],
        ).fetchone()
    return dict(zip(("pid", "backend_start", "query_start"), row, strict=True))


@pytest.fixture
def sleeper(embedded, live, eventually):
    """A client's backend whose statement runs until it is cancelled: its arguments."""
    session = live(embedded, user="owner", dbname="shop", application_name="reports")

    def sleep():
        with suppress(psycopg.Error):
            session.execute("SELECT pg_sleep(60)")

    thread = threading.Thread(target=sleep)
    thread.start()
    pid = session.info.backend_pid

    def runs():
        with embedded.connect() as connection:
            row = connection.execute(
                "SELECT state = 'active' AND query LIKE '%%pg_sleep%%'"
                " AND query_start < clock_timestamp() - interval '0.3 s'"
                " FROM pg_stat_activity WHERE pid = %s",
                [pid],
            ).fetchone()
        return row and row[0]

    eventually(runs)
    yield times_of(embedded, pid)
    with embedded.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    thread.join()


def post(client, name, arguments, **headers):
    return client.post(f"/targets/shop-1/actions/{name}/", arguments, headers=headers or None)


def previewed(client, name, arguments):
    """Open a preview as a browser does, and let the worker answer it."""
    response = post(client, name, arguments)
    assert response.status_code == 302
    row = Action.objects.get(pk=response["Location"].split("/")[2])
    preview.preview_now(str(row.pk))
    return row


def html_of(client, row, **headers):
    return client.get(f"/actions/{row.pk}/", headers=headers or None).content.decode()


def test_a_browser_goes_from_the_button_to_the_outcome_without_script(dba, table):
    row = previewed(dba, "vacuum", {"database": "shop", "table": table, "analyze": "on"})
    page = html_of(dba, row)
    assert "VACUUM" in page
    assert f'action="/actions/{row.pk}/request/"' in page
    assert "<html" in page

    asked = dba.post(f"/actions/{row.pk}/request/", {"reason": "many dead rows"})
    perform.perform(str(row.pk))
    done = html_of(dba, row)

    assert asked["Location"] == f"/actions/{row.pk}/"
    assert "Succeeded." in done
    assert "many dead rows" in done
    assert "every 1s" not in done
    assert AuditEntry.objects.filter(action_id=row.pk).count() == 2


def test_a_preview_that_waits_polls_itself_and_can_be_refreshed_by_hand(dba, table):
    response = post(dba, "vacuum", {"database": "shop", "table": table})
    row = Action.objects.get(pk=response["Location"].split("/")[2])

    page = html_of(dba, row)

    assert "Asking shop-1" in page
    assert f'<a href="/actions/{row.pk}/">Refresh</a>' in page
    assert "data-go" not in page


def test_htmx_gets_a_dialog_and_then_what_stands_in_it(dba, table):
    opened = post(dba, "vacuum", {"database": "shop", "table": table}, **DIALOG).content.decode()
    row = Action.objects.get()
    preview.preview_now(str(row.pk))
    inside = html_of(dba, row, **DIALOG)

    assert "<html" not in opened
    assert 'id="preview-title"' in opened
    assert "every 300ms" in opened
    assert "every 300ms" not in inside
    assert "data-go" in inside


def test_a_guards_no_is_shown_in_the_preview_and_can_not_be_asked_for(dba):
    row = previewed(dba, "vacuum", {"database": "shop", "table": "public.no_such"})

    page = html_of(dba, row)
    asked = dba.post(f"/actions/{row.pk}/request/", headers=DIALOG)

    row.refresh_from_db()
    assert "There is no table public.no_such" in page
    assert "data-go" not in page
    assert "There is no table public.no_such" in asked.content.decode()
    assert row.state == "draft"


def test_cancel_posts_directly_and_its_piece_ends_polling_with_the_outcome(dba, sleeper):
    arguments = {**sleeper, "idempotency_key": str(uuid.uuid4())}
    sent = post(dba, "cancel_backend", arguments, **OUTCOME).content.decode()
    row = Action.objects.get()
    assert f'id="outcome-{row.pk}"' in sent
    assert "every 300ms" in sent

    perform.perform(str(row.pk))
    final = html_of(dba, row, **HTMX, **{"HX-Target": f"outcome-{row.pk}"})

    assert "ancelled" in final
    assert "every 300ms" not in final
    assert 'data-level="good"' in final


def test_two_clicks_on_one_button_are_one_action(dba, sleeper):
    arguments = {**sleeper, "idempotency_key": str(uuid.uuid4())}

    first = post(dba, "cancel_backend", arguments)
    second = post(dba, "cancel_backend", arguments)

    assert first["Location"] == second["Location"]
    assert Action.objects.count() == 1


def test_terminate_needs_the_typed_word(dba, sleeper):
    row = previewed(dba, "terminate_backend", sleeper)
    page = html_of(dba, row)
    assert f'data-confirm="{sleeper["pid"]}"' in page

    wrong = dba.post(f"/actions/{row.pk}/request/", {"confirm": "1"}, follow=True)
    row.refresh_from_db()
    assert row.state == "draft"
    assert "nothing was sent" in wrong.content.decode()

    dba.post(f"/actions/{row.pk}/request/", {"confirm": sleeper["pid"]})
    row.refresh_from_db()
    assert row.state == "queued"


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 302), ("dba", 302)])
def test_who_may_not_vacuum_is_refused_and_the_audit_says_so(target, table, role, status):
    client = browser_of(person("somebody", role, target=target))

    response = post(client, "vacuum", {"database": "shop", "table": table})

    assert response.status_code == status
    denied = AuditEntry.objects.filter(what="vacuum", who="somebody", result="denied")
    assert denied.exists() is (status == 403)


def test_an_admin_as_such_and_a_stranger_know_no_target_to_act_on(target, table):
    for name, roles in (("admin", ["admin"]), ("stranger", [])):
        client = browser_of(person(name, *roles))

        assert post(client, "vacuum", {"database": "shop", "table": table}).status_code == 404


def test_arguments_that_make_no_sense_are_409_with_a_sentence(dba):
    response = post(dba, "vacuum", {"database": "shop"})

    assert response.status_code == 409
    assert "Give either table" in response.content.decode()
    assert Action.objects.count() == 0


def test_a_key_that_is_no_uuid_is_a_bad_request(dba, sleeper):
    assert post(dba, "cancel_backend", {**sleeper, "idempotency_key": "x"}).status_code == 400


def test_an_unknown_action_is_404(dba):
    assert post(dba, "drop_database", {}).status_code == 404


@pytest.mark.parametrize("step", ["", "request/", "stop/", "approve/", "undo/"])
def test_a_strangers_and_anothers_draft_is_404(target, dba, table, step):
    row = previewed(dba, "vacuum", {"database": "shop", "table": table})
    others = [person("stranger"), person("colleague", "dba", target=target)]

    for other in others:
        client = browser_of(other)
        send = client.post if step else client.get
        assert send(f"/actions/{row.pk}/{step}").status_code == 404
    row.refresh_from_db()
    assert row.state == "draft"


def test_everybody_who_sees_the_target_sees_what_was_done(target, dba, table):
    row = previewed(dba, "analyze", {"database": "shop", "table": table})
    dba.post(f"/actions/{row.pk}/request/")
    viewer = browser_of(person("viewer", "viewer", target=target))

    page = html_of(viewer, row)

    assert "ANALYZE" in page
    assert f"/actions/{row.pk}/stop/" not in page


def test_what_waits_can_be_stopped_before_it_runs(dba, table):
    row = previewed(dba, "vacuum", {"database": "shop", "table": table})
    dba.post(f"/actions/{row.pk}/request/")
    assert f'action="/actions/{row.pk}/stop/"' in html_of(dba, row)

    dba.post(f"/actions/{row.pk}/stop/")

    row.refresh_from_db()
    assert row.state == "cancelled"
    assert "Stopped by dba" in html_of(dba, row)


def test_a_protected_target_waits_for_a_second_person(target, dba, table):
    Environment.objects.filter(pk=target.environment_id).update(protected=True)
    row = previewed(dba, "vacuum_full", {"database": "shop", "table": table})
    page = html_of(dba, row)
    assert "is protected" in page
    assert "Ask for approval of" in page
    word = page.split('data-confirm="')[1].split('"')[0]

    dba.post(f"/actions/{row.pk}/request/", {"confirm": word})
    row.refresh_from_db()
    assert row.state == "waiting"
    assert dba.post(f"/actions/{row.pk}/approve/").status_code == 403

    second = browser_of(person("second", "dba", target=target))
    assert f'action="/actions/{row.pk}/approve/"' in html_of(second, row)
    second.post(f"/actions/{row.pk}/approve/")
    row.refresh_from_db()
    assert (row.state, row.approved_by.username) == ("queued", "second")


def test_a_required_reason_is_asked_for(target, dba, table):
    Environment.objects.filter(pk=target.environment_id).update(reason_required=True)
    row = previewed(dba, "vacuum", {"database": "shop", "table": table})

    response = dba.post(f"/actions/{row.pk}/request/", follow=True)

    row.refresh_from_db()
    assert row.state == "draft"
    assert "Say why" in response.content.decode()


def test_the_effect_is_shown_before_and_after(target, dba):
    row = Action.objects.create(
        name="vacuum",
        target=target,
        target_name=target.name,
        object_name="shop: public.t",
        sql="VACUUM public.t",
        asked_by_name="dba",
        state="succeeded",
        outcome="Done.",
        effect="dead rows 81,204 → 0",
        before={"n_dead_tup": 81204, "size_bytes": 2048},
        after={"n_dead_tup": 0, "size_bytes": 2048},
        started_at=timezone.now(),
        finished_at=timezone.now(),
    )

    page = html_of(dba, row)

    assert "Dead rows 81,204 → 0" in page
    assert "-100 %" in page
    assert "unchanged" in page


def test_the_way_back_leads_to_the_page_of_the_button_and_nowhere_else(dba, table):
    arguments = {"database": "shop", "table": table}
    row = previewed(dba, "vacuum", {**arguments, "back": "/targets/shop-1/vacuum/?q=x"})
    other = previewed(dba, "vacuum", {**arguments, "back": "https://elsewhere.example/"})

    assert 'href="/targets/shop-1/vacuum/?q=x"' in html_of(dba, row)
    assert "elsewhere" not in html_of(dba, other)


def test_a_removed_targets_action_stays_for_its_maker_and_the_auditor(dba):
    gone = make_target("gone-1")
    row = Action.objects.create(
        name="vacuum", target=None, target_name=gone.name, asked_by_name="x", state="succeeded"
    )
    auditor = browser_of(person("auditor", "admin"))

    assert dba.get(f"/actions/{row.pk}/").status_code == 404
    assert "no longer registered" in html_of(auditor, row)


@pytest.mark.parametrize("step", ["request", "stop", "approve", "undo"])
def test_acting_is_a_post(dba, target, step):
    row = Action.objects.create(
        name="vacuum", target=target, target_name="shop-1", asked_by_name=""
    )

    assert dba.get(f"/actions/{row.pk}/{step}/").status_code == 405
    assert dba.get("/targets/shop-1/actions/vacuum/").status_code == 405


def test_options_are_folded_and_another_choice_is_another_preview(dba, table):
    row = previewed(dba, "vacuum", {"database": "shop", "table": table})
    page = html_of(dba, row)
    assert '<details class="options" id="options">' in page
    assert f'<form id="options-{row.pk}"' in page
    assert f'<input type="hidden" name="table" value="{table}">' in page

    again = previewed(
        dba,
        "vacuum",
        {
            "database": "shop",
            "table": table,
            "index_cleanup": "on",
            "freeze": "true",
            "parallel": "",
        },
    )

    assert again.pk != row.pk
    again.refresh_from_db()
    assert again.sql.startswith("VACUUM (FREEZE, INDEX_CLEANUP 'on') ")


def test_without_an_option_set_autovacuum_shows_its_form_open(dba, table):
    row = previewed(dba, "set_autovacuum", {"database": "shop", "table": table})
    page = html_of(dba, row)

    assert "Choose an option" in page
    assert '<details class="options" id="options" open>' in page
    assert 'name="autovacuum_vacuum_scale_factor"' in page
    assert 'name="toast.autovacuum_enabled"' in page
    assert f'action="/actions/{row.pk}/request/"' not in page


@pytest.mark.parametrize("blank", [" ", " led", "two  blanks", "tab\there", "plain"])
def test_every_table_can_be_confirmed_by_what_is_shown(target, dba, embedded, worker_id, blank):
    """A word of blanks nobody sees, and one that a page shows otherwise nobody can type."""
    schema = f"odd_{worker_id}"
    with embedded.connect(dbname="shop") as setup:
        setup.execute(f"CREATE SCHEMA {schema} AUTHORIZATION owner")
        setup.execute(f"GRANT USAGE ON SCHEMA {schema} TO operator")
        made = sql.Identifier(schema, blank)
        setup.execute(sql.SQL("CREATE TABLE {} (id bigint)").format(made))
        setup.execute(sql.SQL("ALTER TABLE {} OWNER TO owner").format(made))
        relid = setup.execute("SELECT %s::regclass::oid::bigint", [f'{schema}."{blank}"'])
        [(oid,)] = relid.fetchall()
    try:
        row = previewed(dba, "vacuum_full", {"database": "shop", "relid": str(oid)})
        word = "plain" if blank == "plain" else str(oid)
        text = dba.get(f"/actions/{row.pk}/").content.decode()
        assert f'data-confirm="{word}"' in text
        for wrong in ("", " "):
            answer = dba.post(f"/actions/{row.pk}/request/", {"confirm": wrong}, follow=True)
            assert "nothing was sent" in answer.content.decode()
        dba.post(f"/actions/{row.pk}/request/", {"confirm": word})
    finally:
        with embedded.connect(dbname="shop") as cleanup:
            cleanup.execute(f"DROP SCHEMA {schema} CASCADE")

    row.refresh_from_db()
    assert row.state == "queued"


def test_who_clicks_without_end_is_told_to_wait(dba, sleeper, monkeypatch):
    monkeypatch.setattr(limits, "ASKED_AT_MOST", 3)
    address = "/targets/shop-1/actions/cancel_backend/"

    def click(headers=None):
        key = {"idempotency_key": str(uuid.uuid4())}
        return dba.post(address, {**sleeper, **key}, headers=headers)

    answers = [click(headers) for headers in (None, None, None, None, OUTCOME)]

    assert [answer.status_code for answer in answers] == [302, 302, 302, 429, 429]
    for answer in answers[3:]:
        assert "3 is the limit: nothing was sent." in answer.content.decode()
    assert Action.objects.count() == 3
    entry = AuditEntry.objects.get(what="actions.limit")  # once, however often
    assert (entry.who, entry.result) == ("dba", "refused")


STUBBORN = """
DO $$ BEGIN
  PERFORM pg_sleep(60);
EXCEPTION WHEN query_canceled THEN
  PERFORM pg_sleep(60);
END $$
"""
"""Goes on when it is cancelled."""


def test_what_does_not_react_to_a_cancel_can_be_terminated_from_there(
    embedded, dba, target, live, background_of, eventually
):
    session = live(embedded, user="owner", dbname="shop")
    background_of(session, STUBBORN)
    pid = session.info.backend_pid
    with embedded.connect() as eye:
        old = (
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            " AND query_start < clock_timestamp() - interval '0.3 s'"
        )
        eventually(lambda: eye.execute(old, [pid]).fetchone())
    times = times_of(embedded, pid)
    html = dba.post("/targets/shop-1/actions/cancel_backend/", times, headers=OUTCOME)
    assert "terminate_backend" not in html.content.decode()
    row = Action.objects.get()

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert (row.state, row.outcome) == (
        "failed",
        "The signal was sent, but the backend has not reacted in 5 s: terminate it.",
    )
    for headers in ({}, OUTCOME):
        text = dba.get(f"/actions/{row.pk}/", headers=headers).content.decode()
        form = text[text.index("actions/terminate_backend/") :]
        assert f'name="query_start" value="{row.arguments["query_start"]}"' in form
        assert f"Terminate {pid}…" in form
    operator = browser_of(person("operator", "operator", target=target))
    text = operator.get(f"/actions/{row.pk}/").content.decode()
    assert "does not include terminate_backend. Ask an admin for dba." in text
    assert "actions/terminate_backend/" not in text
    with embedded.connect() as eye:
        eye.execute("SELECT pg_terminate_backend(%s)", [pid])


@pytest.fixture
def background_of():
    """Run a statement in a thread; its session is ended by the test."""

    def start(session, text):
        def execute():
            with suppress(psycopg.Error):
                session.execute(text)

        threads.append(threading.Thread(target=execute))
        threads[-1].start()

    threads: list[threading.Thread] = []
    yield start
    for thread in threads:
        thread.join(10)
