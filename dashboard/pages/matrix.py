"""Who may what where, and why: a person's rights by target, or a target's by person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from django.contrib.auth.models import User
from django.http import Http404
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame.listing import chosen, listing_of
from dashboard.frame.requests import PageRequest, render_page, table_response
from monitors.acting.ask import reason_not_to_act
from monitors.models import Target
from monitors.people import access
from monitors.people.permissions import ORDERED, by_group, described
from monitors.rows.matrix import COLUMNS, Cell, cells, sentence_of, state_of

AXES = {"person": "A person on every target", "target": "A target for every person"}
ALL = "all"
GROUPS = by_group()
MARKS = {
    "yes": ("good", "may"),
    "asked": ("notice", "may, and something else is asked for"),
    "hindered": ("pause", "may, and nobody can at present"),
    "no": ("", "may not"),
}
"""By state of a cell: its icon, '' for a dash, and what that says."""
BEGIN = frozenset(found[0].name for found in GROUPS.values())
"""The permissions with which a group begins."""


class Head(TypedDict):
    """What a line is about: a target, everything, or a person."""

    name: str  # '': everything
    environment: str  # '' of everything and of people
    colour: str
    subject: User | Target | None


class Shown(TypedDict):
    """A cell as it is drawn."""

    cell: Cell
    state: str
    icon: str
    word: str
    sentence: str
    begins: bool  # whether a group of permissions begins with it


@dataclass(frozen=True)
class Picked:
    """What the query picks, of the people and targets that whoever asks may know of."""

    axis: str
    group: str
    people: list[User]
    targets: list[Target | None]  # None: everything
    person: User
    place: Target | None

    @property
    def names(self) -> tuple[str, ...]:
        """The permissions that have a column."""
        return ORDERED if self.group == ALL else tuple(one.name for one in GROUPS[self.group])

    @property
    def subjects(self) -> Sequence[User | Target | None]:
        """What has a line."""
        return self.targets if self.axis == "person" else self.people


@require_safe
def matrix(request: PageRequest) -> HttpResponseBase:
    """Show a table of cells that say yes or no, and the reasons of the one that is chosen."""
    picked = picked_by(request)
    listing = listing_of(
        request,
        [head_of(one) for one in picked.subjects],
        columns=("name", "environment"),
        default="name",
        searched=lambda head: f"{head['name'] or 'everything'} {head['environment']}",
    )
    shows = listing.matching if request.GET.get("format") else listing.rows
    found = read(picked, [head["subject"] for head in shows])
    exported = table_response(request, "rights", COLUMNS, found)
    if exported:
        return exported
    context = {
        "picked": picked,
        "axes": AXES.items(),
        "heads": [(described(name), name in BEGIN) for name in picked.names],
        "groups": group_chips(),
        "lines": list(zip(shows, lines(found, len(picked.names)), strict=True)),
        "listing": listing,
        "sort": listing.sort,
        "marks": MARKS.items(),
        "why": why(request, picked),
        "may_manage_people": access.may(request.user, "manage_people"),
    }
    return render_page(request, "matrix.html", context, page="matrix")


def picked_by(request: PageRequest) -> Picked:
    """Return what the query picks; raises Http404 and BadRequest for what is not there.

    Who neither manages people nor reads the whole audit picks among themselves and the targets
    that they see.
    """
    sees_all = bool(access.permissions_of(request.user) & {"manage_people", "audit"})
    people = list(User.objects.order_by("username")) if sees_all else [request.user]
    targets = all_targets(None if sees_all else request.user)
    return Picked(
        axis=chosen(request, "by", AXES, "person"),
        group=chosen(request, "group", {ALL: "", **GROUPS}, ALL),
        people=people,
        targets=targets,
        person=person_of(request, people),
        place=place_of(request, targets),
    )


def all_targets(seen_by: User | None) -> list[Target | None]:
    """Return everything (None), then each target, or each that somebody sees, by name."""
    every = Target.objects.filter(deleting_at=None).select_related("environment")
    return [None, *(every if seen_by is None else access.visible_targets(seen_by))]


def person_of(request: PageRequest, people: Iterable[User]) -> User:
    """Return whom the query names, else who asks; raises Http404."""
    name = request.GET.get("person") or request.user.get_username()
    found = next((one for one in people if one.username == name), None)
    if found is None:
        raise Http404
    return found


def place_of(request: PageRequest, targets: Iterable[Target | None]) -> Target | None:
    """Return the target that the query names, None for everything; raises Http404."""
    name = request.GET.get("target")
    found = next((one for one in targets if one is not None and one.name == name), None)
    if name and found is None:
        raise Http404
    return found


def head_of(subject: User | Target | None) -> Head:
    """Return what a line is about."""
    if isinstance(subject, User):
        return {"name": subject.username, "environment": "", "colour": "", "subject": subject}
    if subject is None:
        return {"name": "", "environment": "", "colour": "", "subject": None}
    return {
        "name": subject.name,
        "environment": subject.environment.name,
        "colour": subject.environment.colour,
        "subject": subject,
    }


def read(picked: Picked, subjects: Sequence[User | Target | None]) -> list[Cell]:
    """Return the cells of the lines that are shown, line after line."""
    people, targets = [picked.person], [picked.place]
    if picked.axis == "person":
        targets = [one for one in subjects if not isinstance(one, User)]
    else:
        people = [one for one in subjects if isinstance(one, User)]
    return list(cells(people, targets, picked.names, reason_not_to_act))


def lines(found: Sequence[Cell], width: int) -> list[list[Shown]]:
    """Return cells as lines of so many."""
    return [
        [shown(cell) for cell in found[start : start + width]]
        for start in range(0, len(found), width)
    ]


def shown(cell: Cell) -> Shown:
    """Return a cell as it is drawn."""
    state = state_of(cell)
    icon, word = MARKS[state]
    return {
        "cell": cell,
        "state": state,
        "icon": icon,
        "word": word,
        "sentence": sentence_of(cell),
        "begins": cell["permission"] in BEGIN,
    }


def group_chips() -> list[tuple[str, str, int]]:
    """Return the groups of permissions that one may be content with."""
    groups = [(name, name, len(found)) for name, found in GROUPS.items()]
    return [(ALL, "All", len(ORDERED)), *groups]


def why(request: PageRequest, picked: Picked) -> dict[str, object] | None:
    """Return the chosen cell with what it is about, None where none is; raises Http404."""
    name, place = request.GET.get("permission"), picked.place
    if not name:
        return None
    if name not in ORDERED:
        raise Http404
    (cell,) = cells([picked.person], [place], [name], reason_not_to_act)
    return {
        **shown(cell),
        "permission": described(name),
        "verdict": "may" if cell["may"] else "may not",
        "where": f"{place.name} ({place.environment.name})" if place else "everything",
    }
