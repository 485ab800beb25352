"""A line over numbers instead of time: how long one waits for a connection, by the size of a pool."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from dashboard.charts import path, said
from monitors import words
from monitors.rules.queueing import Wait

WIDE, HIGH = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 64, 10, 8, 22
"""Room for the words of the axes."""
LONG = 2
"""The scale ends at so many times the length of a transaction: waits beyond are no use to anybody."""

Mark = tuple[int, str]
"""A size and its kind, a word of ours that the style sheet has a colour for."""


def wait_curve(
    waits: Sequence[Wait],
    xact_seconds: float,
    *,
    label: str,
    marks: Sequence[Mark] = (),
    measured: Sequence[tuple[int, float]] = (),
) -> SafeString:
    """Return mean waits over sizes as SVG, '' for none; `measured` are (size, seconds) as they were.

    Sizes that can't keep up have no wait and are left out.
    """
    known = [(wait.size, wait.mean_seconds) for wait in waits if wait.mean_seconds is not None]
    if not known:
        return SafeString("")
    sizes = [size for size, _ in [*known, *measured, *marks]]
    first = min(sizes)
    last = max([*sizes, first + 1])
    longest = max(seconds for _, seconds in [*known, *measured])
    seen = [seconds for _, seconds in measured]
    top = min(longest, max([LONG * xact_seconds, *seen])) or 1.0

    def placed(size: float, seconds: float) -> tuple[float, float]:
        across = LEFT + (WIDE - LEFT - RIGHT) * (size - first) / (last - first)
        up = HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * min(seconds, top) / top
        return round(across, 1), round(up, 1)

    return format_html(
        '<svg class="trade-off curve" viewBox="0 0 {} {}"{}>{}{}{}{}{}</svg>',
        WIDE,
        HIGH,
        said(label),
        axes(first, last, top, is_cut=top < longest),
        mark_safe(f'<path class="line" d="{path([placed(*one) for one in known])}"/>'),  # noqa: S308 - numbers
        format_html_join(
            "",
            '<path class="mark" data-kind="{}" d="M{} {}V{}"/>',
            ((kind, placed(size, 0)[0], TOP, HIGH - BOTTOM) for size, kind in marks),
        ),
        format_html_join(
            "",
            '<circle data-kind="{}" cx="{}" cy="{}" r="4"/>',
            (
                (kind, *placed(size, seconds))
                for size, kind in marks
                for at, seconds in known
                if at == size
            ),
        ),
        format_html_join(
            "",
            '<circle data-kind="measured" cx="{}" cy="{}" r="3"/>',
            (placed(size, seconds) for size, seconds in measured),
        ),
    )


def axes(first: int, last: int, top: float, *, is_cut: bool) -> SafeString:
    """Return the two axes with their ends in words; a scale that is cut says "or longer"."""
    most = words.milliseconds(1000 * top)
    return format_html(
        '<path d="M{0} {1}V{2}H{3}"/>'
        '<text x="{4}" y="{5}" text-anchor="end">{6}</text>'
        '<text x="{4}" y="{2}" text-anchor="end">0</text>'
        '<text x="{0}" y="{7}">{8}</text>'
        '<text x="{3}" y="{7}" text-anchor="end">{9} connections</text>',
        LEFT,
        TOP,
        HIGH - BOTTOM,
        WIDE - RIGHT,
        LEFT - 5,
        TOP + 9,
        f"≥{most}" if is_cut else most,
        HIGH - 6,
        first,
        last,
    )
