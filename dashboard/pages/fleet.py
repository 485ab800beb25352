"""All targets, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame.listing import Listing, chosen, listing_of
from dashboard.frame.requests import PageRequest, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.history.gauges import read_gauges
from monitors.history.window import Window
from monitors.people import access
from monitors.rows import fleet as fleet_rows
from monitors.rows.fleet import FleetRow

GROUPS = {"": "Worst first", "environment": "By environment", "tag": "By tag"}
SPARKS = {"postgres": ("sessions", "backends"), "pgbouncer": ("pooler_pools", "cl_active")}
SORTED = ("position", *fleet_rows.COLUMNS)


class PlacedRow(FleetRow):
    """A target with its place, worst first."""

    position: int


class LineRow(PlacedRow):
    """A target as a line of the page."""

    spark: list[float | None]  # the course of its connections


@require_safe
def fleet(request: PageRequest) -> HttpResponseBase:
    """Show every target that the person may see."""
    window = window_of(request)
    targets = list(access.visible_targets(request.user).select_related("environment"))
    rows = fleet_rows.fleet_of(targets, window)
    shown = listing(request, rows)
    exported = table_response(request, "fleet", fleet_rows.COLUMNS, shown.matching)
    return exported or page(request, window, rows, shown)


def listing(request: PageRequest, rows: Sequence[FleetRow]) -> Listing[PlacedRow]:
    """Return the targets that the query asks for; `position` is their place, worst first."""
    placed: list[PlacedRow] = [{**row, "position": place} for place, row in enumerate(rows)]
    environment = request.GET.get("environment", "")
    kept = [row for row in placed if not environment or row["environment"] == environment]
    return listing_of(
        request,
        kept,
        columns=SORTED,
        default="position",
        searched=lambda row: " ".join(
            [row["name"], row["environment"], row["target"].address, *row["target"].tags]
        ),
    )


def page(
    request: PageRequest, window: Window, rows: list[FleetRow], shown: Listing[PlacedRow]
) -> HttpResponse:
    """Render the page around a listing."""
    by = chosen(request, "group", GROUPS, "")
    lined: list[LineRow] = [{**row, "spark": spark(row, window)} for row in shown.rows]
    environments = sorted({row["environment"]: row["target"].environment for row in rows}.items())
    context: dict[str, Any] = {
        "rows": rows,
        "listing": shown,
        "sort": shown.sort,
        "groups": group_by(lined, by),
        "group": by,
        "group_choices": list(GROUPS.items()),
        "environments": [
            (environment, sum(1 for row in rows if row["environment"] == name))
            for name, environment in environments
        ],
        "verdict": verdict(rows),
        "tiles": tiles(rows),
    }
    return render_page(request, "fleet.html", context, page="fleet", window=window)


def spark(row: FleetRow, window: Window) -> list[float | None]:
    """Return the course of a target's connections, or of a pooler's clients."""
    probe, gauge = SPARKS[row["kind"]]
    return read_gauges(probe, row["target"].pk, window, [gauge], points=30).values[gauge]


def group_by(rows: Sequence[LineRow], by: str) -> list[tuple[str, list[LineRow]]]:
    """Return (heading, rows); a target with several tags stands under each."""
    if not by:
        return [("", list(rows))]
    groups: dict[str, list[LineRow]] = {}
    for row in rows:
        names = [row["environment"]] if by == "environment" else row["target"].tags or ["no tag"]
        for name in names:
            groups.setdefault(name, []).append(row)
    return sorted(groups.items())


def verdict(rows: Sequence[FleetRow]) -> dict[str, Any]:
    """Return what needs somebody now, in one or two sentences."""
    bad = [row for row in rows if row["level"] == "critical"]
    watched = [row for row in rows if row["level"] == "warning"]
    level = "critical" if bad else "warning" if watched else "good"
    calm = sum(1 for row in rows if is_calm(row))
    partly = sum(1 for row in rows if row["unknown"] and row["state"] in {"up", "past"})
    unread = sum(1 for row in rows if row["state"] == "unread")
    found = sum(len(row["findings"]) for row in rows)
    foot = (
        f"{words.count(found, 'open finding')}. "
        f"{calm:,} of {words.count(len(rows), 'target')} with nothing to report."
    )
    if unread:
        foot += f" {unread:,} not read yet."
    if partly:
        foot += f" Of {words.count(partly, 'target')} not everything is known."
    return {
        "level": "unknown" if rows and unread == len(rows) else level,
        "need": bad or watched,
        "shown": (bad or watched)[:3],
        "text": text(bad, watched, rows),
        "foot": foot,
    }


def is_calm(row: FleetRow) -> bool:
    """Tell whether a target was read, is known whole and has nothing to report."""
    return not row["level"] and not row["unknown"] and row["state"] in {"up", "past"}


def text(bad: Sequence[FleetRow], watched: Sequence[FleetRow], rows: Sequence[FleetRow]) -> str:
    """Return the verdict's first sentence."""
    if bad:
        needs = "needs" if len(bad) == 1 else "need"
        return f"{len(bad)} of {len(rows)} targets {needs} you now."
    if watched:
        deserves = "deserves" if len(watched) == 1 else "deserve"
        return f"Nothing is urgent. {len(watched)} of {len(rows)} targets {deserves} a look."
    if all(row["state"] == "unread" for row in rows):
        return "The first snapshots are under way."
    if any(row["unknown"] for row in rows):
        return "Nothing is known to need you."
    return "Nothing needs you. All targets that were read are healthy."


def tiles(rows: Sequence[FleetRow]) -> list[Tile]:
    """Return the headline figures of the whole fleet."""
    up = sum(1 for row in rows if row["state"] in {"up", "past"})
    down = sum(1 for row in rows if row["state"] == "down")
    blocked = sum(row["blocked"] or 0 for row in rows)
    longest = max(rows, key=lambda row: row["longest_xact_seconds"] or 0, default=None)
    oldest = max(rows, key=lambda row: row["xid_age"] or 0, default=None)
    dead = [row["n_dead_tup"] for row in rows if row["n_dead_tup"] is not None]
    none = "none known" if any(row["unknown"] for row in rows) else "none open"
    return [
        Tile(
            title="Targets up",
            value=up,
            unit=f"of {len(rows)}",
            level="critical" if down else "",
            note=f"{down} can't be reached" if down else "all that were tried",
        ),
        Tile(
            title="Connections",
            value=sum(row["connections"] or 0 for row in rows if row["kind"] == "postgres"),
            note="of clients",
        ),
        Tile(
            title="Longest transaction",
            value=longest["longest_xact_seconds"] if longest else None,
            write=figures.duration,
            note=longest["name"] if longest and longest["longest_xact_seconds"] else none,
        ),
        Tile(
            title="Blocked backends",
            value=blocked,
            level="warning" if blocked else "",
            note="wait for a lock",
        ),
        Tile(
            title="Dead rows",
            value=sum(dead) if dead else None,
            write=figures.short,
            note=f"in {len(dead)} of {len(rows)} targets",
        ),
        Tile(
            title="Oldest XID age",
            value=oldest["xid_age"] if oldest else None,
            write=figures.short,
            note=oldest["name"] if oldest and oldest["xid_age"] else "not read yet",
        ),
    ]
