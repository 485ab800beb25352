"""Who may log in, in which groups, with which roles: for those who manage people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard.forms.person import GrantForm, GroupForm, PasswordForm, PersonForm
from dashboard.frame.requests import PageRequest, render_page, table_response
from dashboard.source import source_of
from monitors.models import Grant, Target
from monitors.people import access, accounts
from monitors.rows.rights import together

COLUMNS = ("username", "is_active", "last_login", "groups", "roles")
REFUSED = 409


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def people(request: PageRequest) -> HttpResponseBase:
    """Show accounts, groups and who has which role where; POST adds an account."""
    require(request)
    form = PersonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = accounts.add(*actor(request), **form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, f"{made.username} may log in, and sees nothing yet.")
            return redirect("person", made.pk)
    rows = listed()
    return table_response(request, "people", COLUMNS, rows) or show_list(request, rows, form)


def show_list(
    request: PageRequest,
    rows: list[dict[str, Any]],
    form: PersonForm,
    grant_form: GrantForm | None = None,
    refused: str = "",
) -> HttpResponse:
    """Render the list; what was refused is a conflict, a form with errors a bad request."""
    wrong = form.errors or (grant_form.errors if grant_form else None)
    context = {
        "rows": rows,
        "form": form,
        "grant_form": grant_form or GrantForm(),
        "grants": all_grants(),
        "groups": Group.objects.order_by("name").prefetch_related("user_set"),
        "refused": refused,
    }
    status = REFUSED if refused else 400 if wrong else 200
    return render_page(request, "people.html", context, page="people", status=status)


@require_safe
def person(request: PageRequest, person_id: int) -> HttpResponse:
    """Show one account: roles, groups, and what it may do on each target."""
    require(request)
    return show_person(request, get_person(person_id))


def show_person(
    request: PageRequest, subject: User, refused: str = "", **forms: Form
) -> HttpResponse:
    """Render one account around its forms, of which one may have errors."""
    rights = accounts.rights_of(subject)
    context = {
        "subject": subject,
        "grants": accounts.grants_of(subject),
        "rights": together(
            (right.target, right.permissions, [role_of(grant) for grant in right.grants])
            for right in rights
        ),
        "reached": len(rights),
        "everywhere": sorted(access.permissions_of(subject)),
        "targets": Target.objects.filter(deleting_at=None).count(),
        "all_groups": Group.objects.order_by("name"),
        "password_form": PasswordForm(),
        "group_form": GroupForm(),
        "grant_form": GrantForm(holder=subject),
        "refused": refused,
        **forms,
    }
    wrong = any(form.errors for form in forms.values())
    status = REFUSED if refused else 400 if wrong else 200
    return render_page(request, "person.html", context, page="people", status=status)


def role_of(grant: Grant) -> str:
    """Return a grant's role, and the group that it comes through."""
    return f"{grant.role} of {grant.group.name}" if grant.group else grant.role


@sensitive_post_parameters("password")
@require_POST
def password(request: PageRequest, person_id: int) -> HttpResponse:
    """Set an account's password, which ends its sessions."""
    require(request)
    subject, form = get_person(person_id), PasswordForm(request.POST)
    if form.is_valid():
        try:
            accounts.set_password(*actor(request), subject, form.cleaned_data["password"])
        except ValidationError as error:
            form.add_error(None, error)
    if form.errors:
        return show_person(request, subject, password_form=form)
    if subject == request.user:
        update_session_auth_hash(request, subject)
    messages.success(request, f"{subject.username} has a new password; its sessions are ended.")
    return redirect("person", subject.pk)


@require_POST
def deactivate(request: PageRequest, person_id: int) -> HttpResponse:
    """End an account and its sessions."""
    require(request)
    subject = get_person(person_id)
    try:
        ended = accounts.deactivate(*actor(request), subject)
    except accounts.LastAdmin as error:
        return show_person(request, get_person(person_id), refused=str(error))
    sessions = "1 session was" if ended == 1 else f"{ended} sessions were"
    messages.success(request, f"{subject.username} is deactivated; {sessions} ended.")
    return redirect("person", subject.pk)


@require_POST
def activate(request: PageRequest, person_id: int) -> HttpResponse:
    """Let an account log in again."""
    require(request)
    subject = get_person(person_id)
    accounts.activate(*actor(request), subject)
    messages.success(request, f"{subject.username} may log in again, with the roles it had.")
    return redirect("person", subject.pk)


@require_POST
def join(request: PageRequest, person_id: int) -> HttpResponse:
    """Put a person into a group."""
    require(request)
    subject, form = get_person(person_id), GroupForm(request.POST)
    if form.is_valid():
        try:
            accounts.join(*actor(request), subject, form.cleaned_data["group"])
        except ValidationError as error:
            form.add_error(None, error)
    if form.errors:
        return show_person(request, subject, group_form=form)
    messages.success(request, f"{subject.username} is in {form.cleaned_data['group']}.")
    return redirect("person", subject.pk)


@require_POST
def leave(request: PageRequest, person_id: int, group_id: int) -> HttpResponse:
    """Take a person out of a group."""
    require(request)
    subject, group = get_person(person_id), get_object_or_404(Group, pk=group_id)
    try:
        accounts.leave(*actor(request), subject, group)
    except accounts.LastAdmin as error:
        return show_person(request, get_person(person_id), refused=str(error))
    messages.success(request, f"{subject.username} is no longer in {group.name}.")
    return redirect("person", subject.pk)


@require_POST
def give(request: PageRequest) -> HttpResponse:
    """Give a role to a person or group."""
    require(request)
    form = GrantForm(request.POST)
    if not form.is_valid():
        return show_list(request, listed(), PersonForm(), form)
    holder, role = form.chosen_holder(), form.cleaned_data["role"]
    try:
        grant, made = accounts.give(*actor(request), holder, role, form.chosen_scope())
    except ValidationError as error:  # it was removed since the form looked
        form.add_error(None, error)
        return show_list(request, listed(), PersonForm(), form)
    again = "" if made else " already"
    words = f"{accounts.holder_of(grant)} is{again} {role} on {accounts.scope_of(grant)}."
    messages.success(request, words)
    return back_to(grant)


@require_POST
def take(request: PageRequest, grant_id: int) -> HttpResponse:
    """Take a role away."""
    require(request)
    grant = get_object_or_404(all_grants(), pk=grant_id)
    name, scope = accounts.holder_of(grant), accounts.scope_of(grant)
    try:
        accounts.take(*actor(request), grant)
    except accounts.LastAdmin as error:
        if grant.user is None:
            return show_list(request, listed(), PersonForm(), refused=str(error))
        return show_person(request, grant.user, refused=str(error))
    messages.success(request, f"{name} is no longer {grant.role} on {scope}.")
    return back_to(grant)


def back_to(grant: Grant) -> HttpResponse:
    """Lead to whose grant it is, a group's to the list."""
    return redirect("person", grant.user_id) if grant.user_id else redirect("people")


def require(request: PageRequest) -> None:
    """Raise PermissionDenied, and audit it, for who may not manage people."""
    access.require(request.user, "manage_people", source=source_of(request))


def actor(request: PageRequest) -> tuple[str, str]:
    """Return who acts and from where, for the audit."""
    return request.user.get_username(), source_of(request)


def get_person(person_id: int) -> User:
    """Return an account; raises Http404."""
    return get_object_or_404(User.objects.prefetch_related("groups"), pk=person_id)


def all_grants() -> QuerySet[Grant]:
    """Return every grant with whose and where it is, by holder."""
    grants = Grant.objects.select_related("user", "group", "target", "environment")
    return grants.order_by("group__name", "user__username", "role", "pk")


def listed() -> list[dict[str, Any]]:
    """Return the rows of all accounts by name."""
    grants = list(all_grants())
    users = User.objects.order_by("username").prefetch_related("groups")
    return [row_of(one, grants) for one in users]


def row_of(user: User, grants: Sequence[Grant]) -> dict[str, Any]:
    """Return an account's line, given all grants: the export's keys, and `user`."""
    groups = {group.pk: group.name for group in user.groups.all()}
    mine = [one for one in grants if one.user_id == user.pk or one.group_id in groups]
    return {
        "username": user.username,
        "is_active": user.is_active,
        "last_login": user.last_login,
        "groups": sorted(groups.values()),
        "roles": [f"{grant.role} on {accounts.scope_of(grant)}" for grant in mine],
        "user": user,
    }
