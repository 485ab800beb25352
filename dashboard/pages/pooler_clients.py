"""A pooler's clients that have work, and its connections to servers."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame.listing import listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.states import was_ever_read
from monitors.kinds import PGBOUNCER
from monitors.people import access
from monitors.probes.pooler_clients import AT_MOST
from monitors.rows import pooler as pooler_rows, pooler_clients as client_rows

NO_KILL = "This PgBouncer gives its clients no numbers: kill_client came with 1.24."


@require_safe
def pooler_clients(request: PageRequest, name: str) -> HttpResponseBase:
    """Show who waits for a server and who has one."""
    target, window = get_target(request, name, kinds=(PGBOUNCER,)), window_of(request)
    rows = client_rows.clients_of(target, window)
    shown = listing_of(
        request,
        rows,
        columns=client_rows.COLUMNS,
        default="-wait_seconds",
        searched=lambda row: " ".join(
            [row["database"], row["user"], row["application_name"], row["addr"]]
        ),
    )
    if exported := table_response(request, "pool-clients", client_rows.COLUMNS, shown.matching):
        return exported
    total = pooler_rows.sum_of(pooler_rows.pools_of(target, window))
    context = {
        "listing": shown,
        "sort": shown.sort,
        "rows": rows,
        "total": total,
        "idle": max(int(total["clients"]) - len(rows), 0),
        "at_most": AT_MOST,
        "is_cut": len(rows) >= AT_MOST,
        "is_read": was_ever_read(target, "pooler_clients", window),
        "no_kill": "" if any(row["client_id"] for row in rows) else NO_KILL,
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "pooler_clients.html",
        context,
        page="pooler-clients",
        target=target,
        window=window,
        reads=("pooler_clients", "pooler_servers"),
    )
