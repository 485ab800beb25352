"""Who I am, my rights, my password and my theme."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from django.contrib.auth.models import Group

from monitors.audit import entries as audit
from monitors.models import AuditEntry, Grant, Target
from tests.people import PASSWORD, browser_of, make_target, person

pytestmark = pytest.mark.django_db
NEW = "another long passphrase"


def test_it_shows_rights_by_target_and_nothing_of_others():
    target = make_target("shop-1")
    make_target("secret-2")
    client = browser_of(person("maren", "operator", target=target))

    page = client.get("/account/").content.decode()

    assert "shop-1" in page
    assert "cancel_backend" in page
    assert "terminate_backend" not in page
    assert "secret-2" not in page


def test_it_shows_a_role_that_comes_through_a_group():
    user = person("maren")
    group = Group.objects.create(name="on-call")
    user.groups.add(group)
    Grant.objects.create(group=group, role="dba")

    page = browser_of(user).get("/account/").content.decode()

    assert "through on-call" in page


def test_everybody_is_led_to_their_own_deeds():
    audit.add("login", "somebody", "test")
    audit.add("login", "other", "test")
    client = browser_of(person("somebody"))
    link = re.search(r'href="([^"]*)">What you did', client.get("/account/").content.decode())
    assert link is not None

    response = client.get(unescape(link[1]) + "&format=json")

    assert [line["who"] for line in json.loads(response.getvalue())] == ["somebody"]


def test_it_says_so_when_there_is_no_role():
    page = browser_of(person("stranger")).get("/account/").content.decode()

    assert "You have no role yet." in page


def test_it_changes_the_password_keeps_this_session_and_ends_the_others():
    user = person("maren", "viewer")
    here, there = browser_of(user), browser_of(user)
    passwords = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}

    response = here.post("/account/", passwords)

    assert response.status_code == 302
    user.refresh_from_db()
    assert user.check_password(NEW)
    assert here.get("/account/").status_code == 200
    assert there.get("/account/").status_code == 302
    assert AuditEntry.objects.filter(what="password.change", who="maren").count() == 1


def test_a_wrong_old_password_changes_nothing():
    user = person("maren", "viewer")
    passwords = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}

    response = browser_of(user).post("/account/", passwords)

    user.refresh_from_db()
    assert response.status_code == 400
    assert user.check_password(PASSWORD)
    assert NEW not in response.content.decode()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_server_sets_the_chosen_theme(theme):
    client = browser_of(person("maren", "viewer"))

    response = client.post("/account/theme/", {"theme": theme, "next": "/targets/"})

    assert response["Location"] == "/targets/"
    assert f'<html lang="en" data-theme="{theme}">' in client.get("/account/").content.decode()


def test_the_systems_theme_takes_the_choice_back():
    client = browser_of(person("maren", "viewer"))
    client.post("/account/theme/", {"theme": "dark"})

    client.post("/account/theme/", {"theme": "system"})

    assert "data-theme" not in client.get("/account/").content.decode()


def test_a_theme_leads_only_to_this_site():
    client = browser_of(person("maren", "viewer"))

    response = client.post("/account/theme/", {"theme": "dark", "next": "https://else.example/"})

    assert response["Location"] == "/account/"


def test_a_theme_is_chosen_by_post_alone():
    assert browser_of(person("maren")).get("/account/theme/").status_code == 405


def test_targets_with_the_same_rights_share_a_row():
    for name in ("shop-1", "shop-2", "shop-3"):
        make_target(name)
    user = person("maren", "viewer")
    Grant.objects.create(user=user, role="dba", target=Target.objects.get(name="shop-3"))

    page = browser_of(user).get("/account/").content.decode().partition("What you may")[2]

    assert page.count(">view</span>") == 2
    assert page.index("shop-1") < page.index("shop-2") < page.index("shop-3")


def test_guesses_of_the_old_password_are_audited_and_locked(settings):
    client = browser_of(person("maren", "viewer"))
    words = {"new_password1": NEW, "new_password2": NEW}

    answers = [
        client.post("/account/", {"old_password": f"guess-{number}", **words})
        for number in range(settings.AXES_FAILURE_LIMIT)
    ]
    right = client.post("/account/", {"old_password": PASSWORD, **words})

    assert [answer.status_code for answer in answers[:-1]] == [400] * (len(answers) - 1)
    assert answers[-1].status_code == right.status_code == 429
    assert "Too many wrong passwords" in right.content.decode()
    entries = AuditEntry.objects.filter(what="password.failed", who="maren", source="127.0.0.1")
    assert entries.count() == settings.AXES_FAILURE_LIMIT
    assert "guess-" not in str(list(AuditEntry.objects.values()))
    assert client.get("/account/").status_code == 200
