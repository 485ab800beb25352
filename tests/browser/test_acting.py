"""Every button pressed in a real browser, with a worker that carries out what it asks for."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from playwright.sync_api import expect

from monitors.acting import perform, preview
from monitors.collect.rounds import take_now
from monitors.models import Action, Target, TargetCheck
from monitors.targets import check
from tests.people import PASSWORD, browser_of, person

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PATIENCE = 15_000  # milliseconds; a loaded machine is slow


def work(ended):
    """Answer previews, actions and checks until `ended`, as the workers' queues would."""
    try:
        while not ended.wait(0.05):
            for row in Action.objects.filter(state="draft", preview__ready=False):
                preview.preview_now(str(row.pk))
            for row in Action.objects.filter(state="queued"):
                perform.perform(str(row.pk))
            for asked in TargetCheck.objects.filter(done_at=None):
                check.carry_out(str(asked.pk))
    finally:
        connection.close()


@pytest.fixture
def worker(transactional_db):
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,))
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.fixture
def target(transactional_db, embedded, watch):
    return watch(embedded, operator_user="operator")


@pytest.fixture
def open_as(context, live_server):
    """Open a page as somebody: open_as(user, "/path/") -> page; nothing may complain or leave."""
    complaints: list[str] = []

    def note(text, is_bad):
        if is_bad:
            complaints.append(text)

    def open_page(user, path):
        cookie = browser_of(user).cookies[settings.SESSION_COOKIE_NAME]
        context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: note(said.text, said.type == "error"))
        page.on("request", lambda sent: note(sent.url, not sent.url.startswith(live_server.url)))
        page.goto(live_server.url + path)
        return page

    yield open_page
    assert complaints == []


@pytest.fixture
def queue_of_two(embedded, live, eventually, worker_id):
    """A backend idle in transaction that holds a table, and one that waits: (root, waiter)."""
    table = f"held_{worker_id}"
    with embedded.connect(user="owner", dbname="shop") as setup:
        setup.execute(f"DROP TABLE IF EXISTS {table}")
        setup.execute(f"CREATE TABLE {table} (id bigint)")
    options = {"user": "owner", "dbname": "shop", "autocommit": False}
    root = live(embedded, application_name="billing-api", **options)
    waiter = live(embedded, application_name="web-api", **options)
    root.execute(f"LOCK TABLE {table}")

    def wait():
        with suppress(psycopg.Error):
            waiter.execute(f"SELECT * FROM {table} WHERE id = 4711")

    thread = threading.Thread(target=wait)
    thread.start()

    def waits():
        with embedded.connect() as looking:
            row = looking.execute(
                "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s",
                [waiter.info.backend_pid],
            ).fetchone()
        return row == ("Lock",)

    eventually(waits)
    yield root.info.backend_pid, waiter.info.backend_pid
    root.close()
    thread.join()


def test_cancel_is_one_click_and_says_what_came_of_it(target, worker, open_as, queue_of_two):
    _, waiter = queue_of_two
    take_now(target, ["activity", "sessions"])
    page = open_as(person("operator", "operator"), "/targets/shop-1/activity/")

    button = page.locator("#tree").get_by_role("button", name=f"Cancel {waiter}")
    started = time.monotonic()
    button.click()
    outcome = page.locator("[data-outcome]")
    expect(outcome).to_contain_text(re.compile("cancelled", re.IGNORECASE), timeout=PATIENCE)
    took = time.monotonic() - started

    row = Action.objects.get()
    assert (row.name, row.state) == ("cancel_backend", "succeeded")
    assert took < 5
    expect(page.get_by_role("button", name=f"Cancel {waiter}")).to_have_count(0, timeout=PATIENCE)
    outcome.get_by_role("button", name="Dismiss").click()
    expect(outcome).to_have_count(0)


def test_the_root_is_terminated_through_a_dialog(target, worker, open_as, queue_of_two):
    root, _ = queue_of_two
    take_now(target, ["activity", "sessions"])
    page = open_as(person("dba", "dba"), "/targets/shop-1/activity/")
    button = page.locator("#tree").get_by_role("button", name=f"Terminate {root}")

    button.click()
    dialog = page.get_by_role("dialog")
    confirm = dialog.get_by_role("button", name=f"Terminate pid {root}")
    expect(confirm).to_be_disabled(timeout=PATIENCE)
    expect(dialog).to_contain_text("pg_terminate_backend")
    expect(dialog).to_contain_text("1 session")
    assert page.evaluate("document.activeElement.textContent") in {"Back", ""}
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    button.click()
    dialog.get_by_label("Reason").fill("forgotten since lunch")
    dialog.get_by_label(f"Type {root} to confirm").fill(str(root))
    confirm.click()
    expect(dialog.locator(".result")).to_contain_text("Terminated", timeout=PATIENCE)

    row = Action.objects.get(state="succeeded")
    assert (row.name, row.reason) == ("terminate_backend", "forgotten since lunch")
    dialog.get_by_role("link", name="Close").last.click()
    expect(dialog).to_have_count(0)


def test_a_viewer_sees_buttons_that_say_why_they_do_nothing(target, open_as, queue_of_two):
    _, waiter = queue_of_two
    take_now(target, ["activity", "sessions"])
    page = open_as(person("viewer", "viewer"), "/targets/shop-1/activity/")

    button = page.locator("#tree").get_by_role("button", name=f"Cancel {waiter}")
    expect(button).to_have_attribute("aria-disabled", "true")
    button.click(force=True)

    expect(page.locator("body")).not_to_contain_text("4711")
    assert Action.objects.count() == 0


def test_nothing_moves_while_the_pointer_is_in_the_table(target, open_as, queue_of_two):
    take_now(target, ["activity", "sessions"])
    page = open_as(person("dba", "dba"), "/targets/shop-1/activity/")
    page.locator("#backends tbody tr").first.hover()
    page.evaluate("document.querySelector('#body').dataset.mark = 'seen'")

    page.wait_for_timeout(3500)
    assert page.locator("#body[data-mark]").count() == 1
    expect(page.locator(".fresh-paused")).to_be_visible()

    page.mouse.move(5, 300)
    expect(page.locator("#body[data-mark]")).to_have_count(0, timeout=PATIENCE)


def test_acting_works_without_javascript(target, worker, browser, live_server, queue_of_two):
    _, waiter = queue_of_two
    take_now(target, ["activity", "sessions"])
    person("dba", "dba")
    page = browser.new_context(java_script_enabled=False).new_page()
    page.set_default_timeout(PATIENCE)

    page.goto(f"{live_server.url}/targets/shop-1/activity/")
    page.get_by_label("Name").fill("dba")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    assert page.url == f"{live_server.url}/targets/shop-1/activity/"
    page.locator("#tree").get_by_role("button", name=f"Cancel {waiter}").click()
    for _ in range(50):
        if page.locator(".result").count():
            break
        page.wait_for_timeout(100)
        page.reload()

    expect(page.locator(".result")).to_contain_text("Succeeded")
    page.get_by_role("link", name="Back").first.click()
    assert page.url == f"{live_server.url}/targets/shop-1/activity/"
    page.context.close()


def test_the_wizard_goes_from_the_address_to_a_saved_target(
    transactional_db, embedded, worker, open_as
):
    page = open_as(person("admin", "admin", "dba"), "/targets/new/")

    page.get_by_label("Name", exact=True).fill("db-7")
    page.get_by_label("Host", exact=True).fill(embedded.host)
    page.get_by_label("Port", exact=True).fill(str(embedded.port))
    page.get_by_label("Environment").select_option("staging")
    page.get_by_label("User", exact=True).fill("collector")
    page.locator("[name=password]").fill(embedded.password)
    page.get_by_label("A login of its own for actions").check()
    page.get_by_label("Operator user").fill("operator")
    page.locator("[name=operator_password]").fill(embedded.password)
    page.get_by_role("button", name="Check the connection").click()
    save = page.get_by_role("button", name="Save db-7")
    expect(save).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#body")).to_contain_text("GRANT pg_monitor")
    save.click()
    expect(page.locator("#body")).to_contain_text("waiting for its first snapshot")
    take_now(Target.objects.get(name="db-7"))

    expect(page.locator("#body")).to_contain_text("registered and read", timeout=PATIENCE)
    page.get_by_role("link", name="Open db-7").click()
    assert page.url.endswith("/targets/db-7/")


PAGES = (
    "/targets/shop-1/activity/",
    "/targets/",
    "/targets/new/",
    "/targets/shop-1/edit/",
    "/targets/shop-1/remove/",
    "/targets/shop-1/actions/",
    "/actions/?view=audit",
    "/account/",
)


@pytest.mark.parametrize("look", [("light", 1280), ("dark", 390)])
def test_nobody_is_shut_out_of_a_page(target, open_as, axe, queue_of_two, look, browser):
    theme, width = look
    take_now(target, ["activity", "sessions"])
    user = person("admin", "admin", "dba")
    cookie = browser_of(user).cookies[settings.SESSION_COOKIE_NAME]
    page = open_as(user, "/account/")
    site = page.url.removesuffix("/account/")
    seeing = browser.new_context(
        bypass_csp=True, color_scheme=theme, viewport={"width": width, "height": 900}
    )
    seeing.add_cookies([{"name": cookie.key, "value": cookie.value, "url": site}])
    page = seeing.new_page()
    found = []

    for path in PAGES:
        page.goto(site + path)
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [(path, one["id"], one["nodes"][0]["html"]) for one in result["violations"]]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append((path, "wider than the window", ""))

    seeing.close()
    assert found == []
