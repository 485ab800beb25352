"""Page under construction."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse


def targets(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()


def new(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()


def check(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()


def edit(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()


def remove(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()


def enable(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()


def disable(request: HttpRequest, **_kwargs: Any) -> HttpResponse:
    """Answer 200 with nothing to see."""
    return HttpResponse()
