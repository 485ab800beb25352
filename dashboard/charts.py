"""Series to columns for the browser's charts, and small lines and bars as SVG."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from monitors.history.source import Series
from monitors.history.window import Window

WIDTH, HEIGHT = 84, 22
"""Of a spark, in pixels."""

WAIT_COLOURS = {
    "": "cpu",
    "IO": "io",
    "Lock": "lock",
    "LWLock": "lwlock",
    "Client": "client",
    "IPC": "ipc",
    "Timeout": "timeout",
    "BufferPin": "bufferpin",
    "Buffer": "bufferpin",
    "Extension": "extension",
    "Activity": "timeout",
    "InjectionPoint": "extension",
}
"""A wait event type keeps its colour on every page."""

STATE_COLOURS = {
    "active": "cpu",
    "idle in transaction": "lock",
    "idle in transaction (aborted)": "ipc",
    "idle": "timeout",
    "fastpath function call": "io",
    "disabled": "extension",
    "starting": "client",
    "": "extension",
}

LINE_COLOURS = ("io", "lock", "cpu", "ipc", "text")
"""Those that stay readable as thin lines, in the order of use."""

SHORTEST_AXIS = timedelta(minutes=2)


def chart(  # noqa: PLR0913 - keyword only
    title: str,
    series: Series,
    *,
    unit: str,
    labels: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    stack: bool = False,
    marks: Iterable[Mapping[str, Any]] = (),
    lines: Sequence[Mapping[str, Any]] = (),
    note: str = "",
    window: Window | None = None,
    since: datetime | None = None,
) -> dict[str, Any]:
    """Return what charts.js draws: one column a series, marks, and the window's ends.

    `labels` and `colours` go by the series' keys; a stacked row is empty in all
    columns or in none, else its sum would be a false number. The time axis is the
    window's; of a target that was registered within it (`since`), from then on.
    """
    keys = list(series.values)
    columns = [list(series.values[key]) for key in keys]
    if stack:
        columns = whole_rows(columns)
    return {
        "title": title,
        "note": note,
        "unit": unit,
        "x": list(series.times),
        "from": axis_start(window, since) if window else None,
        "to": window.end.timestamp() if window else None,
        "series": [
            {
                "label": (labels or {}).get(key, key),
                "colour": (colours or {}).get(key, LINE_COLOURS[index % len(LINE_COLOURS)]),
                "values": columns[index],
            }
            for index, key in enumerate(keys)
        ],
        "stack": stack,
        "marks": [mark_of(mark) for mark in marks],
        "lines": list(lines),
        "empty": not any(value is not None for column in columns for value in column),
    }


def picked(series: Series, names: Sequence[str]) -> Series:
    """Return some columns of a series."""
    return Series(series.times, {name: series.values[name] for name in names})


def joined(lines: Sequence[tuple[str, Series, str]], *, within: float) -> Series:
    """Return lines of several reads as columns over common times.

    `lines` are (label, series, field). The databases of a target are read one
    after another: points that lie within so many seconds stand at one time.
    Where a line has no point of its own at a time it keeps its last value, since
    a gauge holds until the next snapshot; in its gaps and outside of it, it has none.
    """
    moments = sorted({moment for _label, line, _field in lines for moment in line.times})
    times = clustered(moments, within)
    values = {
        label: held([snapped(moment, times) for moment in line.times], line.values[field], times)
        for label, line, field in lines
    }
    return Series(times, values)


def clustered(moments: Sequence[float], within: float) -> list[float]:
    """Return the last moment of each run of moments that spans no more than `within` seconds."""
    times: list[float] = []
    first = float("-inf")
    for moment in moments:
        if moment - first <= within:
            times[-1] = moment
        else:
            times.append(moment)
            first = moment
    return times


def snapped(moment: float, times: Sequence[float]) -> float:
    """Return the first of some times that is not before a moment."""
    return times[bisect_left(times, moment)]


def held(
    own: Sequence[float], values: Sequence[float | None], times: Sequence[float]
) -> list[float | None]:
    """Return a line's values at other times: the last own one, None before, after and in gaps."""
    column: list[float | None] = []
    position = 0
    for moment in times:
        while position < len(own) and own[position] <= moment:
            position += 1
        inside = position > 0 and (position < len(own) or moment == own[-1])
        column.append(values[position - 1] if inside else None)
    return column


def axis_start(window: Window, since: datetime | None) -> float:
    """Return where the time axis begins: no history is older than its target."""
    latest = window.end - SHORTEST_AXIS
    return max(window.start, min(since or window.start, latest)).timestamp()


def whole_rows(columns: list[list[float | None]]) -> list[list[float | None]]:
    """Return columns in which a row is None everywhere or nowhere: a missing part counts 0."""
    known = [any(value is not None for value in row) for row in zip(*columns, strict=True)]
    return [
        [(value or 0) if known[index] else None for index, value in enumerate(column)]
        for column in columns
    ]


def mark_of(mark: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mark as charts.js reads it; `url` leads to the action where it is one."""
    moment: datetime = mark["at"]
    action_id = mark.get("url_id")
    return {
        "at": moment,
        "t": moment.timestamp(),
        "kind": mark["kind"],
        "text": mark["text"],
        "url": reverse("action", args=[action_id]) if action_id else "",
    }


def twin(chart: Mapping[str, Any], rows: int = 60) -> list[tuple[float, list[float | None]]]:
    """Return a chart's table: (time, values), at most `rows`, newest first."""
    times = chart["x"]
    step = max(1, -(-len(times) // rows))
    picked = range(len(times) - 1, -1, -step)
    return [(times[i], [one["values"][i] for one in chart["series"]]) for i in picked]


def points(values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Return the unbroken runs of a spark as points; the scale begins at 0."""
    known = [value for value in values if value is not None]
    top = max(known, default=0) or 1
    step = WIDTH / max(1, len(values) - 1)
    first = WIDTH if len(values) == 1 else 0
    runs: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            y = HEIGHT - 1 - (HEIGHT - 2) * max(0.0, value) / top
            runs[-1].append((round(first + index * step, 1), round(y, 1)))
    return [run for run in runs if run]


def path(run: Sequence[tuple[float, float]]) -> str:
    """Return a path through points; a single one is a dot."""
    first, *rest = run
    tail = "".join(f"L{x:g} {y:g}" for x, y in rest) or "h0"
    return f"M{first[0]:g} {first[1]:g}{tail}"


def spark(values: Sequence[float | None], *, label: str = "", level: str = "") -> SafeString:
    """Return a small line as SVG; gaps are gaps."""
    runs = points(values)
    pieces = []
    for run in runs:
        if len(run) > 1:
            base = f"L{run[-1][0]:g} {HEIGHT}L{run[0][0]:g} {HEIGHT}Z"
            pieces.append(f'<path class="fill" d="{path(run)}{base}"/>')
        pieces.append(f'<path d="{path(run)}"/>')
    if runs:
        x, y = runs[-1][-1]
        pieces.append(f'<path class="end" d="M{x:g} {y:g}h0"/>')
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none"{}{}>{}</svg>',
        WIDTH,
        HEIGHT,
        said(label),
        format_html(' data-level="{}"', level) if level else "",
        mark_safe("".join(pieces)),  # noqa: S308 - numbers alone
    )


def state_strip(spans: Sequence[tuple[float, float, str]], *, label: str) -> SafeString:
    """Return a strip of (from, how long, kind) as SVG, with the whole as 1; gaps are gaps."""
    wide = 1000
    pieces = [
        format_html(
            '<rect class="c-{}" x="{}" y="0" width="{}" height="10"/>',
            kind,
            round(wide * begin, 2),
            max(1, round(wide * length, 2)),
        )
        for begin, length, kind in spans
    ]
    return format_html(
        '<svg class="state-strip" viewBox="0 0 {} 10" preserveAspectRatio="none"{}>{}</svg>',
        wide,
        said(label),
        mark_safe("".join(pieces)),  # noqa: S308 - each was written by format_html
    )


def trade_off(points: Sequence[tuple[float, float, str]], *, label: str) -> SafeString:
    """Return a line through points (across, up, kind) as SVG; both axes begin at 0.

    A kind is `balanced`, `now`, `tried` or '': points that are no choice of the line stand alone.
    """
    wide, high, edge = 320, 180, 8
    most_x = max((x for x, _, _ in points), default=0) or 1
    most_y = max((y for _, y, _ in points), default=0) or 1

    def placed(x: float, y: float) -> tuple[float, float]:
        across = edge + (wide - 2 * edge) * x / most_x
        up = high - edge - (high - 2 * edge) * y / most_y
        return round(across, 1), round(up, 1)

    line = [placed(x, y) for x, y, kind in points if kind in {"", "balanced"}]
    dots = [
        f'<circle data-kind="{kind}" cx="{placed(x, y)[0]:g}" cy="{placed(x, y)[1]:g}" r="4"/>'
        for x, y, kind in sorted(points, key=lambda point: bool(point[2]))
    ]
    return format_html(
        '<svg class="trade-off" viewBox="0 0 {} {}"{}><path d="M{} {}V{}H{}"/>{}{}</svg>',
        wide,
        high,
        said(label),
        edge,
        edge,
        high - edge,
        wide - edge,
        mark_safe(f'<path class="line" d="{path(line)}"/>' if line else ""),  # noqa: S308 - numbers
        mark_safe("".join(dots)),  # noqa: S308 - numbers and words of our own
    )


def said(label: str) -> SafeString:
    """Return the attributes that let a picture be read out, or hide it."""
    if not label:
        return SafeString(' aria-hidden="true"')
    return format_html(' role="img" aria-label="{}"', label)


def meter(
    value: float | None, *, label: str, level: str = "", tick: float | None = None
) -> SafeString:
    """Return a bar as SVG: `value` and `tick` in percent of its width."""
    width = min(100.0, max(0.0, value or 0.0))
    return format_html(
        '<svg class="meter"{}{}><rect width="{}%" height="100%"/>{}</svg>',
        said(label),
        format_html(' data-level="{}"', level) if level else "",
        f"{width:.1f}",
        format_html('<rect class="tick" x="{}%" width="1.5" height="100%"/>', f"{tick:.1f}")
        if tick is not None
        else "",
    )
