"""What stands around other things on every page, written once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.template import Context, Library, Node, NodeList, TemplateSyntaxError
from django.template.base import FilterExpression, Parser, Token, token_kwargs
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


@register.tag
def panel(parser: Parser, token: Token) -> PanelNode:
    """Write a panel with its title: `{% panel "Tables" %} … {% endpanel %}`.

    `note` is said beside the title; what else stands there comes first, in `{% head %} … {% endhead %}`.
    `label` is for ears where the title says too little, `hushed` leaves the title to them; `id` is what
    links lead to; a `still` panel is not torn from under a pointer when the page is renewed.
    """
    words = token.split_contents()[1:]
    named = token_kwargs(words[1:], parser)
    if not words or len(named) != len(words) - 1 or not named.keys() <= PANEL_OPTIONS:
        message = f"panel takes a title and {', '.join(sorted(PANEL_OPTIONS))}: {token.contents}"
        raise TemplateSyntaxError(message)
    head, body = NodeList(), parser.parse(("head", "endpanel"))
    if parser.next_token().contents == "head":
        if any(node.render(Context()).strip() for node in body):
            message = "head comes first in a panel"
            raise TemplateSyntaxError(message)
        head = parser.parse(("endhead",))
        parser.delete_first_token()
        body = parser.parse(("endpanel",))
        parser.delete_first_token()
    return PanelNode(parser.compile_filter(words[0]), named, head, body)


PANEL_OPTIONS = frozenset({"note", "label", "hushed", "id", "still"})


class PanelNode(Node):
    """A panel, its head and its body."""

    child_nodelists = ("head", "body")

    def __init__(
        self,
        title: FilterExpression,
        named: Mapping[str, FilterExpression],
        head: NodeList,
        body: NodeList,
    ) -> None:
        self.title, self.named, self.head, self.body = title, named, head, body

    def render(self, context: Context) -> SafeString:
        """Return the panel's HTML."""
        title = self.title.resolve(context)
        option = {name: value.resolve(context) for name, value in self.named.items()}
        note, place = option.get("note"), option.get("id")
        return format_html(
            '<section class="panel"{} aria-label="{}"{}><div class="panel-head"><h2{}>{}</h2>{}{}</div>'
            "{}</section>",
            format_html(' id="{}"', place) if place else "",
            option.get("label") or title,
            mark(" data-still", bool(option.get("still"))),
            mark(' class="hush"', bool(option.get("hushed"))),
            title,
            format_html('<span class="muted">{}</span>', note) if note else "",
            self.head.render(context),
            self.body.render(context),
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
            mark(' aria-current="true"', value == chosen),
            text,
            number(count),
        )
        for value, text, count in choices
    ]
    return format_html(
        '<div class="filters" role="group" aria-label="Show">{}</div>',
        format_html_join("", '<a class="chip" href="{}" data-part{}>{} {}</a>', links),
    )


def mark(text: str, is_it: bool) -> SafeString:  # noqa: FBT001 - all that there is to say
    """Return an attribute of our own where it is so, else nothing."""
    return mark_safe(text if is_it else "")  # noqa: S308 - no word of anybody's


@register.simple_tag
def choose(
    name: str, label: str, every: str, choices: Iterable[object], chosen: object
) -> SafeString:
    """Write a field that filters by one of some words, or by none."""
    options = [(mark(" selected", one == chosen), one) for one in choices]
    return format_html(
        '<label class="field"><span class="hush">{}</span><select name="{}"><option value="">{}</option>'
        "{}</select></label>",
        label,
        name,
        every,
        format_html_join("", "<option{}>{}</option>", options),
    )
