"""Figures with their units: sizes, durations, counts, shares; what is not known is a dash."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.template import Context
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dashboard.sql import KEYWORDS, highlight
from dashboard.templatetags.moments import age
from monitors import words
from monitors.words import NONE

register = template.Library()

THOUSAND = 1000


def unit(number: str, name: str) -> SafeString:
    """Return a number with its unit set off."""
    return format_html('{}<span class="unit">{}</span>', number, name)


@register.filter(name="bytes")
def bytes_(value: float | None) -> SafeString | str:
    """Write a size as pg_size_pretty does, with one decimal below 10: 1.2 GB; None: a dash."""
    return NONE if value is None else unit(*words.size_parts(value))


@register.filter
def number(value: float | None, digits: int = 0) -> str:
    """Write 1234567 as 1,234,567; None: a dash."""
    return NONE if value is None else f"{value:,.{digits}f}"


@register.filter
def plain_number(value: float) -> str:
    """Write a threshold as people type it: 0.2, 1800, 1000000."""
    return f"{value:.15g}"


@register.filter
def figure(value: float) -> str:
    """Write a threshold to be read: 0.2, 1,800, 1,000,000."""
    return f"{value:,.15g}"


@register.filter
def in_unit_of(value: float, name: str) -> SafeString | str:
    """Write a threshold in the unit that its name ends in: warning_seconds, 1,800 s."""
    if name.endswith("_bytes"):
        return bytes_(value)
    units = {"_seconds": "s", "_pct": "%", "_days": "days"}
    found = next((word for end, word in units.items() if name.endswith(end)), "")
    return unit(figure(value), found) if found else figure(value)


@register.filter
def short(value: float | None) -> SafeString | str:
    """Write 14900000 as 14.9 M, for figures that are read at a glance; None: a dash."""
    if value is None:
        return NONE
    text, name = words.short_parts(value)
    return unit(text, name) if name else text


@register.filter
def pct(value: float | None, digits: int = 1) -> SafeString | str:
    """Write 3.14 as 3.1 %; None: a dash."""
    return NONE if value is None else unit(f"{value:,.{digits}f}", "%")


@register.filter
def duration(value: timedelta | float | None) -> str:
    """Write seconds or a timedelta as 84 ms, 4.2 s, 12 min 05 s, 2 h 04 min, 3 d 2 h; None: a dash."""
    if value is None:
        return NONE
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    return words.duration(seconds)


@register.filter
def ms(value: float | None) -> str:
    """Write milliseconds as a duration, 0.35 ms too; None: a dash."""
    return NONE if value is None else words.milliseconds(value)


@register.simple_tag
def measured(value: float | None, unit_name: str) -> SafeString | str:
    """Return a chart's value with its unit."""
    if value is None:
        return NONE
    if unit_name == "bytes":
        return bytes_(value)
    if unit_name == "ms":
        return ms(value)
    if unit_name == "per_s":
        return unit(number(value, 1), "/s")
    return number(value, 0 if float(value).is_integer() else 1)


@register.filter
def minus(value: int, other: int) -> int:
    """Return value - other."""
    return value - other


@register.filter
def times(value: float | None) -> SafeString | str:
    """Write a percentage as 84 %, from 1,000 % on as 12 x or 36.8k x; None: a dash."""
    if value is None:
        return NONE
    if value < THOUSAND:
        return pct(value, 0)
    figure, name = words.short_parts(value / 100)
    return unit(figure + name, "\N{MULTIPLICATION SIGN}")


@register.simple_tag
def share(value: float | None, whole: float | None) -> SafeString | str:
    """Return value in percent of whole; a dash where either is unknown or there is no limit."""
    return NONE if value is None or not whole else times(100 * value / whole)


@register.simple_tag(takes_context=True)
def evidence(context: Context, value: Any, unit_name: str) -> SafeString | str:
    """Return a number of a finding with its unit."""
    if isinstance(value, datetime):
        return age(context, value)
    writers = {
        "bytes": bytes_,
        "seconds": duration,
        "pct": pct,
        "rows": number,
        "count": number,
    }
    if unit_name in writers:
        return writers[unit_name](value)
    text = str(value)
    # "idle in transaction" is a state.
    is_sql = " " in text and text.split(maxsplit=1)[0].upper() in KEYWORDS
    return format_html('<span class="sql">{}</span>', highlight(text)) if is_sql else text
