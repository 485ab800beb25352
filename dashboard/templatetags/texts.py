"""Statements, names and other texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django import template
from django.template import Context
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from dashboard.frame import frame, states
from dashboard.sql import KEYWORDS, highlight
from monitors.advisor import Finding
from monitors.models import Action
from monitors.rows.effects import statement_of

register = template.Library()


@register.filter
def breakable(name: object) -> SafeString:
    """Let a long name or list break after its underscores, dots and commas, not inside a word."""
    parts = re.split(r"(?<=[_.,/])(?=.)", str(name))
    return format_html_join(mark_safe("<wbr>"), "{}", ((part,) for part in parts))


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
def item(mapping: Mapping[Any, Any] | None, key: Any) -> Any:
    """Return mapping[key], None where there is none."""
    return (mapping or {}).get(key)


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
def unread(context: Context) -> states.State:
    """Return why the page's first probe has nothing to show."""
    state: states.State = context["frame"].unread
    return state


@register.filter
def counting(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are neither acknowledged nor snoozed."""
    return [finding for finding in findings if not finding.quiet]
