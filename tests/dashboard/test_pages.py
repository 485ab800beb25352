"""What holds of every page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from dashboard import pages
from monitors.collect.rounds import take_now
from monitors.kinds import POSTGRES
from monitors.models import HISTORY, Action, ProbeState, Target
from monitors.rows.backends import epoch_us
from tests.addresses import LISTS, OF_THE_TARGET

OURS = (*OF_THE_TARGET, "fleet", "table", "query", "backend")
TEMPLATES = sorted(Path(settings.BASE_DIR, "templates").rglob("*.html"))


class Elements(HTMLParser):
    """Collects every start tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def addresses(shop, place):
    backend = HISTORY["activity"].latest._default_manager.filter(target_id=shop.pk).values()[0]
    statement = HISTORY["statements"].latest._default_manager.filter(target_id=shop.pk)[0]
    return {
        **{name: reverse(name, args=[shop.name]) for name in OF_THE_TARGET},
        "fleet": reverse("fleet"),
        "table": reverse("table", kwargs=place),
        "query": reverse("query", args=[shop.name, statement.pk]),
        "backend": reverse(
            "backend", args=[shop.name, backend["pid"], epoch_us(backend["backend_start"])]
        ),
    }


@pytest.fixture(params=OURS)
def address(request, addresses):
    return addresses[request.param]


def test_a_page_is_whole_and_its_body_stands_alone_for_htmx(address, browse):
    client = browse("viewer")
    whole = client.get(address).content.decode()
    part = client.get(address, headers={"HX-Request": "true"}).content.decode()

    assert whole.startswith("<!doctype html>")
    assert 'id="body"' in part
    assert "<html" not in part
    assert part.count("hx-swap-oob") >= 2  # freshness and the rail


def test_answers_for_htmx_and_for_browsers_are_never_confused(address, browse):
    assert "HX-Request" in browse("viewer").get(address)["Vary"]


def test_a_page_has_one_heading_a_title_and_a_main_part(address, browse):
    elements = Elements(browse("viewer").get(address).content.decode())

    assert len(elements.all("h1")) == 1
    assert len(elements.all("main")) == 1
    assert len(elements.all("title")) == 1


def test_ids_are_unique(address, browse):
    elements = Elements(browse("viewer").get(address).content.decode())
    ids = [attributes["id"] for _tag, attributes in elements.found if "id" in attributes]

    assert len(ids) == len(set(ids))


def test_no_inline_script_or_style_and_no_other_host(address, browse):
    response = browse("dba").get(address)
    elements = Elements(response.content.decode())

    for tag, attributes in elements.found:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "hx-get", "hx-post"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), (tag, attributes)
    assert all("src" in one for one in elements.all("script"))
    assert "'unsafe" not in response["Content-Security-Policy"]


def test_htmx_neither_evaluates_nor_follows_strangers(address, browse):
    elements = Elements(browse("viewer").get(address).content.decode())
    (config,) = [one["content"] for one in elements.all("meta") if one.get("name") == "htmx-config"]

    assert json.loads(config) == {
        "allowEval": False,
        "selfRequestsOnly": True,
        "allowScriptTags": False,
        "includeIndicatorStyles": False,
        "historyCacheSize": 0,
        "scrollBehavior": "auto",
    }


def test_every_form_that_changes_something_carries_a_token(address, browse):
    text = browse("dba").get(address).content.decode()
    forms = re.findall(r"<form[^>]*>.*?</form>", text, re.DOTALL)

    posting = [form for form in forms if re.match(r'<form[^>]*method="post"', form)]
    assert posting
    assert all("csrfmiddlewaretoken" in form for form in posting)


@pytest.mark.parametrize("query", ["?window=2h", "?from=x", "?at=x"])
def test_a_window_that_means_nothing_is_a_bad_request(address, query, browse):
    response = browse("viewer").get(address + query)

    text = response.content.decode()
    assert response.status_code == 400
    assert "can't be understood" in text
    assert f'href="{address}"' in text  # the same page without the word


def test_a_word_without_meaning_is_named_to_people_and_programs(address, browse):
    client, word = browse("viewer"), "?at=%3Cb%3Eyesterday"

    page = client.get(address + word).content.decode()
    said = client.get(f"{address}{word}&format=json")

    assert "&lt;b&gt;yesterday" in page
    assert "is not a time. Write it as 2026-03-01T12:30Z." in page
    assert (said.status_code, "is not a time" in said.json()["error"]) == (400, True)


@pytest.mark.parametrize("window", ["1h", "6h", "24h", "7d", "30d"])
def test_every_window_works(address, window, browse):
    assert browse("viewer").get(address, {"window": window}).status_code == 200


@pytest.mark.parametrize("name", sorted({*OURS} - LISTS))
def test_the_past_is_not_live_and_offers_no_action(name, addresses, browse):
    text = browse("dba").get(addresses[name], {"at": timezone.now().isoformat()}).content.decode()

    assert 'data-refresh="' not in text
    assert 'action="/targets/shop-1/actions/' not in text


def test_links_between_pages_keep_the_window(addresses, browse):
    text = browse("viewer").get(addresses["overview"], {"window": "6h"}).content.decode()

    assert 'href="/targets/shop-1/vacuum/?window=6h"' in text


@pytest.mark.parametrize(("person", "offered"), [("viewer", False), ("operator", True)])
def test_a_button_is_live_only_for_those_who_may(addresses, person, offered, browse):
    text = browse(person).get(addresses["table"]).content.decode()

    assert ('action="/targets/shop-1/actions/vacuum/"' in text) is offered
    assert ("Your role on shop-1 does not include vacuum." in text) is not offered


def test_without_an_operator_login_buttons_say_so(addresses, browse):
    Target.objects.update(operator_user="")

    text = browse("dba").get(addresses["table"]).content.decode()

    assert "shop-1 has no operator login." in text
    assert 'action="/targets/shop-1/actions/' not in text


def test_before_the_first_snapshot_a_page_says_when_it_comes(db, watch, embedded, browse):
    watch(embedded, name="fresh")

    for name in ("overview", "vacuum"):
        text = browse("viewer").get(reverse(name, args=["fresh"])).content.decode()
        assert "First snapshot" in text


def test_an_unreachable_target_says_since_when_why_and_what_to_check(db, watch, embedded, browse):
    take_now(watch(replace(embedded, port=1), name="gone"))

    text = browse("viewer").get(reverse("vacuum", args=["gone"])).content.decode()

    assert "gone can&#x27;t be reached since" in text
    assert "Check that PostgreSQL runs" in text


def test_a_stale_page_says_since_when(shop, addresses, browse):
    ProbeState.objects.update(taken_at=timezone.now() - timedelta(minutes=24))

    text = browse("viewer").get(addresses["vacuum"]).content.decode()

    assert 'class="fresh" data-level="warning"' in text
    assert "24 min ago" in text


def test_a_missing_right_shows_the_grant(shop, addresses, browse):
    reason = (
        "Permission denied for function f. In the database shop: GRANT EXECUTE ON f TO collector;"
    )
    denied = {"state": "denied", "reason": reason, "taken_at": None}
    ProbeState.objects.filter(probe="tables").update(**denied)
    HISTORY["tables"].latest._default_manager.all().delete()

    text = browse("viewer").get(addresses["vacuum"]).content.decode()

    assert "collector may not read this" in text
    assert "in the database shop" in text
    assert "pg_monitor" not in text  # which the login may have


def test_a_disabled_target_says_so(shop, addresses, browse):
    Target.objects.update(enabled=False)

    assert "disabled" in browse("viewer").get(addresses["overview"]).content.decode()


def test_a_demonstration_says_that_it_is_one(shop, addresses, browse):
    assert "demonstration" not in browse("viewer").get(addresses["vacuum"]).content.decode()
    Target.objects.update(demo=True)

    assert "demonstration" in browse("viewer").get(addresses["vacuum"]).content.decode()


def test_the_strip_shows_what_runs_and_a_dismissed_outcome_goes(shop, addresses, browse):
    client = browse("dba")
    ended = Action.objects.create(
        name="vacuum", target=shop, target_name=shop.name, state="succeeded", sql="VACUUM ended",
        asked_by_name="dba", finished_at=timezone.now(), effect="dead rows 5 to 0",
    )  # fmt: skip
    Action.objects.create(
        name="vacuum", target=shop, target_name=shop.name, state="running", sql="VACUUM running",
        asked_by_name="dba", started_at=timezone.now(), progress={"pct": 41.0, "phase": "scanning heap"},
    )  # fmt: skip
    strip = reverse("strip", args=[shop.name])

    text = client.get(addresses["vacuum"]).content.decode()
    assert "VACUUM running" in text
    assert "scanning heap" in text
    assert "dead rows 5 to 0" in text
    assert f'hx-get="{strip}" hx-trigger="every 2s"' in text

    response = client.post(strip, {"dismiss": str(ended.pk), "next": "https://evil.example/"})
    assert response.url == reverse("overview", args=[shop.name])
    text = client.get(addresses["vacuum"]).content.decode()
    assert "VACUUM ended" not in text
    assert "VACUUM running" in text


def test_an_outcome_leaves_the_strip_by_itself(shop, addresses, browse):
    Action.objects.create(
        name="vacuum", target=shop, target_name=shop.name, state="succeeded", sql="VACUUM old",
        asked_by_name="dba", finished_at=timezone.now() - timedelta(minutes=11),
    )  # fmt: skip

    assert "VACUUM old" not in browse("dba").get(addresses["vacuum"]).content.decode()


@pytest.mark.parametrize(
    ("cookie", "attribute"),
    [("dark", ' data-theme="dark"'), ("light", ' data-theme="light"'), ("x", "")],
)
def test_the_server_sets_the_theme(addresses, cookie, attribute, browse):
    client = browse("viewer")
    client.cookies["theme"] = cookie

    assert f'<html lang="en"{attribute}>' in client.get(addresses["fleet"]).content.decode()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: "-".join(path.parts[-2:]))
def test_no_template_leaves_an_attribute_unquoted(path):
    """An unquoted attribute would let a table's name add hx-post to a cell."""
    outside = re.sub(r"{#.*?#}", "", path.read_text(encoding="utf-8"))

    assert not re.findall(r"<[^>]*\s[\w-]+={{", outside)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: "-".join(path.parts[-2:]))
def test_no_template_marks_foreign_text_as_safe(path):
    text = path.read_text(encoding="utf-8")

    assert "|safe" not in text
    assert "autoescape" not in text


def test_every_page_of_the_rail_has_an_icon_and_an_address(shop, browse):
    sprite = Path(settings.BASE_DIR, "static", "icons.svg").read_text(encoding="utf-8")

    for page in pages.PAGES:
        assert f'id="i-{page.icon}"' in sprite
        status = 200 if POSTGRES in page.kinds else 404  # test_pooler.py has a pooler's own
        assert browse("viewer").get(reverse(page.name, args=[shop.name])).status_code == status


def test_every_icon_that_a_template_names_is_drawn():
    sprite = Path(settings.BASE_DIR, "static", "icons.svg").read_text(encoding="utf-8")
    drawn = set(re.findall(r'<symbol id="i-([\w-]+)"', sprite))
    named = set()
    for path in TEMPLATES:
        named |= set(re.findall(r'{%\s*icon\s+"([\w-]+)"', path.read_text(encoding="utf-8")))
        named |= set(re.findall(r'icon="([\w-]+)"', path.read_text(encoding="utf-8")))

    assert named <= drawn
