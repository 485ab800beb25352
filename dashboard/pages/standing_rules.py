"""Standing rules: what they would have done and did, how they are made, enabled and stopped."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard.errors import BadForm
from dashboard.forms.stuck import RuleForm
from dashboard.frame.requests import PageRequest, render_page, table_response
from dashboard.source import source_of
from monitors.acting import standing_rules as standing
from monitors.findings import thresholds
from monitors.kinds import POSTGRES
from monitors.models import StandingRule
from monitors.people import access
from monitors.rows import standing_rules as rows
from monitors.rows.standing_rules import COLUMNS, FIRING_COLUMNS

ACTIONS = tuple(StandingRule.Does.values)


@require_safe
def rules(request: PageRequest) -> HttpResponseBase:
    """Show the rules and their last firings."""
    found = rows.rules_of(request.user, timezone.now())
    if exported := table_response(request, "standing-rules", COLUMNS, found):
        return exported
    context = {
        "rows": found,
        "firings": rows.firings_of(request.user),
        "stopped": thresholds.the_fleet().rules_off,
        "may_make": may_make(request),
        "may_manage": access.may(request.user, "manage_targets"),
    }
    return render_page(request, "standing_rules.html", context, page="stuck")


@require_safe
def firings(request: PageRequest) -> HttpResponseBase:
    """Export the firings; the page of the rules shows the last ones."""
    found = rows.firings_of(request.user, rule=request.GET.get("rule", ""), last=10_000)
    exported = table_response(request, "standing-rule-firings", FIRING_COLUMNS, found)
    return exported or redirect("standing-rules")


@require_http_methods(["GET", "HEAD", "POST"])
def new(request: PageRequest) -> HttpResponse:
    """Make a rule, which begins in shadow."""
    return edited(request, None)


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: PageRequest, rule: str) -> HttpResponse:
    """Change a rule; who saves it becomes its owner."""
    return edited(request, rule_of(request, rule))


@require_POST
def switch(request: PageRequest, rule: str) -> HttpResponse:
    """Let a rule act, only watch, or rest: `mode` is live, shadow or off."""
    found, source = rule_of(request, rule), source_of(request)
    mode = request.POST.get("mode", "")
    if mode not in {"live", "shadow", "off"}:
        message = "A rule is live, in shadow or off."
        raise BadForm(message)
    if mode == "live":
        standing.enable(request.user, found, source=source)
        messages.success(request, f"{found.name} acts from now on, with your rights.")
    else:
        standing.rest(request.user, found, shadow=mode == "shadow", source=source)
    return redirect("standing-rules")


@require_POST
def remove(request: PageRequest, rule: str) -> HttpResponse:
    """Delete a rule with the record of its firings."""
    found = rule_of(request, rule)
    standing.remove(request.user, found, source=source_of(request))
    messages.success(request, f"The rule {found.name} is removed. What it did stays under Actions.")
    return redirect("standing-rules")


@require_POST
def stop(request: PageRequest) -> HttpResponse:
    """Stop every rule, or let them go on."""
    stopped = request.POST.get("stopped") == "true"
    standing.stop_all(request.user, stopped=stopped, source=source_of(request))
    said = "No rule fires any more." if stopped else "The rules go on."
    messages.success(request, said)
    return redirect("standing-rules")


def may_make(request: PageRequest) -> bool:
    """Tell whether the person may have a rule anywhere."""
    return any(access.targets_with(request.user, name).exists() for name in ACTIONS)


def rule_of(request: PageRequest, name: str) -> StandingRule:
    """Return a rule; raises Http404 where the person may not know of it."""
    known = {row["name"] for row in rows.rules_of(request.user, timezone.now())}
    found = StandingRule.objects.select_related("target__environment", "environment")
    return get_object_or_404(found.filter(name__in=known), name=name)


def edited(request: PageRequest, rule: StandingRule | None) -> HttpResponse:
    """Show the form of a rule, or save what was entered."""
    targets = access.visible_targets(request.user).filter(kind=POSTGRES)
    posted = request.POST if request.method == "POST" else None
    if posted is not None and not may_make(request):
        access.require(request.user, ACTIONS[0], source=source_of(request))
    form = RuleForm(posted, targets=targets, rule=rule)
    if posted is not None and form.is_valid():
        try:
            made = standing.save(request.user, form.applied(), source=source_of(request))
        except ValidationError as error:
            form.add_error(None, " ".join(error.messages))
        else:
            said = "It watches in shadow." if made.shadow else ""
            messages.success(request, f"The rule {made.name} is saved. {said}".strip())
            return redirect("standing-rules")
    context = {"form": form, "rule": rule, "may_make": may_make(request)}
    status = 400 if form.errors else 200
    return render_page(request, "standing_rule_form.html", context, page="stuck", status=status)
