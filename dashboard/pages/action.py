"""One action: POST makes a preview, GET shows it, POST asks for it; then its outcome."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from dashboard.errors import BadForm
from dashboard.forms.arguments import kept_arguments, option_groups, posted_arguments
from dashboard.frame.hindrance import why_not
from dashboard.frame.requests import PageRequest, get_target, render_page
from dashboard.source import source_of
from monitors.acting import ask as run, limits
from monitors.action import Action as Kind, InvalidArguments, Refused
from monitors.actions import ACTIONS
from monitors.kinds import EVERY
from monitors.models import Action, Target
from monitors.people import access
from monitors.rows.effects import adds, changes_of, lock_words

BACKS = "action_backs"
"""Session key: {action id: address of the page that its button stood on}."""
KEPT_BACKS = 50
CONFLICT, TOO_MANY = 409, 429  # HTTP


@require_POST
def new(request: PageRequest, name: str, action: str) -> HttpResponse:
    """Make a preview; a direct action (cancel) is asked for at once."""
    target = get_target(request, name, kinds=EVERY)
    kind = ACTIONS.get(action)
    if kind is None:
        raise Http404
    arguments = posted_arguments(request.POST, kind.parameters)
    source = source_of(request)
    try:
        if kind.direct:
            made = run.ask(
                request.user,
                target,
                action,
                arguments,
                reason=request.POST.get("reason", "").strip(),
                idempotency_key=posted_key(request),
                source=source,
            )
        else:
            made = run.preview(request.user, target, action, arguments, source=source)
    except (InvalidArguments, Refused) as error:
        status = TOO_MANY if isinstance(error, limits.TooMany) else CONFLICT
        return refused(request, target, str(error), status)
    keep_back(request, made)
    return show(request, made) if request.htmx else to_page(made)


@require_safe
def action(request: PageRequest, action_id: uuid.UUID) -> HttpResponse:
    """Show a preview, a running action or an outcome."""
    return show(request, get_action(request, action_id))


@require_POST
def request(request: PageRequest, action_id: uuid.UUID) -> HttpResponse:
    """Ask for what a preview showed."""
    draft = get_action(request, action_id)
    word = confirmation_of(draft)

    def ask() -> Action:
        return run.request(
            request.user,
            draft,
            reason=request.POST.get("reason", "").strip(),
            confirmed=not word or request.POST.get("confirm", "").strip() == word,
            idempotency_key=posted_key(request),
            source=source_of(request),
        )

    return carry_out(request, draft, ask)


@require_POST
def stop(request: PageRequest, action_id: uuid.UUID) -> HttpResponse:
    """Ask the worker to cancel our own statement."""
    running = get_action(request, action_id)
    return carry_out(
        request, running, lambda: run.stop(request.user, running, source=source_of(request))
    )


@require_POST
def approve(request: PageRequest, action_id: uuid.UUID) -> HttpResponse:
    """Be the second person."""
    waiting = get_action(request, action_id)
    return carry_out(
        request, waiting, lambda: run.approve(request.user, waiting, source=source_of(request))
    )


@require_POST
def undo(request: PageRequest, action_id: uuid.UUID) -> HttpResponse:
    """Make the preview of an action's inverse."""
    done = get_action(request, action_id)
    return carry_out(request, done, lambda: run.undo(request.user, done, source=source_of(request)))


def get_action(request: PageRequest, action_id: uuid.UUID) -> Action:
    """Return an action; raise Http404 where the person may not know of it.

    A draft is its maker's alone. One whose target was removed stays visible to
    its maker and to those who read the whole audit.
    """
    rows = Action.objects.select_related("target__environment", "asked_by", "approved_by")
    row = rows.filter(pk=action_id).first()
    if row is None or not may_see(request, row):
        raise Http404
    return row


def may_see(request: PageRequest, row: Action) -> bool:
    """Return whether the person may know of an action."""
    is_mine = row.asked_by_id == request.user.pk
    if row.target is None:
        return is_mine or access.may(request.user, "audit")
    if row.state == Action.State.DRAFT and not is_mine:
        return False
    return access.may(request.user, "view", row.target)


def posted_key(request: HttpRequest) -> uuid.UUID | None:
    """Return the click's own key, None where the form has none; raises BadForm for another."""
    text = request.POST.get("idempotency_key", "")
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        message = "The form's key is not a UUID. Load the page again."
        raise BadForm(message) from None


def confirmation_of(row: Action) -> str:
    """Return the word that must be typed; '' where the action destroys nothing."""
    kind = kind_of(row)
    if kind is None or not kind.destructive:
        return ""
    name = str(row.arguments.get("pid") or row.identity.get("relname") or row.target_name)
    # What a page shows otherwise than it is (blanks, control characters) nobody can type.
    is_plain = name.isprintable() and " ".join(name.split()) == name
    return name if is_plain else str(row.identity["relid"])


def kind_of(row: Action) -> Kind | None:
    """Return what a row's action is with the row's arguments, None for an unknown one."""
    kind = ACTIONS.get(row.name)
    return kind.given(row.arguments) if kind else None


def carry_out(request: PageRequest, row: Action, ask: Callable[[], Action]) -> HttpResponse:
    """Do what was asked and show what came of it, or the sentence that refuses it."""
    try:
        made = ask()
    except (InvalidArguments, Refused) as error:
        if request.htmx:
            row.refresh_from_db()
            return show(request, row, error=str(error), status=409)
        messages.error(request, str(error))
        return to_page(row)
    if made.pk != row.pk:
        keep_back(request, made)
    return show(request, made) if request.htmx else to_page(made)


def to_page(row: Action) -> HttpResponse:
    """Lead a browser to an action's own page."""
    return redirect("action", row.pk)


def refused(request: PageRequest, target: Target, sentence: str, status: int) -> HttpResponse:
    """Answer with the sentence that says why nothing was sent."""
    back = posted_back(request) or reverse("overview", args=[target.name])
    on_outcome = (request.htmx.target or "").startswith("outcome")
    context = {"sentence": sentence, "target": target, "back": back, "on_outcome": on_outcome}
    if request.htmx:
        return render(request, "actions/_refused.html", context, status=status)
    return render_page(
        request,
        "actions/refused.html",
        context,
        page="target-actions",
        target=target,
        status=status,
    )


def posted_back(request: HttpRequest) -> str:
    """Return the address on this site that the button's form names, '' where it names none."""
    address = request.POST.get("back", "")
    safe = url_has_allowed_host_and_scheme(
        address, {request.get_host()}, require_https=request.is_secure()
    )
    return address if safe else ""


def keep_back(request: HttpRequest, row: Action) -> None:
    """Remember the page that an action came from, for the link that leads back."""
    if back := posted_back(request):
        backs = dict(list(request.session.get(BACKS, {}).items())[-KEPT_BACKS:])
        request.session[BACKS] = {**backs, str(row.pk): back}


def back_of(request: HttpRequest, row: Action) -> str:
    """Return where the link back leads: the page of the button, else the target's actions."""
    kept = request.session.get(BACKS, {}).get(str(row.pk))
    if kept:
        return str(kept)
    return reverse("target-actions", args=[row.target.name]) if row.target else reverse("actions")


def show(request: PageRequest, row: Action, *, error: str = "", status: int = 200) -> HttpResponse:
    """Answer with the page, or to HTMX with the piece for the element that asked."""
    context = context_of(request, row) | {"error": error}
    asker = request.htmx.target or ""
    if request.htmx and asker.startswith("outcome"):
        return render(request, "actions/_outcome.html", context, status=status)
    if request.htmx and asker != "body":
        return render(request, "actions/_dialog.html", context, status=status)
    return render_page(
        request,
        "action.html",
        context,
        page="target-actions" if row.target else "actions",
        target=row.target,
        status=status,
    )


def context_of(request: PageRequest, row: Action) -> dict[str, Any]:
    """Return what the page, the dialog and the outcome show."""
    kind = kind_of(row)
    target = row.target
    may = access.permissions_of(request.user, target) if target else frozenset()
    is_mine = row.asked_by_id == request.user.pk
    lock = row.preview.get("lock") or (kind.lock if kind else "")
    protected = target is not None and target.environment.protected
    return {
        "action": row,
        "kind": kind,
        "target": target,
        "preview": row.preview,
        "confirmation": confirmation_of(row),
        "key": row.idempotency_key,
        "may": may,
        "may_approve": "approve" in may and not is_mine,
        "may_stop": row.name in may,
        "may_undo": row.inverse.get("name") in may,
        "changes": changes_of(row.before, row.after),
        "back": back_of(request, row),
        "is_mine": is_mine,
        "asks": row.state == Action.State.DRAFT
        and bool(row.preview.get("ready"))
        and not row.preview.get("refused"),
        "polls": polls_of(row),
        "lock_words": lock_words(lock),
        "swap_lock_words": lock_words(row.preview.get("swap_lock", "")),
        "waits_for_second": bool(kind and kind.second_person and protected),
        "notices": row.after.get("notices") or row.progress.get("notices") or [],
        "seconds": seconds_of(row),
        "effect": row.effect if adds(row) else "",
        **escalation_of(row, may),
        "is_signal": bool(kind and kind.is_signal),
        "judged_later": bool(kind and kind.judged_later) and row.state == Action.State.SUCCEEDED,
        "option_groups": option_groups(kind, row.arguments, target) if kind else [],
        "kept_arguments": kept_arguments(kind, row.arguments),
        "has_options": bool(kind and kind.options and target)
        and row.state == Action.State.DRAFT
        and bool(row.preview.get("ready")),
        "form_id": f"options-{row.pk}",
    }


def escalation_of(row: Action, may: frozenset[str]) -> dict[str, Any]:
    """Return the button that ends a session whose cancel was sent and had no effect, else {}."""
    if row.name != "cancel_backend" or row.state != Action.State.FAILED or not row.after:
        return {}
    if row.target is None:
        return {}
    return {
        "terminates": row.arguments,
        "terminate_text": f"Terminate {row.arguments['pid']}…",
        "terminate_why": why_not(row.target, "terminate_backend", may, is_live=True),
    }


def polls_of(row: Action) -> int:
    """Return after how many milliseconds to look again, 0 where nothing will change by itself."""
    if row.is_final:
        return 0
    if row.state == Action.State.DRAFT:
        return 0 if row.preview.get("ready") else 300
    return 1000


def seconds_of(row: Action) -> float | None:
    """Return how long the statement ran, None before its end."""
    if row.started_at is None or row.finished_at is None:
        return None
    return (row.finished_at - row.started_at).total_seconds()
