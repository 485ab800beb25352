"""Who may what: every cell says what `access.may` says, and why."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from monitors.acting.ask import reason_not_to_act
from monitors.models import Environment, Grant, Role, Target
from monitors.people import access
from monitors.people.permissions import ORDERED
from monitors.rows import matrix
from monitors.rows.matrix import Cell
from tests.people import make_role, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db


def scatter(dice: random.Random) -> tuple[list[User], list[Target | None]]:
    """Give people and groups roles at random, four of them one's own, one with what is gone."""
    for number in range(4):
        make_role(f"own-{number}", *dice.sample(ORDERED, 3))
    Role.objects.filter(name="own-0").update(permissions=["view", "gone", "analyze"])
    users = [User.objects.create_user(f"p{number}") for number in range(5)]
    User.objects.filter(username="p4").update(is_active=False)
    groups = [Group.objects.create(name=f"g{number}") for number in range(2)]
    for user in users:
        user.groups.set(dice.sample(groups, dice.randrange(3)))
    kinds = ("production", "staging", "development")
    targets = [make_target(f"t{number}", environment=kinds[number % 3]) for number in range(5)]
    names = [*access.role_sets(), "no-such-role"]
    for _ in range(14):
        holder: dict[str, Any] = dice.choice(
            [*({"user": one} for one in users), *({"group": one} for one in groups)]
        )
        target = dice.choice(targets)
        scope: dict[str, Any] = dice.choice(
            [{}, {"target": target}, {"target": target}, {"environment": target.environment}]
        )
        Grant.objects.get_or_create(role=dice.choice(names), **holder, **scope)
    return list(User.objects.order_by("username")), [None, *targets]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_cell_says_what_every_page_asks(seed: int) -> None:
    people, places = scatter(random.Random(seed))

    found = list(matrix.cells(people, places, ORDERED, reason_not_to_act))

    assert len(found) == len(people) * len(places) * len(ORDERED)
    said = {(one["username"], one["target"], one["permission"]): one["may"] for one in found}
    for user in people:
        for place in places:
            asked = access.permissions_of(user, place)
            name = place.name if place else ""
            assert {one for one in ORDERED if said[user.username, name, one]} == asked
        seen = {target.name for target in access.visible_targets(user)}
        assert {name for name in seen if said[user.username, name, "view"]} == seen
    assert 0 < sum(said.values()) < len(said)
    for one in found:
        assert bool(one["granted_by"]) is one["may"] is not bool(one["lacks"])
        assert one["may"] or not (one["conditions"] or one["hindered"])
        assert matrix.sentence_of(one)
    assert_typed(found[0], Cell)


def test_more_people_and_targets_need_no_more_questions(django_assert_num_queries: Any) -> None:
    people = [person(f"p{number}", "dba") for number in range(20)]
    places = list(Target.objects.select_related("environment"))

    with django_assert_num_queries(4):
        list(matrix.cells(people, [None, *places], ORDERED, reason_not_to_act))


def cell(user: User, target: Target | None, permission: str) -> Cell:
    (found,) = matrix.cells([user], [target], [permission], reason_not_to_act)
    return found


def test_a_no_says_which_role_helps_and_where_the_right_is_held() -> None:
    make_role()
    here, there = make_target("here", environment="production"), make_target("there")
    ann = person("ann", "viewer")
    Grant.objects.create(user=ann, role="cancel-only", environment=there.environment)

    assert cell(ann, here, "vacuum")["lacks"] == "Needs vacuum: operator or dba."
    assert cell(ann, here, "cancel_backend")["lacks"] == (
        "Needs cancel_backend: operator, dba or cancel-only."
        " What ann has does not reach here: cancel-only on environment development."
    )
    assert cell(ann, there, "cancel_backend")["granted_by"] == [
        "cancel-only on environment development"
    ]
    ann.is_active = False
    assert cell(ann, here, "view")["lacks"] == "ann is deactivated: no right of theirs counts."


def test_a_yes_names_each_grant_and_what_else_is_asked_for() -> None:
    target = make_target(environment="production")
    Environment.objects.filter(name="production").update(protected=True, reason_required=True)
    target = Target.objects.select_related("environment").get()
    ann = person("ann", "dba", target=target)
    group = Group.objects.create(name="night shift")
    ann.groups.add(group)
    Grant.objects.create(group=group, role="dba")

    full, cancel = cell(ann, target, "vacuum_full"), cell(ann, target, "cancel_backend")

    assert full["granted_by"] == ["dba on target shop-1", "dba on everything, by group night shift"]
    assert full["conditions"] == [
        "production is protected: a second person with approve must agree.",
        "production asks for a reason.",
    ]
    assert (cancel["conditions"], matrix.state_of(cancel)) == ([], "yes")  # it must be quick
    assert matrix.state_of(full) == "asked"
    assert cell(ann, None, "vacuum_full")["conditions"] == []


def test_what_nobody_can_is_no_plain_yes() -> None:
    target = make_target(operator_user="")
    ann = person("ann", "dba", "cancel-only", target=target)

    found = cell(ann, target, "cancel_backend")

    assert (found["may"], matrix.state_of(found)) == (True, "hindered")
    assert "shop-1 has no operator login" in matrix.sentence_of(found)
    assert cell(ann, target, "view")["hindered"] == ""


def test_people_are_managed_on_everything_alone() -> None:
    target = make_target()
    ann, root = person("ann", "admin", target=target), person("root", "admin")

    assert "opens nothing" in matrix.sentence_of(cell(ann, target, "manage_people"))
    assert cell(root, target, "manage_people")["conditions"] == []
