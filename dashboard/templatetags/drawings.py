"""Small lines, bars, and the data of charts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import template
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from dashboard import charts
from monitors.rows import fleet

register = template.Library()

NO_MARKUP = {ord("<"): "\\u003C", ord(">"): "\\u003E", ord("&"): "\\u0026"}


@register.simple_tag
def spark(values: list[float | None] | None, label: str = "", level: str = "") -> SafeString:
    """Return a small line; it is read out only when it has a label."""
    return charts.spark(values or [], label=label, level=level)


@register.simple_tag
def meter(
    value: float | None, label: str, level: str = "", tick: float | None = None
) -> SafeString:
    """Return a bar of `value` percent (0 to 100) with a tick at `tick` percent."""
    return charts.meter(value, label=label, level=level, tick=tick)


@register.simple_tag
def state_strip(spans: list[tuple[float, float, str]], label: str) -> SafeString:
    """Return what something did over a window as a strip of colours."""
    return charts.state_strip(spans, label=label)


@register.filter
def twin(chart: Mapping[str, Any]) -> list[Any]:
    """Return a chart's rows for its table: (datetime, values)."""
    return [(datetime.fromtimestamp(moment, UTC), values) for moment, values in charts.twin(chart)]


@register.simple_tag
def chart_data(chart: Mapping[str, Any], name: str) -> SafeString:
    """Return a chart as JSON inside an inert template element, named NAME-data.

    Not a script element: HTMX is told to drop those from what it swaps in.
    """
    text = json.dumps(chart, cls=DjangoJSONEncoder, separators=(",", ":"))
    inert = mark_safe(text.translate(NO_MARKUP))  # noqa: S308 - no character can begin markup
    return format_html('<template id="{}-data">{}</template>', name, inert)


@register.simple_tag
def threshold_meter(row: Mapping[str, Any]) -> SafeString:
    """Return a table's dead rows on a bar that ends at 250 percent of autovacuum's threshold."""
    share = row["threshold_pct"]
    label = "not known" if share is None else f"{share:,.0f} percent of autovacuum's threshold"
    return charts.meter((share or 0) / 2.5, label=label, level=row["level"], tick=40)


register.filter("used_level", fleet.used_level)
