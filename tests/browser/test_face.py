"""What only a browser shows: charts, keyboard, live refresh, width, accessibility, the CSP."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Action, Grant, ProbeState
from tests.addresses import OF_THE_TARGET
from tests.people import make_target

pytestmark = pytest.mark.browser
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
NEAR_SECONDS = 8000  # milliseconds that a live page has to show what is new


@pytest.fixture
def addresses(shop, place):
    take_now(shop)  # a second snapshot, so that lines are more than a point
    return {
        "fleet": "/",
        "overview": reverse("overview", args=[shop.name]),
        "vacuum": reverse("vacuum", args=[shop.name]),
        "table": reverse("table", kwargs=place),
    }


OF_TARGET = [*OF_THE_TARGET, "target-edit", "target-remove"]
OF_FLEET = (
    "fleet", "findings", "actions", "targets", "target-new", "thresholds", "people", "account",
    "roles", "role-new", "matrix", "pool-calculator",
    "stuck", "stuck-definitions", "standing-rules", "standing-rule-new",
)  # fmt: skip


@pytest.fixture
def every_page(addresses, place, shop, people):
    """All addresses, some in the states that a page has without figures; the dba manages too."""
    Grant.objects.create(user=people["dba"], role="admin")
    away = make_target("away", environment="production")
    ProbeState.objects.create(
        target=away, probe="tables", state="unreachable", reason="No route to the host.",
        failing_since=timezone.now(),
    )  # fmt: skip
    return {
        **addresses,
        **{name: reverse(name) for name in OF_FLEET},
        **{name: reverse(name, args=[shop.name]) for name in OF_TARGET},
        **{f"{name} of none": reverse(name, args=[away.name]) for name in OF_THE_TARGET},
        "what-if": reverse("table-what-if", kwargs=place),
        "before history": reverse("vacuum", args=[shop.name]) + "?at=2001-01-01T00:00Z",
        "400": reverse("vacuum", args=[shop.name]) + "?sort=nonsense",
        "404": "/targets/no-such-target/",
    }


@pytest.fixture
def complaints(page):
    """What the browser complains of: errors, and what the content security policy blocked."""
    found: list[str] = []
    page.on(
        "console", lambda message: found.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://localhost", "http://127.0.0.1"))
            else found.append(request.url)
        ),
    )
    return found


def done(shop, *, seconds_ago=0):
    """Make an action that ended a moment ago."""
    ended = timezone.now() - timedelta(seconds=seconds_ago)
    return Action.objects.create(
        name="vacuum", target=shop, target_name=shop.name, object_name="public.t", state="succeeded",
        asked_by_name="dba", started_at=ended - timedelta(seconds=5), finished_at=ended,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(scheme, every_page, enter, page, axe, shop):
    page.emulate_media(color_scheme=scheme)
    show = enter("dba")
    done(shop, seconds_ago=1)
    done(shop, seconds_ago=2)  # its mark would cover the other's
    script = f"async () => {{ {axe}; return (await axe.run({{runOnly: {RULES}}})).violations }}"

    found = []
    for name, address in every_page.items():
        show(address)
        found += [(name, one["id"], one["nodes"][0]["html"]) for one in page.evaluate(script)]

    assert found == []


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_pages_fit_their_window(width, every_page, enter, page):
    page.set_viewport_size({"width": width, "height": 900})
    show = enter("dba")
    too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

    for name, address in every_page.items():
        show(address)
        assert page.evaluate(too_wide) == 0, name


@pytest.mark.parametrize("width", [390, 1280])
def test_a_long_reason_does_not_widen_the_list_of_targets(width, enter, page, shop):
    reason = "No answer within the time limit: check address and firewall. " * 3
    ProbeState.objects.filter(target=shop).update(
        state="unreachable", reason=reason, failing_since=timezone.now()
    )
    page.set_viewport_size({"width": width, "height": 900})

    enter("admin")("/targets/")

    expect(page.get_by_text(reason.strip())).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_browser_has_nothing_to_complain_of(addresses, enter, page, complaints):
    show = enter("dba")

    for name, address in addresses.items():
        show(address)
        if name != "fleet":
            expect(page.locator(".uplot").first).to_be_visible()
        assert complaints == [], name


def test_a_chart_says_its_values_at_the_cursor_by_keyboard(addresses, enter, page):
    enter("viewer")(addresses["vacuum"])
    chart = page.locator("[data-chart]")
    expect(chart.locator("canvas")).to_be_visible()

    chart.focus()
    page.keyboard.press("ArrowLeft")

    expect(page.locator("[data-speaks]")).to_have_text(re.compile(r"All tables 2\s*k"))


def test_dragging_over_a_chart_shows_that_window(addresses, enter, page):
    enter("viewer")(addresses["vacuum"])
    over = page.locator("[data-chart] .u-over")
    expect(over).to_be_visible()
    box = over.bounding_box()

    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 20, steps=4)
    page.mouse.up()

    page.wait_for_url(re.compile(r"from=\d+&to=\d+"))
    expect(page.locator("#fresh")).to_contain_text("The past")


def test_a_mark_is_a_link_to_the_action(addresses, enter, page, shop):
    action = done(shop)
    enter("viewer")(addresses["vacuum"])
    mark = page.locator(".lane a.mark-button")

    expect(mark).to_have_attribute("href", reverse("action", args=[action.pk]))
    expect(mark).to_have_attribute("aria-label", re.compile("vacuum public.t: succeeded"))


def test_marks_that_would_cover_each_other_share_a_button(addresses, enter, page, shop):
    done(shop, seconds_ago=1)
    done(shop, seconds_ago=2)
    enter("viewer")(addresses["vacuum"])

    expect(page.locator(".lane .mark-button:visible")).to_have_count(1)
    expect(page.locator(".lane .mark-button:visible")).to_have_attribute("data-count", "2")


def test_the_palette_opens_by_key_finds_by_typing_and_goes_by_enter(addresses, enter, page):
    enter("viewer")(addresses["overview"])

    page.keyboard.press("/")
    expect(page.locator("#palette")).to_be_visible()
    page.keyboard.type("vac")
    page.keyboard.press("Enter")

    page.wait_for_url(f"**{addresses['vacuum']}")


def test_the_palette_finds_tables_on_the_server(addresses, enter, page, place, junk):
    enter("viewer")(addresses["overview"])

    page.keyboard.press("Control+k")
    page.keyboard.type(junk.split()[1].strip('"'))
    expect(page.locator("#palette-found a")).to_contain_text([junk.replace('"', '""')])
    page.keyboard.press("Enter")

    page.wait_for_url(f"**{reverse('table', kwargs=place)}")


def test_escape_closes_the_palette(addresses, enter, page):
    enter("viewer")(addresses["overview"])
    page.keyboard.press("Control+k")
    expect(page.locator("#palette")).to_be_visible()

    page.keyboard.press("Escape")

    expect(page.locator("#palette")).to_be_hidden()


def dead_rows(shop, place, number):
    rows = HISTORY["tables"].latest._default_manager
    rows.filter(target_id=shop.pk, relid=place["relid"]).update(n_dead_tup=number)


def test_a_live_page_shows_what_is_new_by_itself(addresses, enter, page, shop, place):
    enter("viewer")(addresses["vacuum"])
    row = page.locator(f"tr[id$='-{place['relid']}']")
    expect(row).to_contain_text("2,000")

    dead_rows(shop, place, 4321)

    expect(row).to_contain_text("4,321", timeout=NEAR_SECONDS)
    expect(page.locator(".uplot")).to_have_count(1)


def test_it_waits_while_the_pointer_is_in_the_table_and_says_so(
    addresses, enter, page, shop, place
):
    enter("viewer")(addresses["vacuum"])
    row = page.locator(f"tr[id$='-{place['relid']}']")
    row.hover()
    expect(page.locator("#fresh")).to_contain_text("paused")

    dead_rows(shop, place, 4321)
    page.wait_for_timeout(6000)  # longer than a refresh takes: nothing may change
    expect(row).to_contain_text("2,000")

    page.mouse.move(2, 2)
    expect(row).to_contain_text("4,321", timeout=NEAR_SECONDS)


def test_the_filter_box_filters_while_one_types_and_keeps_the_focus(addresses, enter, page):
    enter("viewer")(addresses["vacuum"])
    box = page.locator("#search")

    box.press_sequentially("no such table", delay=20)

    expect(page.get_by_text("No table has that in its name")).to_be_visible()
    page.wait_for_url(re.compile(r"q=no\+such\+table"))
    expect(box).to_be_focused()
    expect(box).to_have_value("no such table")


def test_a_chip_changes_the_table_the_address_and_the_export(addresses, enter, page):
    enter("viewer")(addresses["vacuum"])

    page.locator("a.chip", has_text="Autovacuum off").click()

    page.wait_for_url(re.compile("filter=off"))
    expect(page.locator("a[download]").first).to_have_attribute("href", re.compile("filter=off"))
    page.go_back()
    expect(page.locator("a.chip[aria-current]")).to_contain_text("Need vacuum")


def test_what_was_open_stays_open_over_a_refresh(addresses, enter, page, shop, place):
    enter("viewer")(addresses["vacuum"])
    page.locator("#dead-twin summary").click()
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(2, 2)

    dead_rows(shop, place, 4321)
    expect(page.locator(f"tr[id$='-{place['relid']}']")).to_contain_text(
        "4,321", timeout=NEAR_SECONDS
    )

    expect(page.locator("#dead-twin table")).to_be_visible()


def test_an_age_grows_while_a_page_waits(addresses, enter, page):
    enter("viewer")(addresses["vacuum"])
    page.locator("tr[id^=row-]").hover()  # it refreshes no more
    age = page.locator("#fresh time")

    expect(age).to_have_text(re.compile(r"^([89]|1\d) s ago$"), timeout=15000)
    expect(page.locator("#fresh")).to_contain_text("paused")


def test_an_age_is_told_by_the_servers_clock(addresses, enter, page):
    page.clock.install(time=timezone.now() + timedelta(hours=3))  # the reader's is fast
    enter("viewer")(addresses["vacuum"])
    page.clock.run_for(3000)

    assert re.fullmatch(r"\d+ s ago", page.locator("#fresh time").inner_text())


def test_times_stand_in_the_readers_zone(addresses, enter, browser, live_server, browse):
    context = browser.new_context(timezone_id="Asia/Kathmandu")
    cookie = browse("viewer").cookies[settings.SESSION_COOKIE_NAME]
    context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
    page = context.new_page()
    page.goto(live_server.url + addresses["vacuum"])

    expect(page.locator("#fresh time")).to_have_attribute(
        "title", re.compile("GMT.5:45 .Asia/Kath?mandu.")
    )
    context.close()


def test_without_script_everything_reads_and_acts(browser, live_server, browse, addresses):
    context = browser.new_context(java_script_enabled=False)
    cookie = browse("dba").cookies[settings.SESSION_COOKIE_NAME]
    context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
    page = context.new_page()
    page.goto(live_server.url + addresses["vacuum"])

    expect(page.locator("tr[id^=row-]")).to_have_count(1)
    page.locator("#dead-twin summary").click()
    expect(page.locator("#dead-twin table")).to_be_visible()
    page.locator("a.chip", has_text="All").click()
    page.wait_for_url(re.compile("filter=all"))
    page.locator("#search").fill("no such table")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=no"))
    page.go_back()
    page.locator(".verdict form button").click()
    page.wait_for_url(re.compile(r"/actions/[0-9a-f-]{36}/"))
    context.close()


def test_the_theme_is_set_by_the_server_and_stays(addresses, enter, page):
    enter("viewer")(addresses["fleet"])

    page.locator("button.avatar").click()
    page.get_by_role("button", name="Dark").click()

    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto(page.url.split("?")[0])
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_on_a_phone_the_pages_fold_away(addresses, enter, page):
    page.set_viewport_size({"width": 390, "height": 800})
    enter("viewer")(addresses["vacuum"])
    expect(page.locator("#rail")).to_be_hidden()

    page.get_by_role("button", name="Pages", exact=True).click()

    expect(page.locator("#rail")).to_be_visible()
    page.locator("#rail").get_by_role("link", name="Overview").click()
    page.wait_for_url(f"**{addresses['overview']}")


def test_a_preview_opens_as_a_dialog_and_gives_the_focus_back(addresses, enter, page):
    enter("dba")(addresses["vacuum"])
    button = page.locator(".verdict form button")
    button.click()
    expect(page.locator("dialog#preview")).to_be_visible()

    page.keyboard.press("Escape")

    expect(page.locator("dialog#preview")).to_have_count(0)
    expect(button).to_be_focused()


def test_a_refresh_leaves_focus_scroll_and_rows_where_they_are(addresses, enter, page, shop, place):
    enter("viewer")(addresses["vacuum"])
    row = page.locator(f"tr[id$='-{place['relid']}']")
    row.evaluate("row => { row.seen = true }")
    summary = page.locator("#dead-twin summary")
    summary.click()
    page.evaluate(
        "const low = new CSSStyleSheet(); low.replaceSync('#dead-rows { max-height: 20px }');"
        "document.adoptedStyleSheets = [low]; document.querySelector('#dead-rows').scrollTop = 15"
    )
    page.evaluate("scrollTo(0, 120)")
    page.mouse.move(2, 2)

    dead_rows(shop, place, 4321)

    expect(row).to_contain_text("4,321", timeout=NEAR_SECONDS)
    assert row.evaluate("row => row.seen")
    expect(summary).to_be_focused()
    assert page.evaluate("scrollY") == 120
    assert page.evaluate("document.querySelector('#dead-rows').scrollTop") == 15


def test_a_chart_hears_a_key_once_after_a_refresh(addresses, enter, page, shop, place):
    enter("viewer")(addresses["vacuum"])
    expect(page.locator(".uplot")).to_have_count(1)
    dead_rows(shop, place, 4321)
    expect(page.locator(f"tr[id$='-{place['relid']}']")).to_contain_text(
        "4,321", timeout=NEAR_SECONDS
    )
    expect(page.locator(".uplot")).to_have_count(1)
    page.evaluate("document.querySelector('[data-speaks]').textContent = ''")

    page.locator("[data-chart]").focus()
    page.evaluate(
        "window.said = 0; new MutationObserver((all) => { said += all.length })"
        ".observe(document.querySelector('[data-speaks]'), {childList: true})"
    )
    page.keyboard.press("ArrowLeft")

    page.wait_for_function("said > 0")
    assert page.evaluate("said") == 1
