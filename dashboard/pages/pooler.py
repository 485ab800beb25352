"""How a pooler is: what is wrong, its headline figures, pools and databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.listing import Listing, chosen, listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile, write_rate
from dashboard.templatetags import figures
from monitors.findings import judge
from monitors.findings.verdict import tell_verdict
from monitors.history.counters import read_rates
from monitors.history.gauges import read_gauges
from monitors.history.marks import read_marks
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.kinds import PGBOUNCER
from monitors.models import Target
from monitors.people import access
from monitors.rows import pooler as pooler_rows
from monitors.rows.pooler import PoolDatabaseRow, PoolRow

EXPORTS = {"pools": "Pools", "databases": "Databases"}
CLIENTS = ("cl_active", "cl_waiting")
SERVERS = ("sv_active", "sv_idle", "sv_login")


@require_safe
def pooler(request: PageRequest, name: str) -> HttpResponseBase:
    """Show a pooler's verdict, figures, charts, pools and databases; `of=databases` exports these."""
    target, window = get_target(request, name, kinds=(PGBOUNCER,)), window_of(request)
    databases = pooler_rows.databases_of(target, window)
    if chosen(request, "of", EXPORTS, "pools") == "databases":
        columns = pooler_rows.DATABASE_COLUMNS
        if exported := table_response(request, "pool-databases", columns, databases):
            return exported
    pools = pooler_rows.pools_of(target, window)
    shown = listing_of(
        request,
        pools,
        columns=pooler_rows.COLUMNS,
        default="-maxwait_seconds",
        searched=lambda row: f"{row['database']} {row['user']}",
    )
    exported = table_response(request, "pools", pooler_rows.COLUMNS, shown.matching)
    return exported or page(request, target, window, pools, shown, databases)


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    pools: Sequence[PoolRow],
    shown: Listing[PoolRow],
    databases: Sequence[PoolDatabaseRow],
) -> HttpResponse:
    """Render the page around its pools."""
    at = None if window.is_live else window.end
    found = judge.find(target, at)
    gauges = read_gauges("pooler_pools", target.pk, window, [*CLIENTS, *SERVERS])
    rates = read_rates("pooler_stats", target.pk, window, ["xact_count", "query_count"])
    context: dict[str, Any] = {
        "verdict": tell_verdict(target, found, page="pooler", at=at),
        "findings": found,
        "tiles": tiles(pools, databases, gauges, rates),
        "charts": charts_of(target, window, gauges, rates),
        "pools": pools,
        "listing": shown,
        "sort": shown.sort,
        "databases": databases,
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "pooler.html",
        context,
        page="pooler",
        target=target,
        window=window,
        reads=("pooler_pools", "pooler_databases"),
        findings=found,
    )


def tiles(
    pools: Sequence[PoolRow], databases: Sequence[PoolDatabaseRow], gauges: Series, rates: Series
) -> list[Tile]:
    """Return the headline figures."""
    total = pooler_rows.sum_of(pools)
    waits = [row["mean_wait_ms"] for row in databases if row["mean_wait_ms"] is not None]
    return [
        Tile(title="Clients", value=total["clients"], note="connected to the pooler"),
        Tile(
            title="Waiting",
            value=total["waiting"],
            level="warning" if total["waiting"] else "",
            spark=gauges.values["cl_waiting"],
            note="for a server connection",
        ),
        Tile(
            title="Longest wait",
            value=total["longest"],
            write=figures.duration,
            note="of those that wait now",
        ),
        Tile(
            title="Servers in use",
            value=total["servers"],
            spark=gauges.values["sv_active"],
            note="by a client",
        ),
        Tile(
            title="Transactions",
            value=last(rates.values["xact_count"]),
            write=write_rate,
            spark=rates.values["xact_count"],
            note="of all databases",
        ),
        Tile(
            title="Mean wait",
            value=max(waits, default=None),
            write=figures.ms,
            note="a transaction, of the slowest database",
        ),
    ]


def last(values: Sequence[float | None]) -> float | None:
    """Return the last known value."""
    return next((value for value in reversed(values) if value is not None), None)


def charts_of(
    target: Target, window: Window, gauges: Series, rates: Series
) -> list[dict[str, Any]]:
    """Return the charts, top to bottom."""
    common: dict[str, Any] = {
        "marks": read_marks(target.pk, window),
        "window": window,
        "since": target.created_at,
    }
    clients = Series(gauges.times, {name: gauges.values[name] for name in CLIENTS})
    servers = Series(gauges.times, {name: gauges.values[name] for name in SERVERS})
    return [
        charts.chart(
            "Clients",
            clients,
            unit="count",
            labels={"cl_active": "With a server or idle", "cl_waiting": "Waiting"},
            colours={"cl_active": "cpu", "cl_waiting": "lock"},
            stack=True,
            **common,
        ),
        charts.chart(
            "Server connections",
            servers,
            unit="count",
            labels={"sv_active": "In use", "sv_idle": "Idle", "sv_login": "Logging in"},
            colours={"sv_active": "cpu", "sv_idle": "client", "sv_login": "io"},
            stack=True,
            **common,
        ),
        charts.chart(
            "Work",
            rates,
            unit="per_s",
            labels={"xact_count": "Transactions", "query_count": "Queries"},
            colours={"xact_count": "cpu", "query_count": "io"},
            **common,
        ),
    ]
