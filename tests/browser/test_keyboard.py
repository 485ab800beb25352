"""Without a mouse: what can be reached, what is seen to have the focus, and acting."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from monitors.collect.rounds import take_now
from monitors.models import Action
from tests.browser.test_acting import (
    PATIENCE,
    open_as,
    queue_of_two,
    target,
    worker,
)
from tests.people import PASSWORD, person

__all__ = ["open_as", "queue_of_two", "target", "worker"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

FOCUSED = """() => {
  const one = document.activeElement;
  const style = getComputedStyle(one.matches('input, select') ? one.closest('.field') ?? one : one);
  const box = one.getBoundingClientRect();
  return {
    text: (one.getAttribute('aria-label') ?? one.textContent).trim().replace(/\\s+/g, ' '),
    ringed: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
    shown: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
    body: one === document.body,
  };
}"""


def walk(page, at_most=60):
    """Press Tab through a page until the focus leaves it: what had the focus, in order."""
    seen = []
    for _ in range(at_most):
        page.keyboard.press("Tab")
        one = page.evaluate(FOCUSED)
        if one["body"]:
            break
        seen.append(one)
    return seen


def test_tab_goes_through_a_page_in_order_and_the_focus_is_always_seen(
    target, open_as, queue_of_two
):
    _, waiter = queue_of_two
    take_now(target, ["activity", "sessions"])
    page = open_as(person("dba", "dba"), "/targets/shop-1/activity/")

    seen = walk(page)
    texts = [one["text"] for one in seen]

    assert texts[0] == "Skip to content"
    assert [one["text"] for one in seen if not (one["ringed"] and one["shown"])] == []
    tree = next(i for i, text in enumerate(texts) if text.startswith(f"Cancel {waiter}"))
    assert texts.index("Overview") < tree


def test_a_statement_is_cancelled_by_keys_alone(target, worker, open_as, queue_of_two):
    _, waiter = queue_of_two
    take_now(target, ["activity", "sessions"])
    page = open_as(person("operator", "operator"), "/targets/shop-1/activity/")

    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED)["text"].startswith(f"Cancel {waiter}"):
            break
    page.keyboard.press("Enter")

    outcome = page.locator("[data-outcome]")
    expect(outcome).to_contain_text(re.compile("cancelled", re.IGNORECASE), timeout=PATIENCE)
    assert Action.objects.get().state == "succeeded"


def test_the_finder_is_walked_with_arrows_and_left_with_escape(target, open_as):
    take_now(target, ["activity", "sessions"])
    page = open_as(person("viewer", "viewer"), "/targets/shop-1/activity/")
    chosen = page.locator("#palette a[aria-current]")

    page.keyboard.press("Control+k")
    expect(page.locator("#palette input")).to_be_focused()
    first = chosen.inner_text()
    page.keyboard.press("ArrowDown")
    second = chosen.inner_text()
    page.keyboard.press("ArrowUp")
    assert chosen.inner_text() == first != second
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()

    page.keyboard.press("Control+k")
    page.keyboard.type("queries")
    page.keyboard.press("Enter")
    page.wait_for_url("**/targets/shop-1/queries/")


def test_a_deactivated_person_is_out_in_another_browser_at_once(
    target, open_as, browser, live_server
):
    bob = person("bob", "viewer")
    take_now(target, ["activity", "sessions"])
    theirs = browser.new_context().new_page()
    theirs.set_default_timeout(PATIENCE)
    theirs.goto(f"{live_server.url}/login/?next=/targets/shop-1/activity/")
    theirs.get_by_label("Name").fill("bob")
    theirs.get_by_label("Password").fill(PASSWORD)
    theirs.get_by_role("button", name="Log in").click()
    expect(theirs.get_by_role("heading", name="Activity", exact=True)).to_be_visible()

    page = open_as(person("admin", "admin"), f"/people/{bob.pk}/")
    page.get_by_role("button", name="Deactivate bob").click()
    expect(page.locator("#body")).to_contain_text("This account is deactivated")

    # The page refreshes itself every 2 s: nobody has to touch it.
    theirs.wait_for_url(re.compile(r"/login/\?next="), timeout=PATIENCE)
    theirs.context.close()


ADDRESSES = (
    "/",
    "/targets/shop-1/",
    "/targets/shop-1/activity/?filter=all&sort=pid",
    "/targets/shop-1/vacuum/?filter=all",
    "/targets/shop-1/queries/",
    "/targets/shop-1/actions/",
    "/targets/",
    "/targets/new/",
    "/targets/shop-1/edit/",
    "/actions/?view=audit",
    "/people/",
    "/account/",
)


def test_without_script_every_page_reads_and_nothing_on_it_is_dead(target, browser, live_server):
    take_now(target)
    person("admin", "admin", "dba")
    page = browser.new_context(java_script_enabled=False).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{live_server.url}/login/")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()

    for address in ADDRESSES:
        answer = page.goto(live_server.url + address)
        assert answer.status == 200, address
        assert len(page.locator("main").inner_text()) > 40, address
        assert page.locator("main a:not([href])").count() == 0, address
        # A button outside of a form does something by popover, or is for the clipboard.
        dead = page.locator("main button:not(form button):not([popovertarget]):not([data-copy])")
        assert (
            dead.evaluate_all(
                "all => all.filter(one => one.getAttribute('aria-disabled') !== 'true').length"
            )
            == 0
        ), address
    page.context.close()
