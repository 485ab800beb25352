"""Roles of one's own: what they include counts at once, is audited, and locks nobody out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from monitors.actions import ACTIONS
from monitors.audit import entries
from monitors.models import AuditEntry, Environment, Grant, Role
from monitors.people import access, accounts, permissions, roles
from monitors.people.accounts import LastAdmin, Scope
from tests.people import make_role, make_target

pytestmark = pytest.mark.django_db

WHO = ("alice", "192.0.2.7")


def audited() -> list[tuple[str, str, Any]]:
    found = AuditEntry.objects.order_by("id")
    return [(one.what, one.object_name, one.detail.get("permissions")) for one in found]


def test_a_role_is_what_it_names_and_view_where_that_is_needed() -> None:
    cancel = roles.add(*WHO, name="cancel-only", permissions=["cancel_backend"])
    auditor = roles.add(*WHO, name="auditor", permissions=["audit"])

    assert cancel.permissions == ["view", "cancel_backend"]
    assert auditor.permissions == ["audit"]
    assert (cancel.made_by, cancel.made_at is None) == ("alice", False)
    assert audited() == [
        ("role.add", "cancel-only", ["view", "cancel_backend"]),
        ("role.add", "auditor", ["audit"]),
    ]


@pytest.mark.parametrize("name", ["viewer", "admin", "new", "Cancel", "-x", "", "a" * 41, "a b"])
def test_a_name_that_is_none_or_taken_makes_no_role(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        roles.add(*WHO, name=name, permissions=["view"])

    assert set(caught.value.message_dict) == {"name"}
    assert not Role.objects.exists()


def test_a_second_role_of_a_name_is_none_and_the_four_are_no_rows() -> None:
    make_role()

    with pytest.raises(ValidationError, match="There is a role cancel-only already"):
        roles.add(*WHO, name="cancel-only", permissions=["view"])
    with pytest.raises(IntegrityError), transaction.atomic():
        Role.objects.create(name="viewer", permissions=["manage_people"], made_by="x")
    assert audited() == []


@pytest.mark.parametrize(("wanted", "words"), [(["vaccum"], "no permission vaccum"), ([], "least")])
def test_what_is_no_permission_is_put_into_no_role(wanted: list[str], words: str) -> None:
    role = make_role()

    with pytest.raises(ValidationError, match=words):
        roles.add(*WHO, name="x", permissions=wanted)
    with pytest.raises(ValidationError, match=words):
        roles.change(*WHO, role.name, wanted)

    assert Role.objects.get().permissions == ["view", "cancel_backend"]


def test_a_change_counts_at_once_and_is_in_the_chain() -> None:
    role, target, ann = make_role(), make_target(), User.objects.create_user("ann")
    accounts.give(*WHO, ann, role.name, Scope(environment=target.environment))
    elsewhere = make_target("other", environment="production")

    assert access.permissions_of(ann, target) == {"view", "cancel_backend"}
    assert access.permissions_of(ann, elsewhere) == frozenset()
    assert list(access.targets_with(ann, "cancel_backend")) == [target]

    assert roles.change(*WHO, role.name, ["analyze"])
    assert not roles.change(*WHO, role.name, ["analyze", "view"])

    assert access.permissions_of(ann, target) == {"view", "analyze"}
    assert not access.targets_with(ann, "cancel_backend").exists()
    assert audited()[1:] == [("role.change", "cancel-only", ["view", "analyze"])]
    assert AuditEntry.objects.latest("id").detail["before"] == ["view", "cancel_backend"]
    assert entries.verify() is None


def test_a_role_that_somebody_has_stays() -> None:
    role, ann = make_role(), User.objects.create_user("ann")
    production = Environment.objects.get(name="production")
    grant, _ = accounts.give(*WHO, ann, role.name, Scope(environment=production))

    with pytest.raises(roles.StillGranted, match="given to ann on environment production"):
        roles.remove(*WHO, role.name)

    accounts.take(*WHO, grant)
    roles.remove(*WHO, role.name)
    assert not Role.objects.exists()
    assert [what for what, _, _ in audited()] == ["grant.add", "grant.remove", "role.remove"]


@pytest.mark.django_db(transaction=True)
def test_a_role_that_is_being_given_is_not_removed(eventually: Callable[..., None]) -> None:
    make_role()
    ann = User.objects.create_user("ann")

    def waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return bool(cursor.fetchone() == (1,))

    with ThreadPoolExecutor(1) as other, transaction.atomic():
        accounts.give(*WHO, ann, "cancel-only", Scope())
        removal = other.submit(remove_apart)
        eventually(waits)

    assert isinstance(removal.exception(), roles.StillGranted)
    assert access.may(ann, "cancel_backend")


def remove_apart() -> None:
    """Remove the role over a connection of its own."""
    try:
        roles.remove(*WHO, "cancel-only")
    finally:
        connection.close()


def test_a_role_that_does_not_exist_is_not_given_and_counts_for_nothing() -> None:
    ann = User.objects.create_user("ann")

    with pytest.raises(ValidationError, match="There is no role cancel-only"):
        accounts.give(*WHO, ann, "cancel-only", Scope())

    Grant.objects.create(user=ann, role="cancel-only")
    assert access.permissions_of(ann, make_target()) == frozenset()
    assert accounts.rights_of(ann) == []


def test_a_permission_that_was_removed_counts_for_nothing() -> None:
    role, ann, target = make_role(), User.objects.create_user("ann"), make_target()
    Role.objects.update(permissions=["view", "drop_everything", "cancel_backend"])
    role.refresh_from_db()
    accounts.give(*WHO, ann, role.name, Scope())

    assert roles.removed(role) == ["drop_everything"]
    assert access.permissions_of(ann, target) == {"view", "cancel_backend"}
    assert accounts.rights_of(ann)[0].permissions == ["cancel_backend", "view"]
    with pytest.raises(ValueError, match="no permission"):
        access.may(ann, "drop_everything", target)


def keeper(kind: str) -> User:
    """Make somebody who alone manages people, by a role of one's own."""
    make_role("keeper", "manage_people")
    user = User.objects.create_user("kim")
    holder = accounts.join(*WHO, user, "keepers") if kind == "group" else user
    accounts.give(*WHO, holder, "keeper", Scope())
    return user


@pytest.mark.parametrize("kind", ["own", "group"])
def test_the_last_who_manages_people_by_such_a_role_stays(kind: str) -> None:
    kim = keeper(kind)
    assert list(accounts.admins()) == [kim]

    with pytest.raises(LastAdmin, match="keeper is the last role"):
        roles.change(*WHO, "keeper", ["view"])
    with pytest.raises(LastAdmin, match="is the last admin"):
        accounts.take(*WHO, Grant.objects.get())
    with pytest.raises(LastAdmin, match="kim is the last admin"):
        accounts.deactivate(*WHO, kim)

    assert access.may(User.objects.get(username="kim"), "manage_people")
    accounts.give(*WHO, User.objects.create_user("root"), "admin", Scope())
    assert roles.change(*WHO, "keeper", ["view"])
    assert not access.may(User.objects.get(username="kim"), "manage_people")


def test_on_a_target_or_environment_nobody_becomes_an_admin() -> None:
    make_role("keeper", "manage_people")
    kim, target = User.objects.create_user("kim"), make_target()
    accounts.give(*WHO, kim, "keeper", Scope(target=target))
    accounts.give(*WHO, kim, "keeper", Scope(environment=target.environment))

    assert not access.may(kim, "manage_people")
    assert not accounts.admins().exists()


def test_sentences_name_roles_of_ones_own_and_not_too_many() -> None:
    assert access.roles_with("cancel_backend") == "operator or dba"
    make_role()
    assert access.roles_with("cancel_backend") == "operator, dba or cancel-only"
    assert access.roles_with("terminate_backend") == "dba"
    for number in range(6):
        make_role(f"r{number}")
    assert access.roles_with("cancel_backend").endswith("cancel-only, r0, r1, r2 or 3 more")


def test_every_permission_has_words_and_a_group_that_the_actions_say() -> None:
    groups = {one.name: group for group, found in permissions.by_group().items() for one in found}

    assert set(groups) == set(access.PERMISSIONS) == set(permissions.ORDERED)
    assert len(permissions.ORDERED) == len(access.PERMISSIONS)
    assert set(permissions.WORDS) == set(access.OTHERS)
    assert {groups[name] for name in ACTIONS} <= set(permissions.ABOUT_ACTIONS)
    assert groups["cancel_backend"] == "Sessions"
    assert groups["vacuum"] == "Maintenance"
    assert groups["vacuum_full"] == groups["repack"] == "Rewriting"
    assert groups["set_autovacuum"] == "Options of tables"
    assert groups["create_extension"] == "Server"
