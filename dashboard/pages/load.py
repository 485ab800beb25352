"""How busy the server was: average active sessions, what they waited for, ran and came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.listing import chosen
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.findings import judge
from monitors.findings.verdict import Verdict
from monitors.history.active_sessions import CPU, DIMENSIONS, OTHERS, Slice
from monitors.history.freshness import interval_of
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import Target
from monitors.people import access
from monitors.rows import load as load_rows
from monitors.rows.load import COLUMNS, DEFAULT, Load, LoadRow

TITLES = {
    "wait_event_type": "Wait type",
    "wait_event": "Wait event",
    "query": "Query",
    "usename": "User",
    "application_name": "Application",
    "client_addr": "Host",
    "datname": "Database",
}
NAMELESS = {
    "query": "(text not known)",
    "usename": "(no user)",
    "application_name": "(no name)",
    "client_addr": "(Unix socket)",
    "datname": "(no database)",
}
"""How a value is shown that the server does not name."""
COLOURS = ("cpu", "io", "lock", "lwlock", "client", "ipc", "timeout", "bufferpin")
"""Of layers that have no colour of their own, by rank."""
SHOWN = 10
"""Values of a dimension that the page lists; an export has them all."""
IDLE = "No session was active at a snapshot of this window."
CROWDED = 2
"""So many sessions a core are critical."""


@dataclass(frozen=True)
class Dimension:
    """One table of the page: what takes most, and how much is not listed."""

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    more: int


@require_safe
def load(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the load of a window by one dimension, and what takes most by all others."""
    target, window = get_target(request, name), window_of(request)
    by, which = chosen(request, "by", TITLES, DEFAULT), slice_of(request)
    found = load_rows.load_of(target, window, by, which)
    exported = table_response(request, "load", COLUMNS, found.rows(by))
    return exported or page(request, target, window, found)


def slice_of(request: PageRequest) -> Slice:
    """Return what the query's words limit the load to."""
    query = request.GET
    only = {name: query[name] for name in DIMENSIONS if name in query}
    return Slice(only, background=bool(query.get("background")))


def page(request: PageRequest, target: Target, window: Window, found: Load) -> HttpResponseBase:
    """Render the page around a window's load."""
    marks = read_marks(target.pk, window)
    context: dict[str, Any] = {
        "verdict": assess(target, found),
        "load": found,
        "idle_words": IDLE,
        "titles": TITLES,
        "interval": interval_of(target, "activity"),
        "tiles": tiles(target, found),
        "chart": load_chart(target, window, found, marks),
        "counters": counters_chart(target, window, found),
        "dimensions": [dimension_of(found, name) for name in TITLES],
        "only": chosen_values(found),
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "load.html",
        context,
        page="load",
        target=target,
        window=window,
        reads=("activity", "databases"),
        findings=judge.find(target, None if window.is_live else window.end),
    )


def label_of(dimension: str, value: str) -> str:
    """Return how a value is shown."""
    return value or NAMELESS.get(dimension, "(not known)")


def key_of(dimension: str, value: str) -> str:
    """Return a value as the address names it."""
    if dimension != "query":
        return value
    return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()


def line_of(row: LoadRow) -> dict[str, Any]:
    """Return a row with how it is shown and named in the address."""
    dimension, value = row["dimension"], row["value"]
    return {**row, "label": label_of(dimension, value), "key": key_of(dimension, value)}


def dimension_of(found: Load, name: str) -> Dimension:
    """Return the table of a dimension."""
    rows = found.rows(name)
    return Dimension(name, TITLES[name], list(map(line_of, rows[:SHOWN])), len(rows[SHOWN:]))


def chosen_values(found: Load) -> list[tuple[str, str, str]]:
    """Return (word, title, value) of what the load is limited to."""
    shown = {
        (part_of, key_of(part_of, part.value)): part.value
        for part_of in found.which.only
        for part in found.parts[part_of]
    }
    return [
        (name, TITLES[name], label_of(name, shown.get((name, key), key)))
        for name, key in found.which.only.items()
    ]


def assess(target: Target, found: Load) -> Verdict:
    """Return what the load comes to in words, measured by the machine's cores."""
    if found.mean is None:
        return Verdict("unknown", "Activity was not read in this window.", "", None)
    sessions = f"{found.mean:.1f} active session{'' if f'{found.mean:.1f}' == '1.0' else 's'}"
    foot = f"{words.count(found.snapshots, 'snapshot')} of activity."
    if not target.cores:
        text = f"{sessions} on average; how many cores the machine has was not said.{most(found)}"
        return Verdict("unknown", text, foot, None)
    cores = words.count(target.cores, "core")
    text = f"{sessions} on average on {cores}, {found.mean / target.cores:.1f} a core.{most(found)}"
    return Verdict(level_of(found.mean, target.cores), text, foot, None)


def level_of(mean: float | None, cores: int | None) -> str:
    """Return how bad so many active sessions on so many cores are, '' where one is not known."""
    if mean is None or not cores:
        return ""
    return "critical" if mean > CROWDED * cores else "warning" if mean > cores else "good"


def most(found: Load) -> str:
    """Return a sentence on what they mostly did, '' where nothing was active."""
    rows = found.rows("wait_event")
    if not rows:
        return ""
    share = f"{rows[0]['share_pct']:.0f} %"
    if rows[0]["value"] == CPU:
        return f" They used a CPU or waited for one {share} of the time."
    return f" They waited for {rows[0]['value']} {share} of the time."


def tiles(target: Target, found: Load) -> list[Tile]:
    """Return the headline figures."""
    mean, cores = found.mean, target.cores
    error = "" if found.error is None else f"\N{PLUS-MINUS SIGN} {found.error:.2f} standard error"
    counted = None if found.which.only else found.counted("active_time")
    return [
        Tile(title="Average active sessions", value=mean, write=write_average, note=error),
        Tile(title="Most at one snapshot", value=found.peak, note="at once"),
        Tile(
            title="Of its cores",
            value=100 * mean / cores if mean is not None and cores else None,
            write=figures.pct,
            level=level_of(mean, cores).replace("good", ""),
            note=words.count(cores, "core") if cores else "cores not known",
        ),
        Tile(
            title="By the server's counters",
            value=counted,
            write=write_average,
            note="not of a slice" if found.which.only else "clients alone, exact",
        ),
        Tile(title="Snapshots", value=found.snapshots, note="that the averages are of"),
    ]


def write_average(value: float) -> str:
    """Write an average of sessions."""
    return figures.number(value, 2)


def load_chart(
    target: Target, window: Window, found: Load, marks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return average active sessions, stacked, against the machine's cores."""
    values = list(found.line.series.values)
    by_rank = dict(zip((one for one in values if one != OTHERS), COLOURS, strict=False))
    colours = {
        **by_rank,
        **({CPU: "cpu", **charts.WAIT_COLOURS} if found.by == DEFAULT else {}),
        OTHERS: "extension",
    }
    cores = {"label": "Cores", "value": target.cores, "always": True}
    return charts.chart(
        "Average active sessions",
        found.line.series,
        unit="count",
        labels={value: short(label_of(found.by, value)) for value in values},
        colours=colours,
        stack=True,
        marks=marks,
        lines=[cores] if target.cores else [],
        note=f"by {TITLES[found.by].lower()}",
        window=window,
        since=target.created_at,
    )


def short(text: str) -> str:
    """Return a label that a legend has room for."""
    line = " ".join(text.split())
    return line if len(line) <= 48 else f"{line[:47]}\N{HORIZONTAL ELLIPSIS}"  # noqa: PLR2004


def counters_chart(target: Target, window: Window, found: Load) -> dict[str, Any]:
    """Return average sessions as the server counted them."""
    return charts.chart(
        "By the server's counters",
        found.counters,
        unit="count",
        labels={"active_time": "Active", "idle_in_transaction_time": "Idle in transaction"},
        colours={"active_time": "cpu", "idle_in_transaction_time": "lock"},
        note="average sessions, from pg_stat_database",
        window=window,
        since=target.created_at,
    )
