"""Addresses that keep the window, and heads that sort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template
from django.http import QueryDict
from django.template import Context
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dashboard.frame import frame
from dashboard.templatetags.icons import icon
from monitors.advisor import Finding

register = template.Library()


@register.filter
def pairs(query: QueryDict) -> list[tuple[str, Any]]:
    """Return a query's words with their values: `query.items` is a word's value where one is called so."""
    return list(query.items())


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
def narrow(context: Context, word: str, value: str) -> str:
    """Return this page's address limited to a value of a word of its query, be it empty."""
    query = context["request"].GET.copy()
    query.pop("format", None)
    query[word] = value
    return f"{context['request'].path}?{query.urlencode()}"


@register.simple_tag(takes_context=True)
def without(context: Context, word: str) -> str:
    """Return this page's address without a word of its query."""
    return here(context, **{word: None})


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


@register.simple_tag(takes_context=True)
def fleet_link(context: Context, row: Mapping[str, Any]) -> str:
    """Return where a target's worst finding is shown: its subject's page, else the overview."""
    finding = row.get("finding")
    name = frame.SUBJECTS.get(finding.advisor, "overview") if finding else "overview"
    return link(context, name, row["name"])


@register.simple_tag(takes_context=True)
def finding_url(context: Context, finding: Finding) -> str:
    """Return the page on which a finding's object stands, empty where there is none."""
    return frame.finding_url(context["target"], finding, context["frame"].datids) or ""
