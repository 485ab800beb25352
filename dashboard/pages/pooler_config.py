"""A pooler's settings, and what changed in a window."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame.listing import chosen, listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors.kinds import PGBOUNCER
from monitors.people import access
from monitors.rows import configuration, pooler_config as config_rows

FILTERS = {"changed": "Changed", "all": "All"}
TABLES = {"settings": "Settings", "changes": "Changes"}
CHANGES = 50  # of a window, shown; an export has all


@require_safe
def pooler_config(request: PageRequest, name: str) -> HttpResponseBase:
    """Show a pooler's settings; `table=changes` exports what changed."""
    target, window = get_target(request, name, kinds=(PGBOUNCER,)), window_of(request)
    changes = configuration.changes_of(target, window)
    if chosen(request, "table", TABLES, "settings") == "changes":
        columns = configuration.CHANGE
        if exported := table_response(request, "pool-config-changes", columns, changes):
            return exported
    rows, which = config_rows.config_of(target, window), chosen(request, "filter", FILTERS, "all")
    shown = listing_of(
        request,
        [row for row in rows if which == "all" or row["is_changed"]],
        columns=config_rows.COLUMNS,
        default="name",
        searched=lambda row: f"{row['name']} {row['setting']}",
    )
    if exported := table_response(request, "pool-config", config_rows.COLUMNS, shown.matching):
        return exported
    context = {
        "listing": shown,
        "sort": shown.sort,
        "filters": [
            ("all", FILTERS["all"], len(rows)),
            ("changed", FILTERS["changed"], sum(row["is_changed"] for row in rows)),
        ],
        "filter": which,
        "changes": changes[:CHANGES],
        "changes_total": len(changes),
        "last_change": None if changes else configuration.last_change(target, window.start),
        "rows": rows,
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "pooler_config.html",
        context,
        page="pooler-config",
        target=target,
        window=window,
        reads=("pooler_config",),
    )
