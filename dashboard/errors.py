"""What is answered when something fails that nobody foresaw."""

from __future__ import annotations

import sys

from django.core.exceptions import BadRequest
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from dashboard.broker import told_full
from monitors import room

RETRY_SECONDS = 10


class BadForm(BadRequest):
    """A field of a form has no meaning; its text says which and what to do."""


class BadCookie(BadRequest):
    """A cookie has no meaning; its text says what to do."""


def meaningless(exception: Exception) -> str:
    """Return what of a request had no meaning."""
    if isinstance(exception, BadForm):
        return "form"
    if isinstance(exception, BadCookie):
        return "cookie"
    return "address" if isinstance(exception, BadRequest) else "request"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400 and say which word has no meaning; a suspicious request is told nothing."""
    text = str(exception) if isinstance(exception, BadRequest) else ""
    what = meaningless(exception)
    if request.GET.get("format") in {"json", "csv"}:
        error = text or f"This {what} can't be understood."
        return JsonResponse({"error": error}, status=400)
    helps = what == "address" and request.method == "GET" and "\0" not in request.path
    context = {"text": text, "what": what, "path": request.path if helps else ""}
    return HttpResponse(render_to_string("400.html", context), status=400)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 503 while our own database is away, 500 for anything else.

    Django calls this inside the handling of the exception.
    """
    error = sys.exc_info()[1]
    away = isinstance(error, OperationalError | InterfaceError)
    full = away and room.is_full(error)
    if full:
        told_full(error)
    status = 503 if away else 500
    if request.GET.get("format") in {"json", "csv"}:
        reason = "The history database does not answer." if away else "Howdah failed to answer."
        reason = "The history database has no room left on its disk." if full else reason
        response: HttpResponse = JsonResponse({"error": reason}, status=status)
    else:
        # Without the request: its person and messages would ask the database again.
        response = HttpResponse(render_to_string(f"{status}.html", {"full": full}), status=status)
    if away:
        response["Retry-After"] = str(RETRY_SECONDS)
    return response
