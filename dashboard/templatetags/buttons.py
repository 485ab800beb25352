"""Buttons of actions."""

from __future__ import annotations

from typing import Any

from django import template
from django.template import Context
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dashboard.frame import frame
from dashboard.frame.hindrance import why_not
from dashboard.pages import PAGES
from dashboard.templatetags.icons import icon
from dashboard.templatetags.links import link
from monitors.actions import ACTIONS
from monitors.advisor import Finding

register = template.Library()
TITLES = {page.name: page.title for page in PAGES}


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
        TITLES.get(subject, subject.capitalize()),
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
    target), `target` and `frame`; `arguments` are the action's; `unless` is why its very object
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
        "why_not": why_not(
            target,
            action,
            may,
            is_live=context["window"].is_live,
            roles_with=context["frame"].roles_with,
        )
        or unless,
        "csrf_token": context.get("csrf_token"),
        "back": context["request"].get_full_path(),
    }
