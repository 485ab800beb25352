"""Who may do what: roles, scopes, and what a taken right means."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import PermissionDenied

from dashboard.embedded.processes import ROOT
from monitors.actions import ACTIONS
from monitors.models import AuditEntry, Environment, Grant, Target
from monitors.people import access
from monitors.people.access import ROLES

pytestmark = pytest.mark.django_db

Person = Callable[..., User]


@pytest.fixture
def environment() -> Environment:
    return Environment.objects.get_or_create(name="staging")[0]


@pytest.fixture
def target(environment: Environment) -> Target:
    return Target.objects.create(name="orders", host="127.0.0.1", user="c", environment=environment)


@pytest.fixture
def other() -> Target:
    elsewhere, _ = Environment.objects.get_or_create(name="elsewhere")
    return Target.objects.create(name="other", host="127.0.0.1", user="c", environment=elsewhere)


EXPECTED = {
    "viewer": {"view"},
    "operator": {
        "view",
        "view_query_text",
        "acknowledge",
        "cancel_backend",
        "analyze",
        "vacuum",
        "measure_bloat",
    },
    "dba": {"view", "view_query_text", "acknowledge", "approve", "audit", *ACTIONS},
    "admin": {"manage_targets", "manage_people", "audit"},
}


@pytest.mark.parametrize("role", EXPECTED)
def test_a_role_has_exactly_its_permissions(role: str, target: Target, person: Person) -> None:
    user = person(role)

    assert access.permissions_of(user, target) == EXPECTED[role]
    assert {name for name in access.PERMISSIONS if access.may(user, name, target)} == EXPECTED[role]


def test_every_action_is_a_permission_and_some_role_has_it() -> None:
    assert set(ACTIONS) <= set(access.PERMISSIONS)
    assert frozenset().union(*ROLES.values()) == set(access.PERMISSIONS)


def test_an_admin_acts_on_no_target(target: Target, person: Person) -> None:
    admin = person("admin")

    assert not access.permissions_of(admin, target) & set(ACTIONS)
    assert list(access.visible_targets(admin)) == []
    assert list(access.managed_targets(admin)) == [target]


def test_a_grant_on_one_target_says_nothing_of_another(
    target: Target, other: Target, person: Person
) -> None:
    dba = person("dba", target=target)

    assert access.may(dba, "vacuum", target)
    assert not access.may(dba, "vacuum", other)
    assert not access.may(dba, "vacuum")
    assert list(access.visible_targets(dba)) == [target]
    with pytest.raises(Target.DoesNotExist):
        access.get_visible_target(dba, "other")


def test_a_grant_on_an_environment_covers_its_targets(
    target: Target, other: Target, environment: Environment, person: Person
) -> None:
    operator = person("operator", environment=environment)

    assert access.may(operator, "vacuum", target)
    assert not access.may(operator, "vacuum", other)
    assert list(access.visible_targets(operator)) == [target]


def test_a_group_gives_its_members_its_roles(target: Target, person: Person) -> None:
    group = Group.objects.create(name="night shift")
    member = person()
    member.groups.add(group)
    Grant.objects.create(group=group, role="viewer", target=target)

    assert access.may(member, "view", target)
    member.groups.clear()
    assert not access.may(member, "view", target)


def test_a_right_that_was_taken_away_is_gone_at_once(target: Target, person: Person) -> None:
    user = person("viewer")
    assert access.may(user, "view", target)

    Grant.objects.filter(user=user).delete()

    assert not access.may(user, "view", target)


@pytest.mark.parametrize("flag", ["is_superuser", "is_staff"])
def test_djangos_own_flags_count_for_nothing(flag: str, target: Target, person: Person) -> None:
    user = person()
    setattr(user, flag, True)
    user.save()

    assert access.permissions_of(user, target) == frozenset()


def test_nobody_and_the_inactive_may_nothing(target: Target, person: Person) -> None:
    former = person("dba")
    former.is_active = False
    former.save()

    assert access.permissions_of(AnonymousUser(), target) == frozenset()
    assert access.permissions_of(former, target) == frozenset()
    assert list(access.visible_targets(former)) == []
    assert list(access.visible_targets(AnonymousUser())) == []


def test_a_target_being_deleted_is_seen_by_nobody(target: Target, person: Person) -> None:
    Target.objects.update(deleting_at=target.created_at)

    assert list(access.visible_targets(person("dba"))) == []
    assert list(access.managed_targets(person("admin"))) == []


def test_an_unknown_permission_is_a_mistake_and_not_a_no(person: Person) -> None:
    with pytest.raises(ValueError, match="no permission"):
        access.may(person("dba"), "vaccum")


def test_a_denial_is_raised_and_written_down(target: Target, person: Person) -> None:
    viewer = person("viewer")

    with pytest.raises(PermissionDenied, match="vacuum on orders"):
        access.require(viewer, "vacuum", target, source="127.0.0.1")

    entry = AuditEntry.objects.get()
    assert (entry.what, entry.result, entry.who) == ("vacuum", "denied", viewer.username)
    assert (entry.target_name, entry.source) == ("orders", "127.0.0.1")


def test_the_documentation_lists_the_permissions_of_every_role() -> None:
    text = (ROOT / "docs" / "permissions.md").read_text(encoding="utf-8")
    head = "| permission | what it allows | viewer | operator | dba | admin |\n"
    table = text.partition(head)[2].partition("\n\n")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert listed == set(access.OTHERS)  # those of actions stand in docs/reference.md
    for name in access.OTHERS:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")][-4:]
        roles = ("viewer", "operator", "dba", "admin")
        assert cells == ["yes" if name in ROLES[role] else "" for role in roles], name
