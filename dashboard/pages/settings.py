"""The server's settings: what was changed and when, what is off, and how two servers differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.frame.frame import SUBJECTS, visible
from dashboard.frame.listing import Listing, chosen, listing_of
from dashboard.frame.requests import (
    PageRequest,
    get_target,
    moment_of,
    render_page,
    table_response,
    window_of,
)
from dashboard.frame.tiles import Tile
from monitors.findings import judge
from monitors.findings.verdict import tell_verdict
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import configuration, settings as setting_rows
from monitors.rows.configuration import ChangeRow
from monitors.rows.settings import FILTERS, Other, SettingRow
from monitors.rules import settings_advice
from monitors.rules.settings_advice import Advice

TABLES = {"settings": "Settings", "changes": "Changes", "advice": "Advice"}
"""What an export is of; with `with` or `with_at` it is of the difference."""
SORTED = ("name", "value", "source", "default", "needs")
CHANGES = 50  # of a window, shown; an export has all


@require_safe
def settings(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the settings of a target, or what differs from another target or moment."""
    target, window = get_target(request, name), window_of(request)
    rows = setting_rows.settings_at(target, window)
    other = other_of(request, target, window)
    if other is not None:
        return difference(request, target, window, rows, other)
    shown, changes = listing(request, rows), configuration.changes_of(target, window)
    advice = advice_of(target, window, rows)
    exported = export(request, shown, changes, advice)
    return exported or page(request, target, window, rows, shown, changes, advice)


def other_of(request: PageRequest, target: Target, window: Window) -> Other | None:
    """Return what `with` and `with_at` name, None where neither is given.

    Raises Http404 for a target that the person may not see, BadRequest for no time.
    """
    name, text = request.GET.get("with", ""), request.GET.get("with_at", "")
    if not name and not text:
        return None
    other = get_target(request, name) if name else target
    at = moment_of(text) if text else None if window.is_live else window.end
    ends = min(at, timezone.now()) if at else window.end
    return Other(other, at, replace(window, end=ends, is_live=at is None))


def with_words(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the words of the query that a form of the difference carries along."""
    kept = ("window", "from", "to", "at", "filter")
    return [(word, request.GET[word]) for word in kept if request.GET.get(word)]


def listing(request: PageRequest, rows: Sequence[SettingRow]) -> Listing[SettingRow]:
    """Return the settings that the query asks for; by default those that were changed."""
    kept = setting_rows.pick(rows, chosen(request, "filter", FILTERS, "changed"))
    return listing_of(
        request,
        kept,
        columns=SORTED,
        default="name",
        searched=lambda row: f"{row['name']} {row['value']} {row['short_desc']}",
    )


def advice_of(target: Target, window: Window, rows: Sequence[SettingRow]) -> list[Advice]:
    """Return what is to be said of the settings of now; nothing of the past."""
    if not window.is_live or not rows:
        return []
    facts = configuration.facts_of(target, window)
    return settings_advice.advise(settings_advice.rows_by_name(rows), facts)


def export(
    request: PageRequest,
    shown: Listing[SettingRow],
    changes: list[ChangeRow],
    advice: list[Advice],
) -> HttpResponseBase | None:
    """Answer `format` with the table that `table` names; None where no format is asked for."""
    table = chosen(request, "table", TABLES, "settings")
    tables: dict[str, tuple[Sequence[str], Sequence[Mapping[str, Any]]]] = {
        "settings": (setting_rows.COLUMNS, shown.matching),
        "changes": (configuration.CHANGE, changes),
        "advice": (settings_advice.EXPORTED, [one.row() for one in advice]),
    }
    columns, rows = tables[table]
    return table_response(request, table, columns, rows)


def page(  # noqa: PLR0913, PLR0917 - what was read, once
    request: PageRequest,
    target: Target,
    window: Window,
    rows: Sequence[SettingRow],
    shown: Listing[SettingRow],
    changes: list[ChangeRow],
    advice: list[Advice],
) -> HttpResponse:
    """Render the page around a listing."""
    at = None if window.is_live else window.end
    findings = judge.find(target, at)
    verdict = tell_verdict(target, findings, page="settings", at=at)
    context: dict[str, Any] = {
        **choices(request, target, None),
        "findings": [one for one in findings if SUBJECTS.get(one.advisor) == "settings"],
        "verdict": setting_rows.verdict_with(verdict, advice),
        "settings": rows,
        "listing": shown,
        "rows": shown.rows,
        "sort": shown.sort,
        "filter": request.GET.get("filter") or "changed",
        "filters": [(k, text, len(setting_rows.pick(rows, k))) for k, text in FILTERS.items()],
        "tiles": tiles(rows, changes, advice, window),
        "changes": changes[:CHANGES],
        "changes_total": len(changes),
        "last_change": None if changes else configuration.last_change(target, window.end),
        "advice": [one for one in advice if one.level != "info"],
        "remarks": [one for one in advice if one.level == "info"],
    }
    return render_page(
        request,
        "settings.html",
        context,
        page="settings",
        target=target,
        window=window,
        reads=("settings",),
        findings=findings,
    )


def choices(request: PageRequest, target: Target, other: Other | None) -> dict[str, Any]:
    """Return what the form of the difference offers."""
    at = other.at if other and other.at else window_of(request).end - timedelta(days=1)
    return {
        "others": [one for one in visible(request.user) if one.pk != target.pk],
        "kept": with_words(request),
        "with_at": at.replace(microsecond=0),
        "other": other,
    }


def difference(
    request: PageRequest, target: Target, window: Window, rows: Sequence[SettingRow], other: Other
) -> HttpResponseBase:
    """Show only what differs, with both values and both sources."""
    theirs = setting_rows.settings_at(other.target, other.window)
    found = configuration.difference_of(rows, theirs) if rows and theirs else []
    shown = listing_of(
        request,
        found,
        columns=("name", "value", "with_value", "source", "with_source"),
        default="name",
        searched=lambda row: f"{row['name']} {row['value']} {row['with_value']}",
    )
    exported = table_response(request, "difference", configuration.DIFFERENCE, shown.matching)
    if exported is not None:
        return exported
    context: dict[str, Any] = {
        **choices(request, target, other),
        "settings": rows,
        "theirs": theirs,
        "listing": shown,
        "rows": shown.rows,
        "differences": found,
        "sort": shown.sort,
    }
    return render_page(
        request,
        "settings.html",
        context,
        page="settings",
        target=target,
        window=window,
        reads=("settings",),
    )


def tiles(
    rows: Sequence[SettingRow],
    changes: Sequence[ChangeRow],
    advice: Sequence[Advice],
    window: Window,
) -> list[Tile]:
    """Return the headline figures."""
    pending = [row for row in rows if row["awaits_restart"]]
    told = [one for one in advice if one.level != "info"]
    newest = changes[0]["name"] if changes else "none in this window"
    return [
        Tile(
            title="Changed from default",
            value=sum(row["is_changed"] for row in rows),
            unit=f"of {len(rows):,}",
            note="settings",
        ),
        Tile(
            title="Await a restart",
            value=len(pending),
            level="notice" if pending else "good",
            note=pending[0]["name"] if pending else "all that was set holds",
        ),
        Tile(title="Changes", value=len(changes), note=newest),
        Tile(
            title="Advice",
            value=len(told) if window.is_live else None,
            level=told[0].level if told else "good" if window.is_live else "",
            note=told[0].name if told else "nothing is off" if window.is_live else "now only",
        ),
    ]
