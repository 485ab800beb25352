"""The forms of people: an account, a password, a group, a role of one's own, a grant."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import Group, User

from monitors.models import Environment, Target
from monitors.people.access import role_sets
from monitors.people.accounts import Scope
from monitors.people.permissions import ORDERED, Permission, by_group

NEW_PASSWORD = {"autocomplete": "new-password", "spellcheck": "false"}
PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
EVERYTHING = "everything"
WORDS = {
    "viewer": "viewer: sees",
    "operator": "operator: also running texts, cancel, analyze, vacuum",
    "dba": "dba: everything that is done to a target",
    "admin": "admin: targets, people, the whole audit",
}
MOST_NAMED = 4
"""How many permissions of a role of one's own are named in a list of roles."""


def password_field(label: str) -> forms.CharField:
    """Return a field whose value is never shown again."""
    widget = forms.PasswordInput(render_value=False, attrs=NEW_PASSWORD)
    return forms.CharField(label=label, widget=widget, strip=False, max_length=500)


class PersonForm(forms.Form):
    """A new account."""

    name = forms.CharField(label="Name", max_length=150, widget=forms.TextInput(attrs=PLAIN))
    password = password_field("Password")
    password.help_text = "Hand it over by a way of its own; its owner changes it on Account."


class PasswordForm(forms.Form):
    """A new password for somebody else."""

    password = password_field("New password")


class GroupForm(forms.Form):
    """A group by its name, new or known."""

    group = forms.CharField(
        label="Group",
        max_length=150,
        help_text="One that does not exist is made.",
        widget=forms.TextInput(attrs={**PLAIN, "list": "groups"}),
    )


class RoleForm(forms.Form):
    """A role of one's own: its name, and what it includes."""

    name = forms.CharField(
        label="Name",
        max_length=40,
        help_text="Lower-case letters, digits and hyphens. It stays as it is.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    permissions = forms.MultipleChoiceField(
        choices=[(name, name) for name in ORDERED],
        error_messages={"required": "A role includes at least one permission."},
    )

    def groups(self) -> list[tuple[str, list[tuple[Permission, bool]]]]:
        """Return each group with its permissions and whether they are chosen."""
        chosen = frozenset(self["permissions"].value() or ())
        return [
            (group, [(one, one.name in chosen) for one in found])
            for group, found in by_group().items()
        ]


class GrantForm(forms.Form):
    """Who gets which role where; `holder` fixes who."""

    holder = forms.ChoiceField(label="Who")
    role = forms.ChoiceField(label="Role")
    scope = forms.ChoiceField(label="Where")

    def __init__(self, *args: Any, holder: User | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        who, what, where = (self.fields[name] for name in ("holder", "role", "scope"))
        assert isinstance(who, forms.ChoiceField)  # noqa: S101 - declared above
        assert isinstance(what, forms.ChoiceField)  # noqa: S101
        assert isinstance(where, forms.ChoiceField)  # noqa: S101
        who.choices = holders()
        what.choices = [(name, worded(name, found)) for name, found in role_sets().items()]
        where.choices = scopes()
        if holder is not None:
            who.initial = f"user:{holder.pk}"
            who.widget = forms.HiddenInput()

    def chosen_holder(self) -> User | Group:
        """Return the person or group that was chosen."""
        kind, _, pk = self.cleaned_data["holder"].partition(":")
        return User.objects.get(pk=pk) if kind == "user" else Group.objects.get(pk=pk)

    def chosen_scope(self) -> Scope:
        """Return where the role is to hold."""
        kind, _, pk = self.cleaned_data["scope"].partition(":")
        if kind == "target":
            return Scope(target=Target.objects.get(pk=pk))
        if kind == "environment":
            return Scope(environment=Environment.objects.get(pk=pk))
        return Scope()


def worded(role: str, permissions: frozenset[str]) -> str:
    """Return a role with what it includes, in a few words."""
    if role in WORDS:
        return WORDS[role]
    names = [name for name in ORDERED if name in permissions - {"view"}]
    names = names or list(permissions) or ["nothing that exists"]
    if len(names) > MOST_NAMED:
        names[MOST_NAMED:] = [f"{len(names) - MOST_NAMED} more"]
    return f"{role}: {', '.join(names)}"


def holders() -> list[tuple[str, str]]:
    """Return the choices of people and groups."""
    people = [(f"user:{one.pk}", one.username) for one in User.objects.order_by("username")]
    groups = [(f"group:{one.pk}", f"group {one.name}") for one in Group.objects.order_by("name")]
    return [*people, *groups]


def scopes() -> list[tuple[str, str]]:
    """Return the choices of everything, environments and targets."""
    environments = [
        (f"environment:{one.pk}", f"every {one.name} target") for one in Environment.objects.all()
    ]
    targets = [(f"target:{one.pk}", one.name) for one in Target.objects.filter(deleting_at=None)]
    return [(EVERYTHING, EVERYTHING), *environments, *targets]
