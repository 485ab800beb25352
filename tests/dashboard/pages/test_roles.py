"""The Roles pages: roles of one's own are put together, changed and removed by admins alone."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from monitors.models import AuditEntry, Grant, Role
from tests.people import browser_of, make_role, make_target, person

pytestmark = pytest.mark.django_db

EDIT, REMOVE = "/people/roles/cancel-only/", "/people/roles/cancel-only/remove/"


@pytest.fixture
def admin():
    return browser_of(person("root", "admin"))


def text_of(response, status=200):
    assert response.status_code == status
    return response.content.decode()


def test_a_role_is_made_given_and_works_at_the_next_request(admin):
    target, ann = make_target(), person("ann")
    theirs = browser_of(ann)
    given = {"holder": f"user:{ann.pk}", "role": "cancel-only", "scope": f"target:{target.pk}"}
    assert admin.post(reverse("grant-give"), given).status_code == 400  # no such role yet

    made = {"name": "cancel-only", "permissions": ["cancel_backend"]}
    assert admin.post(reverse("role-new"), made).url == EDIT
    assert "cancel-only: cancel_backend" in text_of(admin.get("/people/"))
    assert admin.post(reverse("grant-give"), given).status_code == 302

    assert theirs.get("/targets/shop-1/activity/").status_code == 200
    assert theirs.post("/targets/shop-1/actions/vacuum/", {"table": "t"}).status_code == 403
    entry = AuditEntry.objects.get(what="role.add")
    assert (entry.who, entry.object_name, entry.source) == ("root", "cancel-only", "127.0.0.1")
    assert entry.detail["permissions"] == ["view", "cancel_backend"]


def test_the_list_and_its_export_have_the_four_and_ones_own(admin):
    make_role()
    Role.objects.update(permissions=["view", "cancel_backend", "long_gone"])

    text = text_of(admin.get("/people/roles/"))

    assert "long_gone: no longer exists" in text
    assert text.count("stands as it is") == 4
    rows = {
        row["name"]: row for row in json.loads(admin.get("/people/roles/?format=json").getvalue())
    }
    assert list(rows) == ["viewer", "operator", "dba", "admin", "cancel-only"]
    assert rows["cancel-only"]["removed"] == ["long_gone"]
    assert "counts for nothing" in text_of(admin.get(EDIT))


def test_a_new_role_may_begin_like_another(admin):
    text = text_of(admin.get("/people/roles/new/?like=operator"))

    chosen = text.count(" checked>")
    assert chosen == 7
    assert admin.get("/people/roles/new/?like=king").status_code == 404


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "dba", "permissions": ["view"]}, "one of the roles that stand as they are"),
        ({"name": "x", "permissions": []}, "at least one permission"),
        ({"name": "x", "permissions": ["drop_everything"]}, "drop_everything"),
        ({"name": "Big", "permissions": ["view"]}, "lower-case letters"),
    ],
)
def test_what_is_no_role_is_said_and_not_made(admin, fields, words):
    assert words in text_of(admin.post(reverse("role-new"), fields), 400)
    assert not Role.objects.exists()


def test_a_role_that_somebody_has_is_changed_and_not_removed(admin):
    target, ann = make_target(), person("ann", "cancel-only")

    assert admin.post(EDIT, {"permissions": ["analyze"]}).status_code == 302
    text = text_of(admin.post(REMOVE), 409)

    assert "cancel-only is given to ann on everything. Take it away there first." in text
    assert "Remove cancel-only" not in text
    assert Role.objects.get().permissions == ["view", "analyze"]
    theirs = browser_of(ann)
    moment = "2026-03-01T12:00:00.000001+00:00"
    backend = {"pid": "4711", "backend_start": moment, "query_start": moment}
    cancel = theirs.post(f"/targets/{target.name}/actions/cancel_backend/", backend)
    assert cancel.status_code == 403
    Grant.objects.filter(user=ann).delete()
    assert admin.post(REMOVE).url == "/people/roles/"
    assert not Role.objects.exists()
    assert admin.get(EDIT).status_code == 404


def test_the_role_by_which_the_last_one_manages_people_stays(db):
    make_role("keeper", "manage_people")
    kim = browser_of(person("kim", "keeper"))

    text = text_of(kim.post("/people/roles/keeper/", {"permissions": ["view"]}), 409)

    assert "keeper is the last role by which somebody manages people." in text
    assert kim.get("/people/").status_code == 200


@pytest.mark.parametrize("role", ["dba", "cancel-only"])
def test_nobody_else_gives_themselves_more(role):
    make_role()
    own = person("ann", role)
    theirs = browser_of(own)

    for address, fields in (
        (reverse("role-new"), {"name": "mine", "permissions": ["manage_people"]}),
        (EDIT, {"permissions": ["manage_people", "vacuum"]}),
        (REMOVE, {}),
        (reverse("grant-give"), {"holder": f"user:{own.pk}", "role": "dba", "scope": "everything"}),
    ):
        assert theirs.post(address, fields).status_code == 403

    assert Role.objects.get().permissions == ["view", "cancel_backend"]
    assert Grant.objects.count() == 1
    assert set(AuditEntry.objects.values_list("what", "result")) == {("manage_people", "denied")}


def test_who_manages_people_on_a_target_alone_puts_no_role_together():
    target = make_target()
    make_role("keeper", "manage_people")
    theirs = browser_of(person("kim", "keeper", target=target))

    assert theirs.get("/people/roles/").status_code == 403
    assert (
        theirs.post(reverse("role-new"), {"name": "x", "permissions": ["view"]}).status_code == 403
    )
    assert User.objects.count() == 1


def test_a_denial_names_roles_of_ones_own(admin):
    make_target()
    make_role("analyst", "vacuum")
    viewer = browser_of(person("vic", "viewer"))

    viewer.post("/targets/shop-1/actions/vacuum/", {"table": "t"})

    reason = AuditEntry.objects.get(what="vacuum").reason
    assert reason.endswith("Ask an admin for operator, dba or analyst.")
