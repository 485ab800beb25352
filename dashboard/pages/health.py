"""Whether the web runs, and whether the chain beat → broker → worker → database does."""

from __future__ import annotations

from datetime import timedelta

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from dashboard.broker import broker_answers, seconds_since_full
from dashboard.patience import at_most
from monitors.models import WorkerBeat

FRESH = timedelta(seconds=30)
DATABASE_SECONDS = 5
LINKS = {
    "tick": "Beat's tick has not gone through a worker {since}; check beat and the requests worker.",
    "snapshots": "No snapshots worker has beaten {since}; no target is being read.",
    "signals": "No signals worker has beaten {since}; cancel and terminate are not carried out.",
    "requests": "No requests worker has beaten {since}; previews and checks are not answered.",
}


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Answer 200: the web process itself runs."""
    del request
    return JsonResponse({"live": True})


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Answer 200, or 503 with a reason for each broken link of the chain."""
    del request
    reasons = chain_reasons()
    return JsonResponse({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


def chain_reasons() -> dict[str, str]:
    """Return {link: sentence} for what doesn't work; empty when all does."""
    reasons = {}
    if not broker_answers():
        reasons["broker"] = "The broker does not answer within 2 s; check REDIS_URL."
    elif (seconds := seconds_since_full()) is not None:
        reasons["room"] = (
            f"The history database had no room left on its disk {seconds} s ago: what is read is not"
            " kept. Give it room."
        )
    try:
        with at_most(DATABASE_SECONDS):
            connection.ensure_connection()
            reasons |= worker_reasons()
    except DatabaseError:
        reasons["database"] = "The history database does not answer; check DATABASE_URL."
    return reasons


def worker_reasons() -> dict[str, str]:
    """Return {role: sentence} for the roles whose youngest beat is older than FRESH."""
    now = timezone.now()
    youngest = dict(WorkerBeat.objects.order_by("beat_at").values_list("role", "beat_at"))
    reasons = {}
    for role, sentence in LINKS.items():
        beat_at = youngest.get(role)
        if beat_at is None or now - beat_at > FRESH:
            since = "yet" if beat_at is None else f"for {(now - beat_at).total_seconds():.0f} s"
            reasons[role] = sentence.format(since=since)
    return reasons
