"""Who may what where, and why: a row a person, target and permission, as `access.may` answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from django.contrib.auth.models import User

from monitors.action import Action as Spec
from monitors.actions import ACTIONS
from monitors.models import Grant, Target
from monitors.people import access, accounts

COLUMNS = (
    "username",
    "target",
    "environment",
    "permission",
    "may",
    "granted_by",
    "lacks",
    "conditions",
    "hindered",
)
"""Keys of an export, in order."""

Hindrance = Callable[[Target, Spec], str]
"""Says why an action may not be done to a target now, whoever asks; '' where it may."""
Sets = Mapping[str, frozenset[str]]
MOST_NAMED = 3
"""How many grants that hold elsewhere a sentence names."""


class Cell(TypedDict):
    """One permission of one person on one target."""

    username: str
    target: str  # '': on everything
    environment: str  # '': on everything
    permission: str
    may: bool  # what access.may says
    granted_by: list[str]  # "dba on everything, by group night shift"
    lacks: str  # why not, '' where they may
    conditions: list[str]  # what else is asked of who may
    hindered: str  # why it can't be done now although they may, '' where it can


@dataclass(frozen=True)
class Holder:
    """A person with their grants, the groups' too."""

    user: User
    grants: Sequence[Grant]


def cells(
    people: Iterable[User],
    targets: Iterable[Target | None],
    permissions: Sequence[str],
    hindrance: Hindrance,
) -> Iterator[Cell]:
    """Yield a cell for each person, target (None: everything) and permission, in this order.

    A handful of queries for all of them; a target brings its environment.
    """
    sets, places = access.role_sets(), list(targets)
    hindered = hindrances(places, permissions, hindrance)
    for holder in holders(people):
        for target in places:
            here = [
                grant
                for grant in holder.grants
                if holder.user.is_active and accounts.holds_on(grant, target)
            ]
            for name in permissions:
                by = [grant for grant in here if name in sets.get(grant.role, ())]
                yield {
                    "username": holder.user.username,
                    "target": target.name if target else "",
                    "environment": target.environment.name if target else "",
                    "permission": name,
                    "may": bool(by),
                    "granted_by": [words_of(grant) for grant in by],
                    "lacks": "" if by else lacking(holder, target, name, sets),
                    "conditions": conditions(holder, target, name, sets) if by else [],
                    "hindered": hindered.get((target, name), "") if by else "",
                }


def holders(people: Iterable[User]) -> list[Holder]:
    """Return people with their grants: those given to them first, then those of groups."""
    users = list(people)
    grants = Grant.objects.select_related("user", "group", "target", "environment")
    mine = grants.filter(user__in=users).order_by("role", "pk")
    shared = grants.filter(group__user__in=users).distinct().order_by("role", "pk")
    members: dict[int, set[int]] = {}
    through = User.groups.through._default_manager.filter(user__in=users)
    for user_id, group_id in through.values_list("user_id", "group_id"):
        members.setdefault(group_id, set()).add(user_id)
    every = [*mine, *shared]
    return [
        Holder(
            user,
            [
                grant
                for grant in every
                if grant.user_id == user.pk or user.pk in members.get(grant.group_id or 0, ())
            ],
        )
        for user in users
    ]


def hindrances(
    targets: Iterable[Target | None], permissions: Iterable[str], hindrance: Hindrance
) -> dict[tuple[Target | None, str], str]:
    """Return why an action can't be done to a target now, by target and action."""
    names = [name for name in permissions if name in ACTIONS]
    return {
        (target, name): hindrance(target, ACTIONS[name])
        for target in targets
        if target is not None
        for name in names
    }


def words_of(grant: Grant) -> str:
    """Return which grant it is: its role, where it holds, and the group that it comes by."""
    by = f", by group {grant.group.name}" if grant.group else ""
    return f"{grant.role} on {accounts.scope_of(grant)}{by}"


def lacking(holder: Holder, target: Target | None, permission: str, sets: Sets) -> str:
    """Return a sentence why a person may not, and which role would change that."""
    name = holder.user.username
    if not holder.user.is_active:
        return f"{name} is deactivated: no right of theirs counts."
    needs = f"Needs {permission}: {access.named_with(sets, permission)}."
    elsewhere = [
        words_of(grant) for grant in holder.grants if permission in sets.get(grant.role, ())
    ]
    if not elsewhere:
        return needs
    if len(elsewhere) > MOST_NAMED:
        elsewhere[MOST_NAMED:] = [f"{len(elsewhere) - MOST_NAMED} more"]
    here = target.name if target else "everything"
    return f"{needs} What {name} has does not reach {here}: {'; '.join(elsewhere)}."


def conditions(holder: Holder, target: Target | None, permission: str, sets: Sets) -> list[str]:
    """Return sentences about what is asked for beside the right."""
    found = []
    if permission == "approve":
        found.append("Never for what they asked for themselves.")
    if permission == "manage_people" and target is not None:
        everywhere = [grant for grant in holder.grants if accounts.holds_on(grant, None)]
        if not any(permission in sets.get(grant.role, ()) for grant in everywhere):
            found.append("It is asked for on everything alone: given here it opens nothing.")
    spec = ACTIONS.get(permission)
    if spec is None or target is None:
        return found
    environment = target.environment
    if spec.second_person and environment.protected:
        found.append(f"{environment.name} is protected: a second person with approve must agree.")
    if environment.reason_required and not spec.direct:
        found.append(f"{environment.name} asks for a reason.")
    return found


def sentence_of(cell: Cell) -> str:
    """Return why a cell says yes or no, and what else is to be known of it."""
    if not cell["may"]:
        return cell["lacks"]
    hindered = f"Nobody can now: {cell['hindered']}" if cell["hindered"] else ""
    return " ".join(
        filter(None, [f"By {'; '.join(cell['granted_by'])}.", *cell["conditions"], hindered])
    )


def state_of(cell: Cell) -> str:
    """Return `no`, `hindered`, `asked` (something more than the right) or `yes`."""
    if not cell["may"]:
        return "no"
    if cell["hindered"]:
        return "hindered"
    return "asked" if cell["conditions"] else "yes"
