"""The strip at the bottom of a target's pages: what runs, and what ended a moment ago."""

from __future__ import annotations

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods

from dashboard.frame import frame
from dashboard.frame.requests import PageRequest, get_target
from monitors.kinds import EVERY
from monitors.models import Target

KEPT = 50
"""Dismissed actions that a session remembers; older ones have left the strip anyway."""


@require_http_methods(["GET", "HEAD", "POST"])
def strip(request: PageRequest, name: str) -> HttpResponse:
    """Show the strip; by POST, put one finished action away."""
    target = get_target(request, name, kinds=EVERY)
    if request.method == "POST":
        dismiss(request, target)
        if not request.htmx:
            return HttpResponseRedirect(back(request, target))
    rows = frame.strip_of(request, target)
    running = any(action.state in frame.IN_STRIP for action in rows)
    context = {
        "target": target,
        "is_strip": True,
        "frame": {"strip": rows, "strip_runs": running},
    }
    return render(request, "_strip.html", context)


def dismiss(request: PageRequest, target: Target) -> None:
    """Remember in the session that an action of the target was put away."""
    wanted = request.POST.get("dismiss", "")
    if wanted in {str(action.pk) for action in frame.strip_of(request, target)}:
        dismissed = [*request.session.get(frame.DISMISSED, []), wanted]
        request.session[frame.DISMISSED] = dismissed[-KEPT:]


def back(request: PageRequest, target: Target) -> str:
    """Return the page that the person came from, if it is one of ours."""
    wanted = request.POST.get("next", "")
    ours = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, request.is_secure())
    return wanted if ours else reverse("overview", args=[target.name])
