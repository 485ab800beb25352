"""Who holds the connections, when they run out, who rests, and who connects for each request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http.response import HttpResponseBase
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame import frame
from dashboard.frame.frame import SUBJECTS
from dashboard.frame.listing import chosen, listing_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile, write_rate
from dashboard.templatetags import figures
from monitors import words
from monitors.advisor import Finding
from monitors.advisors.connections_near_limit import DEFAULTS
from monitors.findings import judge, unknowns
from monitors.findings.verdict import tell_verdict
from monitors.history.counters import read_rates
from monitors.history.gauges import read_gauges_by
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import Target
from monitors.people import access
from monitors.rows import churn as churn_rows, connections as connection_rows
from monitors.rows.churn import ChurnRow
from monitors.rows.connections import AgeRow, GroupRow, IdleRow, LimitRow, Use
from monitors.rules import connections as rules, pooling
from monitors.rules.connections import Churn

SORTED = (
    "label",
    "backends",
    "active",
    "idle",
    "idle_in_transaction",
    "young",
    "long_idle",
    "oldest_backend_start",
    "idle_since",
)
EXPORTS = {"groups": "Groups", "idle": "Idle", "limits": "Limits", "databases": "Databases"}
SHOWN_IDLE = 20
STATES = {"": "not known"}
SUPERUSERS = "Only a superuser may end a superuser's session, and the operator login may be none."


@dataclass(frozen=True)
class Seen:
    """What the page shows of one moment."""

    use: Use
    groups: Sequence[GroupRow]
    idle: Sequence[IdleRow]
    ages: Sequence[AgeRow]
    limits: Sequence[LimitRow]
    databases: Sequence[ChurnRow]
    churn: Churn | None
    in_transaction_pct: float | None
    """Of the time of transactions, in which they did nothing."""


@require_safe
def connections(request: PageRequest, name: str) -> HttpResponseBase:
    """Show connections by `by`, their limits, ages and churn; `of` chooses what is exported."""
    target, window = get_target(request, name), window_of(request)
    by = chosen(request, "by", connection_rows.GROUPS, "application_name")
    findings = judge.find(target, None if window.is_live else window.end)  # as it was then, too
    seen = read(target, window, by)
    columns, rows = exported_rows(chosen(request, "of", EXPORTS, "groups"), seen)
    exported = table_response(request, "connections", columns, rows)
    return exported or page(request, target, window, by, seen, findings)


def read(target: Target, window: Window, by: str) -> Seen:
    """Return what is known of the window's end."""
    use = connection_rows.use_of(target, window)
    clients, now = connection_rows.clients_of(target, window)
    counted = churn_rows.counted(target, window)
    return Seen(
        use=use,
        groups=connection_rows.groups_of(target, window, by, use.usable),
        idle=connection_rows.idle_of(clients, now),
        ages=connection_rows.ages_of(clients, now),
        limits=connection_rows.limits_of(target, window, clients),
        databases=churn_rows.churn_of(target, window, counted),
        churn=churn_rows.whole_of(counted),
        in_transaction_pct=churn_rows.idle_share_of(counted),
    )


def exported_rows(of: str, seen: Seen) -> tuple[Sequence[str], Sequence[Mapping[str, Any]]]:
    """Return the columns and rows of an export."""
    exports: dict[str, tuple[Sequence[str], Sequence[Mapping[str, Any]]]] = {
        "groups": (connection_rows.COLUMNS, seen.groups),
        "idle": (connection_rows.IDLE_COLUMNS, seen.idle),
        "limits": (connection_rows.LIMIT_COLUMNS, seen.limits),
        "databases": (churn_rows.COLUMNS, seen.databases),
    }
    return exports[of]


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    by: str,
    seen: Seen,
    findings: Sequence[Finding],
) -> HttpResponseBase:
    """Render the page around what is known."""
    here = [one for one in findings if SUBJECTS.get(one.advisor) == "connections"]
    listing = listing_of(
        request,
        seen.groups,
        columns=SORTED,
        default="-backends",
        searched=lambda row: row["label"],
    )
    at = None if window.is_live else window.end
    context: dict[str, Any] = {
        "verdict": tell_verdict(target, findings, page="connections", at=at),
        "unknown": unknowns.unknowns_of(target, at),
        "findings": here,
        "seen": seen,
        "tiles": tiles(seen, window),
        "state_chart": state_chart(target, window, seen.use),
        "session_chart": session_chart(target, window),
        "listing": listing,
        "sort": listing.sort,
        "rows": [{**row, "url": group_url(request, target, row)} for row in listing.rows],
        "by": by,
        "choices": list(connection_rows.GROUPS.items()),
        "grouping": connection_rows.GROUPS[by],
        "idle": [{**row, "no_signal": no_signal(target, row)} for row in seen.idle[:SHOWN_IDLE]],
        "all_url": activity_url(request, target, ""),
        "biggest": connection_rows.biggest_idle(seen.groups),
        "rescue": rules.terminate_idle(),
        "grants": rules.let_in(target.logins),
        "churned": {one.object_name for one in here if one.advisor == "connection_churn"},
        "remedies": remedies_of(seen.databases),
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "connections.html",
        context,
        page="connections",
        target=target,
        window=window,
        reads=("connections", "sessions"),
        findings=findings,
    )


def group_url(request: PageRequest, target: Target, row: GroupRow) -> str:
    """Return where Activity lists a group's backends, '' where it can't tell them from others."""
    piece = max(row["name"].split("*"), key=len)
    if row["grouped_by"] == "ssl" or not piece or row["name"] == rules.OTHERS:
        return ""
    return activity_url(request, target, piece)


def activity_url(request: PageRequest, target: Target, sought: str) -> str:
    """Return where Activity lists all backends that a text is found in, idle ones too."""
    query = frame.window_query(request)
    asked = urlencode({"filter": "all", **({"q": sought} if sought else {})})
    address = reverse("activity", args=[target.name])
    return f"{address}{query}{'&' if query else '?'}{asked}#backends"


def no_signal(target: Target, row: IdleRow) -> str:
    """Return why an idle session can't be ended whoever asks, '' where that is not known."""
    return SUPERUSERS if row["rolsuper"] and not target.allow_superuser else ""


def remedies_of(databases: Sequence[ChurnRow]) -> Sequence[pooling.Remedy]:
    """Return what keeps connections for who connects most, of all frameworks where that isn't known."""
    worst = churn_rows.worst_of(databases)
    guilty = worst["guilty"] if worst else None
    return pooling.remedies_for(guilty.application_name if guilty else "")


def tiles(seen: Seen, window: Window) -> list[Tile]:
    """Return the headline figures."""
    use, churn = seen.use, seen.churn
    is_known = use.used is not None
    long_idle = rules.count_of(seen.groups, "long_idle")
    return [
        Tile(
            title="Connections",
            value=use.used,
            unit=f"of {use.usable:,}" if use.usable is not None else "",
            level=level_of(use.pct),
            note=limit_note(use, window),
        ),
        Tile(
            title="Idle",
            value=use.idle if is_known else None,
            note=f"{long_idle:,} for over 10 min",
        ),
        Tile(
            title="Idle in transaction",
            value=use.in_transaction if is_known else None,
            level="warning" if use.in_transaction else "",
            note=f"{seen.in_transaction_pct:.0f} % of the time of transactions"
            if seen.in_transaction_pct is not None
            else "share of the time not known",
        ),
        *churn_tiles(churn, seen.databases),
    ]


def churn_tiles(churn: Churn | None, databases: Sequence[ChurnRow]) -> list[Tile]:
    """Return how fast sessions come, and what each of them does."""
    seconds = databases[0]["seconds"] if databases else None
    over = f"over {words.duration(seconds)}" if seconds else "needs two readings in this window"
    lives = churn.lifetime if churn else None
    return [
        Tile(
            title="New sessions",
            value=churn.per_second if churn else None,
            write=write_rate,
            note=over,
        ),
        Tile(
            title="Transactions per session",
            value=churn.reuse if churn else None,
            write=lambda value: figures.number(value, 1),
            note=f"each lives {words.duration(lives)} at most"
            if lives is not None
            else "no session began"
            if churn
            else over,
        ),
    ]


def limit_note(use: Use, window: Window) -> str:
    """Return when the last usable connection is taken, or why that has no date."""
    if use.hurt is None:
        return "the limit is not known"
    if use.hurt.already:
        return "none is left"
    if use.hurt.at is not None:
        return f"none is left {words.day(use.hurt.at, window.end)}, at the growth of the last hour"
    return use.hurt.text.partition("; ")[2]


def level_of(pct: float | None) -> str:
    """Return the level of the share that is taken, by the advisor's usual thresholds."""
    if pct is None:
        return ""
    if pct > DEFAULTS["critical_pct"]:
        return "critical"
    return "warning" if pct > DEFAULTS["warning_pct"] else "good"


def state_chart(target: Target, window: Window, use: Use) -> dict[str, Any]:
    """Return the clients' backends by state, stacked, against what may be used."""
    limit = [{"label": "Usable", "value": use.usable}] if use.usable else []
    return charts.chart(
        "Connections by state",
        read_gauges_by("sessions", target.pk, window, "backends", by="state"),
        unit="count",
        labels=STATES,
        colours=charts.STATE_COLOURS,
        stack=True,
        lines=limit,
        marks=read_marks(target.pk, window),
        window=window,
        since=target.created_at,
    )


def session_chart(target: Target, window: Window) -> dict[str, Any]:
    """Return how many sessions began a second."""
    return charts.chart(
        "New sessions",
        read_rates("databases", target.pk, window, ["sessions"]),
        unit="per_s",
        labels={"sessions": "New sessions"},
        window=window,
        since=target.created_at,
    )
