"""Moments and ages, by the moment that the page shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django import template
from django.template import Context
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from monitors import words
from monitors.words import NONE

register = template.Library()
DAY_HOURS = 24


@register.filter
def age_words(seconds: float | None) -> str:
    """Write seconds in as few words as tell the age: 8 s, 3 h 12 min, 63 d; None: a dash."""
    return NONE if seconds is None else words.age(seconds)


@register.filter
def age_span(length: timedelta) -> str:
    """Write a window's length in one unit: 1 hour, 24 hours, 7 days."""
    hours = round(length.total_seconds() / 3600)
    count, word = (hours // 24, "day") if hours > DAY_HOURS else (hours, "hour")
    return f"{count} {word}s" if count > 1 else word


@register.filter
def exact(moment: datetime) -> str:
    """Write a moment as `at` of an address takes it, to the microsecond: what was read then is of it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@register.filter
def since(moment: datetime | None) -> float | None:
    """Return the seconds since a moment, never below 0; None stays None."""
    return None if moment is None else max(0.0, (timezone.now() - moment).total_seconds())


def stamp(moment: datetime) -> str:
    """Return 2026-11-24 10:42:16 UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def asked_for(context: Context) -> datetime:
    """Return the moment that a page shows: the end of its window in the past, else now."""
    end: datetime = context["window"].end if is_past(context) else timezone.now()
    return end


def is_past(context: Context) -> bool:
    """Tell whether a page shows a past moment: ages on it don't grow."""
    window = context.get("window")
    return window is not None and not window.is_live


@register.simple_tag(takes_context=True)
def age(
    context: Context, moment: datetime | None, empty: str = "never", suffix: str = "ago"
) -> SafeString:
    """Write a moment as 9 min ago, the absolute time on hover and for screen readers.

    It counts from the moment that the page shows.
    """
    if moment is None:
        return format_html('<span class="zero">{}</span>', empty)
    seconds = (asked_for(context) - moment).total_seconds()
    long = words.age(abs(seconds))
    text = f"in {long}" if seconds < -1 else f"{long} {suffix}".strip()
    return format_html(
        '<time datetime="{}" title="{}"{}>{}</time>',
        moment.isoformat(),
        stamp(moment),
        mark_safe(" data-then") if is_past(context) else "",
        text,
    )


@register.simple_tag(takes_context=True)
def vacuumed(context: Context, moment: datetime | None) -> SafeString:
    """Write when a vacuum or analyze ended last; of a standby, where that is not known, a dash."""
    target = context.get("target")
    return age(context, moment, NONE if target is not None and target.in_recovery else "never")


@register.simple_tag
def clock(moment: datetime | None, empty: str = NONE) -> SafeString:
    """Write a moment as 24 Nov 10:42:16; the browser puts it into the reader's zone."""
    if moment is None:
        return format_html('<span class="zero">{}</span>', empty)
    utc = moment.astimezone(UTC)
    text = f"{utc.day} {utc:%b %H:%M:%S} UTC"
    return format_html(
        '<time datetime="{}" title="{}" data-clock>{}</time>',
        moment.isoformat(),
        stamp(moment),
        text,
    )


@register.simple_tag(takes_context=True)
def day(context: Context, moment: datetime) -> SafeString:
    """Write a moment to come no finer than it can be meant: 28 Nov 14:00 UTC, or 14 Mar 2027."""
    text = words.day(moment.astimezone(UTC), asked_for(context))
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', moment.isoformat(), stamp(moment), text
    )
