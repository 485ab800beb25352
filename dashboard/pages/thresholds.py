"""Thresholds of the fleet, an environment or a target: what holds, and where it comes from."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from dashboard.errors import BadForm
from dashboard.frame.requests import PageRequest, render_page, table_response
from dashboard.source import source_of
from monitors.findings import thresholds as limits
from monitors.models import Environment, Fleet, Target
from monitors.people import access

COLUMNS = ("advisor", "name", "default", "value", "source", "own")


@require_http_methods(["GET", "HEAD", "POST"])
def thresholds(request: PageRequest) -> HttpResponseBase:
    """Show every threshold of a scope; POST sets those that are given and forgets empty ones."""
    scope = scope_of(request)
    typed: dict[str, str] = {}
    wrong: dict[str, str] = {}
    if request.method == "POST":
        typed = {name: str(text).strip() for name, text in request.POST.items() if "." in name}
        wanted, wrong = read(typed)
        if not wrong:
            return save(request, scope, wanted)
    rows = list(limits.in_force(scope))
    if exported := table_response(request, "thresholds", COLUMNS, (vars(row) for row in rows)):
        return exported
    context = {
        "scope": scope,
        "scope_name": limits.name_of(scope),
        "groups": [
            (name, [line(row, typed, wrong) for row in group])
            for name, group in groupby(rows, key=lambda row: row.advisor)
        ],
        "wrong": wrong,
        "stray": [error for name, error in wrong.items() if name not in known(rows)],
        "changed": sum(row.own is not None for row in rows),
        **choices(request),
    }
    status = 400 if wrong else 200
    return render_page(request, "thresholds.html", context, page="thresholds", status=status)


def scope_of(request: PageRequest) -> limits.Scope:
    """Return what the query names: `target`, `environment`, or the fleet.

    Raises Http404 for what does not exist, PermissionDenied for who may not change it.
    """
    words = request.GET
    if words.get("target"):
        return get_managed(request, words["target"])
    access.require(request.user, "manage_targets", source=source_of(request))
    if words.get("environment"):
        found = Environment.objects.filter(name=words["environment"]).first()
        if found is None:
            raise Http404
        return found
    return limits.the_fleet()


def get_managed(request: PageRequest, name: str) -> Target:
    """Return a target; raises Http404 or PermissionDenied as `scope_of` does."""
    seen = access.visible_targets(request.user) | access.managed_targets(request.user)
    target = seen.distinct().filter(name=name).first()
    if target is None:
        raise Http404
    access.require(request.user, "manage_targets", target, source=source_of(request))
    return target


def choices(request: PageRequest) -> dict[str, Any]:
    """Return the scopes that the person may choose."""
    everywhere = access.may(request.user, "manage_targets")
    return {
        "environments": list(Environment.objects.all()) if everywhere else [],
        "choose_targets": list(access.managed_targets(request.user)),
        "everywhere": everywhere,
    }


def known(rows: list[limits.InForce]) -> set[str]:
    """Return the names of the fields."""
    return {row.field for row in rows}


def line(row: limits.InForce, typed: dict[str, str], wrong: dict[str, str]) -> dict[str, Any]:
    """Return a threshold with what stands in its field."""
    own = "" if row.own is None else f"{row.own:.15g}"
    return {
        "row": row,
        "typed": typed.get(row.field, own),
        "error": wrong.get(row.field, ""),
        "inherits": row.own is None,
    }


def read(typed: dict[str, str]) -> tuple[dict[limits.Name, float | None], dict[str, str]]:
    """Return what is wanted, and what is wrong, by field."""
    wanted: dict[limits.Name, float | None] = {}
    wrong: dict[str, str] = {}
    for field, text in typed.items():
        advisor, _, name = field.partition(".")
        try:
            key = limits.known_name(advisor, name)
            wanted[key] = limits.number_of(text) if text else None
        except ValidationError as error:
            wrong[field] = " ".join(error.messages)
    return wanted, wrong


def save(
    request: PageRequest, scope: limits.Scope, wanted: dict[limits.Name, float | None]
) -> HttpResponse:
    """Write what is wanted and lead back."""
    if not wanted:
        message = "No threshold was given."
        raise BadForm(message)
    who, where = request.user.get_username(), source_of(request)
    count = limits.change(who, where, scope, wanted)
    words = "1 threshold is" if count == 1 else f"{count} thresholds are"
    said = f"{words} changed for the {limits.name_of(scope)}." if count else "Nothing changed."
    messages.success(request, said)
    return redirect(address(request, scope))


def address(request: HttpRequest, scope: limits.Scope) -> str:
    """Return the page's address for a scope."""
    if isinstance(scope, Fleet):
        return reverse("thresholds")
    kind, _, name = limits.name_of(scope).partition(" ")
    return f"{reverse('thresholds')}?{urlencode({kind: name})}"
