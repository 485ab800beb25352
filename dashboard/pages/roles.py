"""Roles of one's own: what each includes and who has it, for those who manage people."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard.forms.person import RoleForm
from dashboard.frame.requests import PageRequest, render_page, table_response
from dashboard.source import source_of
from monitors.models import Role
from monitors.people import access, accounts, roles as own
from monitors.people.permissions import completed
from monitors.rows.roles import COLUMNS, read_roles

REFUSED = 409


@require_safe
def roles(request: PageRequest) -> HttpResponseBase:
    """Show the four roles and those of one's own, with what each includes."""
    require(request)
    rows = read_roles()
    exported = table_response(request, "roles", COLUMNS, rows)
    if exported:
        return exported
    return render_page(request, "roles.html", {"rows": rows}, page="people")


@require_http_methods(["GET", "HEAD", "POST"])
def new(request: PageRequest) -> HttpResponse:
    """Make a role; `like` of the query names one whose permissions are chosen to begin with."""
    require(request)
    form = RoleForm(request.POST or None, initial={"permissions": like(request)})
    if request.method == "POST" and form.is_valid():
        try:
            made = own.add(*actor(request), **form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, f"The role {made.name} is made. Nobody has it yet.")
            return redirect("role-edit", made.name)
    return show(request, form)


def like(request: PageRequest) -> list[str]:
    """Return the permissions of the role that the query names; raises Http404 for another."""
    name = request.GET.get("like")
    if not name:
        return ["view"]
    sets = access.role_sets()
    if name not in sets:
        raise Http404
    return completed(sets[name])


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: PageRequest, role: str) -> HttpResponse:
    """Show a role of one's own; POST changes what it includes, at once for all who have it."""
    require(request)
    found = get_object_or_404(Role, name=role)
    form = form_of(request, found)
    if request.method != "POST" or not form.is_valid():
        return show(request, form, found)
    try:
        changed = own.change(*actor(request), found.name, form.cleaned_data["permissions"])
    except accounts.LastAdmin as error:
        return show(request, form, found, refused=str(error))
    except Role.DoesNotExist:
        raise Http404 from None
    words = "includes that from now on" if changed else "included just that already"
    messages.success(request, f"{found.name} {words}.")
    return redirect("role-edit", found.name)


def form_of(request: PageRequest, role: Role) -> RoleForm:
    """Return the form of a role that exists: its name stays."""
    form = RoleForm(request.POST or None, initial={"permissions": role.permissions})
    del form.fields["name"]
    return form


@require_POST
def remove(request: PageRequest, role: str) -> HttpResponse:
    """Remove a role that nobody has."""
    require(request)
    found = get_object_or_404(Role, name=role)
    try:
        own.remove(*actor(request), found.name)
    except own.StillGranted as error:
        form = RoleForm(initial={"permissions": found.permissions})
        return show(request, form, found, refused=str(error))
    except Role.DoesNotExist:
        raise Http404 from None
    messages.success(request, f"The role {found.name} is removed.")
    return redirect("roles")


def show(
    request: PageRequest, form: RoleForm, role: Role | None = None, refused: str = ""
) -> HttpResponse:
    """Render the form of a role; what was refused is a conflict, errors are a bad request."""
    context: dict[str, Any] = {"form": form, "role": role, "refused": refused}
    if role is not None:
        context |= {"removed": own.removed(role), "grants": own.holders(role.name)}
    status = REFUSED if refused else 400 if form.errors else 200
    return render_page(request, "role.html", context, page="people", status=status)


def require(request: PageRequest) -> None:
    """Raise PermissionDenied, and audit it, for who may not manage people."""
    access.require(request.user, "manage_people", source=source_of(request))


def actor(request: PageRequest) -> tuple[str, str]:
    """Return who acts and from where, for the audit."""
    return request.user.get_username(), source_of(request)
