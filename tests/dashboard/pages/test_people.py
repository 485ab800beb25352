"""The People page: accounts, groups, roles and effective rights, for admins."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse

from monitors.models import AuditEntry, Environment, Grant
from tests.people import PASSWORD, browser_of, make_target, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin():
    return browser_of(person("root", "admin"))


@pytest.fixture
def bob():
    return person("bob", "viewer")


def text_of(response, status=200):
    assert response.status_code == status
    return response.content.decode()


def log_in(client, name, password):
    """Return whether the login page lets somebody in."""
    return client.post("/login/", {"username": name, "password": password}).status_code == 302


def row(text, user):
    start = text.index(f'<tr id="person-{user.pk}"')
    return text[start : text.index("</tr>", start)]


def test_it_lists_accounts_with_roles_and_groups(admin, bob):
    bob.groups.add(Group.objects.create(name="night shift"))
    former = person("former")
    User.objects.filter(pk=former.pk).update(is_active=False)

    text = text_of(admin.get("/people/"))

    assert "viewer on everything" in row(text, bob)
    assert "night shift" in row(text, bob)
    assert "deactivated" in row(text, former)
    rows = json.loads(admin.get("/people/?format=json").getvalue())
    assert [one["username"] for one in rows] == ["bob", "former", "root"]
    assert "password" not in rows[0]


def test_more_people_need_no_more_questions(admin, bob, django_assert_max_num_queries):
    for number in range(20):
        person(f"p{number}", "viewer")

    with django_assert_max_num_queries(25):
        admin.get("/people/")


def test_only_who_manages_people_has_it_in_the_rail(admin, bob):
    assert 'href="/people/"' in text_of(admin.get("/"))
    assert 'href="/people/"' not in text_of(browser_of(bob).get("/"))


def test_an_account_is_added_with_a_password_by_the_admin(admin):
    response = admin.post("/people/", {"name": "carol", "password": PASSWORD})

    carol = User.objects.get(username="carol")
    assert (response.status_code, response.url) == (302, f"/people/{carol.pk}/")
    assert carol.check_password(PASSWORD)
    entry = AuditEntry.objects.get(what="person.add")
    assert (entry.who, entry.object_name, entry.source) == ("root", "carol", "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "password", "words"),
    [
        ("bob", PASSWORD, "There is an account bob already."),
        ("carol", "s#0rt", "too short"),
        ("no spaces", PASSWORD, "Enter a valid username"),
    ],
)
def test_a_bad_account_is_said_and_not_made(admin, bob, name, password, words):
    text = text_of(admin.post("/people/", {"name": name, "password": password}), 400)

    assert words in text
    assert password not in text
    assert User.objects.count() == 2


@pytest.mark.parametrize("kind", ["everything", "environment", "target"])
def test_a_role_is_given_and_taken_where_it_was_chosen(admin, bob, kind):
    target = make_target()
    scope = {
        "everything": "everything",
        "environment": f"environment:{target.environment_id}",
        "target": f"target:{target.pk}",
    }[kind]
    given = {"holder": f"user:{bob.pk}", "role": "operator", "scope": scope}

    response = admin.post(reverse("grant-give"), given)

    assert response.url == f"/people/{bob.pk}/"
    grant = Grant.objects.get(role="operator")
    assert (grant.target == target, grant.environment_id == target.environment_id) == (
        kind == "target",
        kind == "environment",
    )
    assert browser_of(bob).get("/targets/shop-1/").status_code == 200
    admin.post(reverse("grant-take", args=[grant.pk]))
    assert not Grant.objects.filter(role="operator").exists()
    assert [one.what for one in AuditEntry.objects.order_by("id")] == ["grant.add", "grant.remove"]


def test_a_group_gets_a_role_and_its_members_have_it(admin):
    carol = person("carol")
    make_target()
    admin.post(reverse("person-join", args=[carol.pk]), {"group": "dbas"})
    group = Group.objects.get(name="dbas")
    given = {"holder": f"group:{group.pk}", "role": "dba", "scope": "everything"}

    assert admin.post(reverse("grant-give"), given).url == "/people/"

    assert browser_of(carol).get("/targets/shop-1/").status_code == 200
    text = text_of(admin.get(f"/people/{carol.pk}/"))
    assert "dba of dbas" in text
    assert "terminate_backend" in text
    admin.post(reverse("person-leave", args=[carol.pk, group.pk]))
    assert browser_of(carol).get("/targets/shop-1/").status_code == 404


@pytest.mark.parametrize(
    "wrong", [{"role": "king"}, {"holder": "user:0"}, {"scope": "target:0"}, {"scope": ""}]
)
def test_a_choice_that_is_none_gives_nothing(admin, bob, wrong):
    given = {"holder": f"user:{bob.pk}", "role": "dba", "scope": "everything", **wrong}

    assert admin.post(reverse("grant-give"), given).status_code == 400
    assert not Grant.objects.filter(role="dba").exists()


def test_effective_rights_name_the_grants_they_come_from(admin):
    carol = person("carol")
    make_target("orders-1", environment="production")
    make_target("hidden-1")
    production = Environment.objects.get(name="production")
    Grant.objects.create(user=carol, role="viewer", environment=production)

    text = text_of(admin.get(f"/people/{carol.pk}/"))

    rights = text[text.index("Effective rights") :]
    assert "on 1 of 2 targets" in rights
    assert re.search(r"orders-1.*?>view<.*?viewer", rights, re.DOTALL)
    assert ">vacuum<" not in rights


def test_a_deactivated_person_is_out_at_their_next_request(admin, bob):
    theirs = browser_of(bob)
    assert theirs.get("/").status_code == 200

    text = text_of(admin.post(reverse("person-deactivate", args=[bob.pk]), follow=True))

    assert "bob is deactivated; 1 session was ended." in text
    assert theirs.get("/").status_code == 302
    assert not log_in(theirs, "bob", PASSWORD)
    admin.post(reverse("person-activate", args=[bob.pk]))
    assert log_in(theirs, "bob", PASSWORD)


def test_a_new_password_ends_sessions_but_the_admins_own(admin, bob):
    theirs = browser_of(bob)
    root = User.objects.get(username="root")
    for user in (bob, root):
        address = reverse("person-password", args=[user.pk])
        assert admin.post(address, {"password": "another good phrase"}).status_code == 302

    assert theirs.get("/").status_code == 302
    assert log_in(theirs, "bob", "another good phrase")
    assert admin.get("/people/").status_code == 200
    wrong = admin.post(reverse("person-password", args=[bob.pk]), {"password": "123"})
    assert "too short" in text_of(wrong, 400)


@pytest.mark.parametrize("change", ["deactivate", "take"])
def test_the_last_admin_stays_and_the_page_says_so(admin, change):
    root = User.objects.get(username="root")
    address = {
        "deactivate": reverse("person-deactivate", args=[root.pk]),
        "take": reverse("grant-take", args=[Grant.objects.get(user=root).pk]),
    }[change]

    text = text_of(admin.post(address), 409)

    assert "root is the last admin. Make another account admin on everything first." in text
    assert admin.get("/people/").status_code == 200
