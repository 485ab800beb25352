"""Where a request comes from, for the audit."""

from __future__ import annotations

from django.http import HttpRequest


def source_of(request: HttpRequest) -> str:
    """Return the peer's address; a proxy's own where one stands between.

    X-Forwarded-For is not believed: anybody can send it.
    """
    return str(request.META.get("REMOTE_ADDR") or "unknown")[:60]
