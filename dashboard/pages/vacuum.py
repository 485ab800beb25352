"""Page under construction."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse


def vacuum(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()
