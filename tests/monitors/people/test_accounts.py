"""Accounts and roles: every change is audited, and one admin always stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError

from monitors.models import AuditEntry, Environment, Grant
from monitors.people import access, accounts
from monitors.people.accounts import LastAdmin, Scope
from tests.people import make_target

pytestmark = pytest.mark.django_db

WHO = ("alice", "192.0.2.7")
PASSWORD = "correct horse battery"

Person = Callable[..., User]


def session_of(user: User) -> str:
    store = SessionStore()
    store["_auth_user_id"] = str(user.pk)
    store.save()
    assert store.session_key
    return store.session_key


def audited() -> list[tuple[str, str, str]]:
    entries = AuditEntry.objects.order_by("id")
    return [(one.what, one.object_name, one.who) for one in entries]


def test_an_account_is_made_with_no_right(person: Person) -> None:
    user = accounts.add(*WHO, name="bob", password=PASSWORD)

    assert user.check_password(PASSWORD)
    assert access.permissions_of(user) == frozenset()
    assert audited() == [("person.add", "bob", "alice")]
    assert PASSWORD not in str(AuditEntry.objects.values().get())


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"name": "bob", "password": "short"}, "password"),
        ({"name": "not a name!", "password": PASSWORD}, "name"),
        ({"name": "", "password": PASSWORD}, "name"),
        ({"name": "taken", "password": PASSWORD}, "name"),
    ],
)
def test_what_makes_no_account_leaves_none(fields: dict[str, str], key: str) -> None:
    User.objects.create_user("taken")

    with pytest.raises(ValidationError) as caught:
        accounts.add(*WHO, **fields)

    assert set(caught.value.message_dict) == {key}
    assert User.objects.count() == 1
    assert audited() == []


@pytest.mark.parametrize("change", ["deactivate", "password"])
def test_sessions_end_at_once_and_others_stay(change: str) -> None:
    bob, carol = User.objects.create_user("bob"), User.objects.create_user("carol")
    session_of(bob)
    session_of(bob)
    kept = session_of(carol)

    if change == "deactivate":
        assert accounts.deactivate(*WHO, bob) == 2
    else:
        accounts.set_password(*WHO, bob, PASSWORD)

    assert list(Session.objects.values_list("pk", flat=True)) == [kept]
    assert audited() == [(f"person.{change}", "bob", "alice")]


def test_an_account_comes_back_with_its_roles(person: Person) -> None:
    bob = person("viewer", name="bob")
    accounts.deactivate(*WHO, bob)
    assert not access.may(bob, "view")

    accounts.activate(*WHO, bob)

    assert access.may(User.objects.get(username="bob"), "view")


def make_admin(kind: str) -> tuple[User, dict[str, Callable[[], Any]]]:
    """Make somebody admin by a grant or by a group; return what would undo it."""
    user = User.objects.create_user("root")
    if kind == "own":
        grant, _ = accounts.give(*WHO, user, "admin", Scope())
        undo = {"take": lambda: accounts.take(*WHO, grant)}
    else:
        group = accounts.join(*WHO, user, "admins")
        grant, _ = accounts.give(*WHO, group, "admin", Scope())
        undo = {
            "take": lambda: accounts.take(*WHO, grant),
            "leave": lambda: accounts.leave(*WHO, user, group),
        }
    return user, {**undo, "deactivate": lambda: accounts.deactivate(*WHO, user)}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("own", "take"),
        ("own", "deactivate"),
        ("group", "take"),
        ("group", "leave"),
        ("group", "deactivate"),
    ],
)
def test_the_last_admin_stays(kind: str, change: str) -> None:
    user, undo = make_admin(kind)
    session_of(user)
    # Neither an admin of one target nor one who can't log in could manage people.
    lesser = User.objects.create_user("lesser")
    accounts.give(*WHO, lesser, "admin", Scope(target=make_target()))
    former = User.objects.create_user("former", is_active=False)
    accounts.give(*WHO, former, "admin", Scope())
    before = audited()

    with pytest.raises(LastAdmin, match="is the last admin"):
        undo[change]()

    assert access.may(User.objects.get(username="root"), "manage_people")
    assert Session.objects.exists()
    assert audited() == before


def test_with_a_second_admin_the_first_may_go() -> None:
    user, undo = make_admin("own")
    accounts.give(*WHO, User.objects.create_user("second"), "admin", Scope())

    undo["deactivate"]()

    assert not User.objects.get(pk=user.pk).is_active


def test_a_role_that_is_given_twice_is_given_once() -> None:
    bob = User.objects.create_user("bob")
    scope = Scope(target=make_target())

    assert accounts.give(*WHO, bob, "viewer", scope)[1]
    assert not accounts.give(*WHO, bob, "viewer", scope)[1]

    assert Grant.objects.count() == 1
    assert audited() == [("grant.add", "bob", "alice")]


def test_rights_are_those_that_every_page_asks_for() -> None:
    targets = [
        make_target("a", environment="production"),
        make_target("b", environment="staging"),
        make_target("c"),
    ]
    bob = User.objects.create_user("bob")
    production = Environment.objects.get(name="production")
    accounts.give(*WHO, bob, "viewer", Scope(environment=production))
    accounts.give(*WHO, bob, "dba", Scope(target=targets[1]))
    group = accounts.join(*WHO, bob, "night shift")
    accounts.give(*WHO, group, "operator", Scope(environment=production))

    found = {right.target.name: right.permissions for right in accounts.rights_of(bob)}

    assert set(found) == {"a", "b"}
    for target in targets:
        assert found.get(target.name, []) == sorted(access.permissions_of(bob, target))
    accounts.give(*WHO, bob, "viewer", Scope())
    assert [right.target.name for right in accounts.rights_of(bob)] == ["a", "b", "c"]
    bob.is_active = False
    assert accounts.rights_of(bob) == []


def test_a_group_is_made_when_somebody_joins() -> None:
    bob = User.objects.create_user("bob")

    accounts.join(*WHO, bob, "dbas")
    accounts.join(*WHO, User.objects.create_user("carol"), "dbas")
    accounts.leave(*WHO, bob, Group.objects.get())

    assert [user.username for user in Group.objects.get().user_set.all()] == ["carol"]
    assert [what for what, _, _ in audited()] == ["group.join", "group.join", "group.leave"]
