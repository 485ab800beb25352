"""Why dead rows stay: everybody who holds the horizon back, and what ends each hold."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors.people import access
from monitors.rows import horizon as horizon_rows


@require_safe
def horizon(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the holders of the horizon, the oldest first, or export them."""
    target, window = get_target(request, name), window_of(request)
    holders = horizon_rows.holders_of(target, window)
    exported = table_response(request, "horizon", horizon_rows.COLUMNS, holders)
    return exported or render_page(
        request,
        "horizon.html",
        {
            "holders": holders,
            "horizon_read": horizon_rows.last_read(target, window),
            "may": access.permissions_of(request.user, target),
            "alone": True,
        },
        page="vacuum",
        target=target,
        window=window,
        reads=("horizon",),
    )
