"""What is answered when something fails that nobody foresaw."""

from __future__ import annotations

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

RETRY_SECONDS = 10


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 503 while our own database is away, 500 for anything else.

    Django calls this inside the handling of the exception.
    """
    away = isinstance(sys.exc_info()[1], OperationalError | InterfaceError)
    status = 503 if away else 500
    if request.GET.get("format") in {"json", "csv"}:
        reason = "The history database does not answer." if away else "Howdah failed to answer."
        response: HttpResponse = JsonResponse({"error": reason}, status=status)
    else:
        # Without the request: its person and messages would ask the database again.
        response = HttpResponse(render_to_string(f"{status}.html"), status=status)
    if away:
        response["Retry-After"] = str(RETRY_SECONDS)
    return response
