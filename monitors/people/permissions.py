"""What each permission allows, in words, and the groups that a role is put together from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from monitors.action import Action as Spec
from monitors.actions import ACTIONS
from monitors.people.access import ADMIN, PERMISSIONS

EXCLUSIVE = "AccessExclusiveLock"

WORDS: Mapping[str, tuple[str, str]] = {
    "view": ("Pages", "a target's pages; statements with their literals replaced"),
    "view_query_text": ("Pages", "the running statements' own text, live"),
    "acknowledge": ("Pages", "acknowledge, snooze and reopen findings"),
    "approve": ("Oversight", "be the second person for what another one asked for"),
    "audit": (
        "Oversight",
        "read the audit of the targets where it is given, on everything all of it",
    ),
    "manage_targets": ("Administration", "register, edit and remove targets; thresholds"),
    "manage_people": (
        "Administration",
        "accounts, roles and grants; only on everything, and then whoever has it can give"
        " themselves every other one",
    ),
}
"""Of those that are no action: their group, and what they allow."""
ABOUT_ACTIONS = ("Sessions", "Maintenance", "Options of tables", "Rewriting", "Server")
GROUPS = ("Pages", *ABOUT_ACTIONS, "Oversight", "Administration")


@dataclass(frozen=True)
class Permission:
    """One that exists; `name` is the action's where it is one."""

    name: str
    group: str
    allows: str


def group_of(spec: Spec) -> str:
    """Return the group of an action, by what it says of itself."""
    if spec.is_signal:
        return "Sessions"
    if EXCLUSIVE in {spec.lock, spec.swap_lock}:
        return "Rewriting"
    if not spec.lock:
        return "Server"
    return "Options of tables" if spec.inverse else "Maintenance"


def described(name: str) -> Permission:
    """Return a permission that exists, with its group and words."""
    if name in WORDS:
        return Permission(name, *WORDS[name])
    spec = ACTIONS[name]
    return Permission(name, group_of(spec), words_of(spec))


def words_of(spec: Spec) -> str:
    """Return what an action's button says, what it locks, and whether it asks again."""
    locks = f"takes {spec.lock}" if spec.lock else ""
    swaps = f"at its end {spec.swap_lock}" if spec.swap_lock else ""
    asks = "asks for a confirmation" if spec.destructive else ""
    return "; ".join(filter(None, [spec.verb, locks, swaps, asks]))


def by_group() -> dict[str, list[Permission]]:
    """Return every permission under its group, groups without one left out."""
    every = [described(name) for name in PERMISSIONS]
    groups = {group: [one for one in every if one.group == group] for group in GROUPS}
    return {group: found for group, found in groups.items() if found}


ORDERED = tuple(one.name for found in by_group().values() for one in found)
"""All permissions by group, in the order in which people are shown them."""


def completed(names: Iterable[str]) -> list[str]:
    """Return permissions in order, with `view` where one of them is of use on pages alone.

    Who may cancel must see whom. What an admin does needs no target's pages.
    """
    chosen = set(names)
    if chosen - ADMIN:
        chosen.add("view")
    return [name for name in ORDERED if name in chosen]
