"""Icons, and the words and colours of levels and states."""

from __future__ import annotations

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from dashboard import charts
from monitors.advisor import Severity

register = template.Library()

LEVELS = {
    "good": "Good",
    "notice": "Notice",
    "warning": "Warning",
    "critical": "Critical",
    "unknown": "Unknown",
}

VERDICT_LEVELS = {"helped": "good", "no change": "notice", "worse": "warning"}

RUN_LEVELS = {"done": "good", "nothing to do": "good", "missed": "warning", "refused": "critical"}

STATE_LEVELS = {
    "draft": "notice",
    "waiting": "notice",
    "queued": "notice",
    "running": "notice",
    "succeeded": "good",
    "failed": "critical",
    "skipped": "warning",
    "refused": "warning",
    "expired": "warning",
    "cancelled": "notice",
    "lost": "critical",
}


@register.filter
def wait_colour(wait_event_type: str | None) -> str:
    """Return the colour of what a backend waits for, the same on every page."""
    return charts.WAIT_COLOURS.get(wait_event_type or "", "timeout")


@register.filter
def level_name(level: str) -> str:
    """Return the word for a level."""
    return LEVELS.get(level, "")


@register.filter
def state_level(state: str) -> str:
    """Return the level of an action's state."""
    return STATE_LEVELS.get(state, "notice")


@register.filter
def verdict_level(verdict: str) -> str:
    """Return the level of a verdict on an action."""
    return VERDICT_LEVELS.get(verdict, "notice")


@register.filter
def run_level(state: str) -> str:
    """Return the level of a job's run."""
    return RUN_LEVELS.get(state, "notice")


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """Return an icon of the sprite; with a label it is read out, without one it is hidden."""
    said = (
        format_html('role="img" aria-label="{}"', label)
        if label
        else mark_safe('aria-hidden="true"')
    )
    return format_html(
        '<svg class="icon" {}><use href="{}#i-{}"/></svg>', said, static("icons.svg"), name
    )


@register.simple_tag
def level_icon(level: str) -> SafeString:
    """Return a level's icon with its word; nothing where there is no level."""
    if level not in LEVELS:
        return SafeString("")
    return format_html(
        '<span class="level" data-level="{}">{}</span>',
        level,
        icon("notice" if level == "unknown" else level, LEVELS[level]),
    )


@register.simple_tag
def mark_key(kind: str) -> SafeString:
    """Return the small shape that a kind of mark has on the charts."""
    return format_html('<span class="mark-shape" data-kind="{}" aria-hidden="true"></span>', kind)


@register.filter
def severity_word(severity: int) -> str:
    """Return notice, warning or critical."""
    return Severity(severity).name.lower()
