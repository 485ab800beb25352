"""Filters that give numbers their units, and tags for the pieces of a page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django import template
from django.core.serializers.json import DjangoJSONEncoder
from django.http import QueryDict
from django.template import Context
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from dashboard import charts
from dashboard.frame import frame, states
from dashboard.sql import KEYWORDS, highlight
from monitors import words
from monitors.actions import ACTIONS
from monitors.advisor import Finding, Severity
from monitors.models import Action
from monitors.rows import fleet
from monitors.rows.effects import statement_of

register = template.Library()

NO_MARKUP = {ord("<"): "\\u003C", ord(">"): "\\u003E", ord("&"): "\\u0026"}
THOUSAND, DAY_HOURS = 1000, 24
NONE = "\N{EN DASH}"
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


def unit(number: str, name: str) -> SafeString:
    """Return a number with its unit set off."""
    return format_html('{}<span class="unit">{}</span>', number, name)


@register.filter
def pairs(query: QueryDict) -> list[tuple[str, Any]]:
    """Return a query's words with their values: `query.items` is a word's value where one is called so."""
    return list(query.items())


@register.filter(name="bytes")
def bytes_(value: float | None) -> SafeString | str:
    """Write a size as pg_size_pretty does, with one decimal below 10: 1.2 GB; None: a dash."""
    return NONE if value is None else unit(*words.size_parts(value))


@register.filter
def wait_colour(wait_event_type: str | None) -> str:
    """Return the colour of what a backend waits for, the same on every page."""
    return charts.WAIT_COLOURS.get(wait_event_type or "", "timeout")


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
def breakable(name: object) -> SafeString:
    """Let a long name or list break after its underscores, dots and commas, not inside a word."""
    parts = re.split(r"(?<=[_.,/])(?=.)", str(name))
    return format_html_join(mark_safe("<wbr>"), "{}", ((part,) for part in parts))


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
def first_word(text: Any) -> str:
    """Return the text up to its first space: 18.4 of 18.4 (Debian 18.4-1)."""
    return str(text or "").partition(" ")[0]


@register.filter
def initials(name: str) -> str:
    """Return at most two letters for a person."""
    words = re.findall(r"[^\W_]+", name) or ["?"]
    return "".join(word[0] for word in words[:2]).upper()


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


@register.filter
def sql(text: str | None) -> SafeString:
    """Return a statement escaped, its keywords, numbers, strings and comments marked."""
    return highlight(text or "")


@register.filter
def is_statement(text: str) -> bool:
    """Tell a statement that helps, as GRANT pg_monitor TO x, from a sentence that says why not."""
    return text.partition(" ")[0] in KEYWORDS


@register.filter
def statement(action: Action) -> str:
    """Return an action's statement as people say it: without the guard of a signal."""
    return statement_of(action)


@register.filter
def one_line(text: object) -> str:
    """Return a statement on one line."""
    return " ".join(str(text or "").split())


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


@register.filter
def item(mapping: Mapping[Any, Any] | None, key: Any) -> Any:
    """Return mapping[key], None where there is none."""
    return (mapping or {}).get(key)


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
def spark(values: list[float | None] | None, label: str = "", level: str = "") -> SafeString:
    """Return a small line; it is read out only when it has a label."""
    return charts.spark(values or [], label=label, level=level)


@register.simple_tag
def meter(
    value: float | None, label: str, level: str = "", tick: float | None = None
) -> SafeString:
    """Return a bar of `value` percent (0 to 100) with a tick at `tick` percent."""
    return charts.meter(value, label=label, level=level, tick=tick)


@register.filter
def twin(chart: Mapping[str, Any]) -> list[Any]:
    """Return a chart's rows for its table: (datetime, values)."""
    return [(datetime.fromtimestamp(moment, UTC), values) for moment, values in charts.twin(chart)]


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


@register.simple_tag
def chart_data(chart: Mapping[str, Any], name: str) -> SafeString:
    """Return a chart as JSON inside an inert template element, named NAME-data.

    Not a script element: HTMX is told to drop those from what it swaps in.
    """
    text = json.dumps(chart, cls=DjangoJSONEncoder, separators=(",", ":"))
    inert = mark_safe(text.translate(NO_MARKUP))  # noqa: S308 - no character can begin markup
    return format_html('<template id="{}-data">{}</template>', name, inert)


@register.simple_tag
def theme(request: Any = None) -> SafeString:
    """Return the html element's attribute for the chosen theme, nothing for the system's."""
    chosen = frame.theme_of(request) if request else ""
    return format_html(' data-theme="{}"', chosen) if chosen else SafeString("")


@register.simple_tag(takes_context=True)
def chosen_theme(context: Context) -> str:
    """Return light, dark, or nothing where the system decides."""
    return frame.theme_of(context["request"])


@register.simple_tag(takes_context=True)
def here(context: Context, **changes: Any) -> str:
    """Return this page's address with some words of its query changed; None takes a word out."""
    request = context["request"]
    query = request.GET.copy()
    query.pop("format", None)
    for word, value in changes.items():
        name = word.rstrip("_")
        if value is None or value == "":
            query.pop(name, None)
        else:
            query[name] = value
    return f"{request.path}?{query.urlencode()}" if query else str(request.path)


@register.simple_tag(takes_context=True)
def link(context: Context, name: str, *args: Any) -> str:
    """Return another page's address in the window that this page shows."""
    return reverse(name, args=args) + frame.window_query(context["request"])


@register.simple_tag(takes_context=True)
def sort_head(
    context: Context, key: str, title: str, css: str = "", first: str = "-"
) -> SafeString:
    """Return a table's head cell that sorts by `key`; `first` is "-" where big comes first."""
    now = str(context.get("sort") or "")
    is_current = now.lstrip("-") == key
    order = ("descending" if now.startswith("-") else "ascending") if is_current else ""
    wanted = (key if now.startswith("-") else f"-{key}") if is_current else f"{first}{key}"
    return format_html(
        '<th scope="col" class="{}"{}><a href="{}" data-part>{}{}</a></th>',
        css,
        format_html(' aria-sort="{}"', order) if order else "",
        here(context, sort=wanted, page=None),
        title,
        icon("sort" if order == "descending" else "sort-up") if order else "",
    )


@register.filter
def minus(value: int, other: int) -> int:
    """Return value - other."""
    return value - other


@register.simple_tag(takes_context=True)
def unread(context: Context) -> states.State:
    """Return why the page's first probe has nothing to show."""
    state: states.State = context["frame"].unread
    return state


@register.simple_tag
def mark_key(kind: str) -> SafeString:
    """Return the small shape that a kind of mark has on the charts."""
    return format_html('<span class="mark-shape" data-kind="{}" aria-hidden="true"></span>', kind)


@register.simple_tag
def threshold_meter(row: Mapping[str, Any]) -> SafeString:
    """Return a table's dead rows on a bar that ends at 250 percent of autovacuum's threshold."""
    share = row["threshold_pct"]
    label = "not known" if share is None else f"{share:,.0f} percent of autovacuum's threshold"
    return charts.meter((share or 0) / 2.5, label=label, level=row["level"], tick=40)


register.filter("used_level", fleet.used_level)


@register.simple_tag(takes_context=True)
def fleet_link(context: Context, row: Mapping[str, Any]) -> str:
    """Return where a target's worst finding is shown: its subject's page, else the overview."""
    finding = row.get("finding")
    name = frame.SUBJECTS.get(finding.advisor, "overview") if finding else "overview"
    return link(context, name, row["name"])


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


@register.filter
def counting(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are neither acknowledged nor snoozed."""
    return [finding for finding in findings if not finding.quiet]


@register.filter
def severity_word(severity: int) -> str:
    """Return notice, warning or critical."""
    return Severity(severity).name.lower()


@register.simple_tag(takes_context=True)
def finding_url(context: Context, finding: Finding) -> str:
    """Return the page on which a finding's object stands, empty where there is none."""
    return frame.finding_url(context["target"], finding, context["frame"].datids) or ""


@register.simple_tag(takes_context=True)
def finding_button(context: Context, finding: Finding, css: str = "btn-s") -> SafeString:
    """Return the button of the action that helps; a great one names its object visibly.

    Empty where this Howdah has no such action.
    """
    action = ACTIONS.get(finding.action)
    if action is None:
        return SafeString("")
    is_great = css == "btn-primary"
    verb = action.worded(finding.arguments) or action.verb
    shown = action_button(
        context,
        finding.action,
        f"{verb} {finding.object_name}" if is_great else verb.removesuffix(" for"),
        icon=action.icon,
        object="" if is_great else finding.object_name,
        css=css,
        **finding.arguments,
    )
    return SafeString(render_to_string("_action_button.html", shown))


@register.simple_tag(takes_context=True)
def verdict_button(context: Context, verdict: Any) -> SafeString | str:
    """Return what helps most: a harmless action, else the way to where the finding is shown.

    Nothing that destroys is the first button of a page.
    """
    finding = verdict.finding
    if finding is None:
        return ""
    subject = frame.SUBJECTS.get(finding.advisor, "")
    action = ACTIONS.get(finding.action)
    harmless = action is not None and not action.destructive
    if harmless and finding.action != "cancel_backend":
        return finding_button(context, finding, css="btn-primary")
    if not subject or context["frame"].page == subject:
        return ""
    return format_html(
        '<a class="btn btn-primary" href="{}">See {}{}</a>',
        link(context, subject, context["target"].name),
        subject.capitalize(),
        icon("arrow"),
    )


@register.inclusion_tag("_action_button.html", takes_context=True)
def action_button(  # noqa: PLR0913 - one keyword a part of the button
    context: Context,
    action: str,
    text: str,
    *,
    icon: str = "actions",
    object: str = "",  # noqa: A002 - the template's word
    css: str = "btn-s",
    unless: str = "",
    **arguments: Any,
) -> dict[str, Any]:
    """Return a form that opens an action's preview, or a disabled button that says why not.

    The page's context has `may` (names of actions the person may take on the
    target) and `target`; `arguments` are the action's; `unless` is why its very object
    forbids it, '' where it does not.
    """
    target = context["target"]
    may = context.get("may") or frozenset()
    return {
        "action": action,
        "text": text,
        "icon": icon,
        "object": object,
        "css": css,
        "arguments": {key: value for key, value in arguments.items() if value not in (None, "")},
        "target": target,
        "why_not": frame.why_not(target, action, may, is_live=context["window"].is_live) or unless,
        "csrf_token": context.get("csrf_token"),
        "back": context["request"].get_full_path(),
    }
