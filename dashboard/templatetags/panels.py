"""What stands around other things on every page, written once."""

from __future__ import annotations

from collections.abc import Iterable

from django.template import Context, Library
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from dashboard.templatetags.figures import number
from dashboard.templatetags.icons import icon as draw
from dashboard.templatetags.links import here

register = Library()


@register.simple_block_tag(takes_context=True)
def live_body(
    context: Context, content: SafeString, seconds: int, *, always: bool = False
) -> SafeString:
    """Write the part of a page that is asked for again while its window ends now, or always."""
    live = always or context["window"].is_live
    return format_html(
        '<div id="body" class="body"{} hx-get="{}" hx-trigger="refresh" hx-target="this"'
        ' hx-swap="morph:outerHTML">{}</div>',
        format_html(' data-refresh="{}"', seconds) if live else "",
        context["request"].get_full_path(),
        content,
    )


@register.simple_block_tag
def callout(
    content: SafeString, level: str, word: str, *, icon: str = "", role: str = ""
) -> SafeString:
    """Write a sentence that must not be overlooked; the word says to ears what the icon does."""
    return format_html(
        '<p class="callout" data-level="{}"{}>{}<span>{}</span></p>',
        level,
        format_html(' role="{}"', role) if role else "",
        draw(icon or level, word),
        content,
    )


@register.simple_tag(takes_context=True)
def chips(
    context: Context,
    word: str,
    choices: Iterable[tuple[str, str, int]],
    chosen: str,
    **changes: str | None,
) -> SafeString:
    """Write links that set a word of the query to each of (value, text, count), one of them chosen."""
    links = [
        (
            here(context, **{word: value, "page": None, **changes}),
            mark_current(value == chosen),
            text,
            number(count),
        )
        for value, text, count in choices
    ]
    return format_html(
        '<div class="filters" role="group" aria-label="Show">{}</div>',
        format_html_join("", '<a class="chip" href="{}" data-part{}>{} {}</a>', links),
    )


def mark_current(is_it: bool) -> SafeString:  # noqa: FBT001 - all that there is to say
    """Return what tells eyes and ears that a link leads to where one is."""
    return mark_safe(' aria-current="true"' if is_it else "")  # noqa: S308 - no word of anybody's


@register.simple_tag
def choose(
    name: str, label: str, every: str, choices: Iterable[object], chosen: object
) -> SafeString:
    """Write a field that filters by one of some words, or by none."""
    options = [(mark_selected(one == chosen), one) for one in choices]
    return format_html(
        '<label class="field"><span class="hush">{}</span><select name="{}"><option value="">{}</option>'
        "{}</select></label>",
        label,
        name,
        every,
        format_html_join("", "<option{}>{}</option>", options),
    )


def mark_selected(is_it: bool) -> SafeString:  # noqa: FBT001 - all that there is to say
    """Return what selects an option."""
    return mark_safe(" selected" if is_it else "")  # noqa: S308 - no word of anybody's
