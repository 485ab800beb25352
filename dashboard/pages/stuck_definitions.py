"""When a backend is stuck: the limits of the fleet and its environments, and who has others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.forms.stuck import DefinitionForm
from dashboard.frame.requests import PageRequest, render_page, table_response
from dashboard.source import source_of
from monitors.findings import stuck, thresholds
from monitors.models import Environment, StuckDefinition
from monitors.people import access
from monitors.rules.stuck import BUILT_IN, STATES, Definition

COLUMNS = ("scope", *STATES, "source")


class DefinitionRow(TypedDict):
    """Limits in seconds, None for never, and for whom."""

    scope: str  # fleet, environment production, or application reports, user etl
    running: float | None
    blocked: float | None
    blocking: float | None
    idle_in_transaction: float | None
    source: str  # thresholds, built in, or who made it
    row_id: int | None  # of one that a team made


@require_http_methods(["GET", "HEAD", "POST"])
def definitions(request: PageRequest) -> HttpResponseBase:
    """Show the limits in force; POST makes a definition, in the place of one for the same names."""
    form = DefinitionForm(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        access.require(request.user, "manage_targets", source=source_of(request))
        if form.is_valid() and (made := saved(request, form)):
            return made
    rows = [*scope_rows(), *map(row_of, BUILT_IN), *made_rows()]
    if exported := table_response(request, "stuck-definitions", COLUMNS, rows):
        return exported
    context = {
        "rows": rows,
        "form": form,
        "may_define": access.may(request.user, "manage_targets"),
    }
    status = 400 if form.errors else 200
    return render_page(request, "stuck_definitions.html", context, page="stuck", status=status)


@require_POST
def remove(request: PageRequest, definition_id: int) -> HttpResponse:
    """End a definition: what it named is judged by the limits of its target again."""
    access.require(request.user, "manage_targets", source=source_of(request))
    row = get_object_or_404(StuckDefinition, pk=definition_id, ended_at=None)
    stuck.forget(request.user, row, source=source_of(request))
    messages.success(request, f"The definition for {stuck.definition_of(row).words} is removed.")
    return redirect("stuck-definitions")


def saved(request: PageRequest, form: DefinitionForm) -> HttpResponse | None:
    """Save what was entered and lead back, None where it can't be saved."""
    try:
        row = stuck.define(request.user, form.applied(), source=source_of(request))
    except ValidationError as error:
        form.add_error(None, error)
        return None
    messages.success(request, f"Saved for {stuck.definition_of(row).words}.")
    return redirect("stuck-definitions")


def scope_rows() -> Iterable[DefinitionRow]:
    """Yield the limits of the fleet and of each environment, which are thresholds."""
    scopes: list[thresholds.Scope] = [thresholds.the_fleet(), *Environment.objects.all()]
    for scope in scopes:
        limits = {(one.advisor, one.name): one.value for one in thresholds.in_force(scope)}
        running, blocked, blocking, idle = (
            limits[advisor.name, name] for advisor, name in stuck.THRESHOLDS.values()
        )
        yield {
            "scope": thresholds.name_of(scope),
            "running": running,
            "blocked": blocked,
            "blocking": blocking,
            "idle_in_transaction": idle,
            "source": "thresholds",
            "row_id": None,
        }


def made_rows() -> Iterable[DefinitionRow]:
    """Yield the definitions of the team."""
    for row in StuckDefinition.objects.filter(ended_at=None).select_related("environment"):
        where = f", environment {row.environment.name}" if row.environment else ""
        yield row_of(stuck.definition_of(row), row.made_by, where)


def row_of(definition: Definition, source: str = "built in", where: str = "") -> DefinitionRow:
    """Return a definition as the page and its export show it."""
    limits = definition.limits
    return {
        "scope": definition.words + where,
        "running": limits.running,
        "blocked": limits.blocked,
        "blocking": limits.blocking,
        "idle_in_transaction": limits.idle_in_transaction,
        "source": source,
        "row_id": definition.row_id,
    }
