"""Targets: the list, the wizard that registers one, and the pages that change one."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard.forms.target import TargetForm, initial_of, initial_of_target
from dashboard.frame import states
from dashboard.frame.listing import chosen
from dashboard.frame.requests import PageRequest, render_page, table_response
from dashboard.source import source_of
from monitors.models import ProbeState, Snapshot, Target, TargetCheck
from monitors.people import access
from monitors.probes import probes_of
from monitors.targets import drafts, register
from monitors.targets.drafts import PasswordsElsewhere, save_draft

COLUMNS = (
    "name",
    "kind",
    "host",
    "port",
    "environment",
    "enabled",
    "state",
    "reason",
    "read_at",
    "server_version",
    "user",
    "operator_user",
    "sslmode",
    "tags",
    "cores",
    "history_bytes",
)
ADDRESS, CONNECTION, ABILITIES, FIRST_SNAPSHOT, DONE = 1, 2, 3, 5, 6
"""Steps of the wizard; the fourth, databases, stands on the page of the third."""
LOCAL = ("localhost", "127.", "::1")
SEALED = "sealed_drafts"
"""Session key: {check id: boxes that only a worker can open, None where they are kept no more}."""
REMEMBERED_DRAFTS = 100
"""So many drafts are known to have been typed in a login session."""
KEPT_DRAFTS = 5
"""So many drafts of a login session keep their passwords: the last ones that were tested."""
TOO_OLD = (
    f"Nothing was saved: only the passwords of the last {KEPT_DRAFTS} drafts that you tested are kept, and"
    " this is an older one. Type its password once more and test the connection again."
)
ELSEWHERE = (
    "Nothing was saved: the password of this draft was typed in another login session, and only"
    " there it is kept. Type it once more."
)
TOLD = ("activity", "pooler_pools")
"""By whose state it is told how a target is read; each kind of target has one of them."""
KINDS = dict(Target.Kind.choices)
OFF = (Snapshot.State.UNSUPPORTED, Snapshot.State.DENIED)


@require_safe
def targets(request: PageRequest) -> HttpResponseBase:
    """Show all targets that the person may see or manage."""
    rows = [row_of(target, state) for target, state in with_state(listed(request))]
    if exported := table_response(request, "targets", COLUMNS, rows):
        return exported
    context = {"rows": rows, "may_manage": access.may(request.user, "manage_targets")}
    return render_page(request, "targets.html", context, page="targets")


@sensitive_post_parameters("password", "operator_password")
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: PageRequest) -> HttpResponse:
    """Ask for address and login (step 1); POST has a worker check them."""
    access.require(request.user, "manage_targets", source=source_of(request))
    initial = initial_of_draft(request)
    kind = initial.get("kind") or chosen(request, "kind", KINDS, Target.Kind.POSTGRES)
    form = TargetForm(request.POST or None, kind=kind, initial=initial)
    if request.method == "POST" and form.is_valid():
        draft = {"name": form.cleaned_data["name"], "kind": kind, **form.fields_of_target()}
        if Target.objects.filter(name=draft["name"]).exists():
            form.add_error("name", "A target of this name exists already. Choose another one.")
        else:
            try:
                check = drafts.ask_check(
                    request.user,
                    draft=draft,
                    passwords=form.passwords(),
                    source=source_of(request),
                )
            except ValidationError as error:
                form.add_errors(error)
            else:
                keep_sealed(request, check)
                return redirect("target-check", check.id)
    context = {"form": form, "step": ADDRESS, "editing": None, "kinds": list(KINDS.items())}
    status = 400 if form.errors else 200
    return render_page(request, "target_form.html", context, page="targets", status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def check(request: PageRequest, check_id: uuid.UUID) -> HttpResponse:
    """Show what a login can and can't do (steps 2 to 5); POST saves a draft."""
    access.require(request.user, "manage_targets", source=source_of(request))
    row = TargetCheck.objects.filter(pk=check_id, asked_by=request.user).first()
    if row is None:
        raise Http404
    if request.method == "POST":
        return save(request, row)
    context = check_context(request, row)
    return render_page(request, "target_check.html", context, page="targets")


@sensitive_post_parameters("password", "operator_password")
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: PageRequest, name: str) -> HttpResponse:
    """Change a target; the button Check asks a worker what its logins can do."""
    target = get_managed(request, name)
    form = TargetForm(request.POST or None, target=target, initial=initial_of_target(target))
    if "check" in request.POST:
        try:
            asked = drafts.ask_check(request.user, target=target, source=source_of(request))
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return redirect("target-edit", target.name)
        return redirect("target-check", asked.id)
    if request.method == "POST" and form.is_valid():
        try:
            change(request, target, form)
        except ValidationError as error:
            form.add_errors(error)
        else:
            messages.success(request, f"{target.name} is changed; it is read again at once.")
            return redirect("targets")
    context = {"form": form, "editing": target}
    status = 400 if form.errors else 200
    return render_page(request, "target_form.html", context, page="targets", status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: PageRequest, name: str) -> HttpResponse:
    """Ask for the name, then delete a target with all its history."""
    target = get_managed(request, name)
    wrong = False
    if request.method == "POST":
        wrong = request.POST.get("name", "").strip() != target.name
        if not wrong:
            register.remove(request.user.get_username(), source_of(request), target)
            messages.success(
                request, f"{target.name} is removed; a worker deletes its history in batches."
            )
            return redirect("targets")
    context = {"subject": target, "wrong": wrong}
    status = 400 if wrong else 200
    return render_page(request, "target_remove.html", context, page="targets", status=status)


@require_POST
def enable(request: PageRequest, name: str) -> HttpResponse:
    """Read a target again."""
    target = get_managed(request, name)
    register.enable(request.user.get_username(), source_of(request), target)
    messages.success(request, f"{target.name} is enabled; it is read at once.")
    return redirect("targets")


@require_POST
def disable(request: PageRequest, name: str) -> HttpResponse:
    """Stop reading a target; its history stays."""
    target = get_managed(request, name)
    register.disable(request.user.get_username(), source_of(request), target)
    messages.success(request, f"{target.name} is disabled; its history stays.")
    return redirect("targets")


def change(request: PageRequest, target: Target, form: TargetForm) -> None:
    """Store what a valid form says; passwords that were not given stay, where they may."""
    passwords = form.passwords()
    register.edit(
        request.user.get_username(),
        source_of(request),
        target,
        password=passwords.get("collector"),
        operator_password=passwords.get("operator"),
        **form.fields_of_target(),
    )


def get_managed(request: PageRequest, name: str) -> Target:
    """Return a target to change.

    Raises Http404 where the person may not know of it, PermissionDenied (and
    audits it) where it may only be seen.
    """
    target = listed(request).filter(name=name).first()
    if target is None:
        raise Http404
    access.require(request.user, "manage_targets", target, source=source_of(request))
    return target


def listed(request: PageRequest) -> QuerySet[Target]:
    """Return the targets that the person may see or manage."""
    seen = access.visible_targets(request.user) | access.managed_targets(request.user)
    return seen.distinct()


def with_state(found: QuerySet[Target]) -> list[tuple[Target, ProbeState | None]]:
    """Return targets with the state of the probe that tells most, None before the first attempt."""
    states = ProbeState.objects.filter(probe__in=TOLD, database=None, target__in=found)
    by_target = {state.target_id: state for state in states}
    return [(target, by_target.get(target.pk)) for target in found]


def row_of(target: Target, state: ProbeState | None) -> dict[str, Any]:
    """Return a target's line: the export's keys and what else the page shows."""
    names = ("name", "kind", "host", "port", "enabled", "server_version", "user", "operator_user")
    more = ("sslmode", "tags", "cores", "history_bytes")
    is_local = target.host.startswith(LOCAL)
    return {
        **{name: getattr(target, name) for name in (*names, *more)},
        "environment": target.environment.name,
        "state": "disabled" if not target.enabled else state.state if state else "",
        "reason": state.reason if state else "",
        "read_at": state.taken_at if state else None,
        "failing_since": state.failing_since if state else None,
        "target": target,
        "is_weak": target.sslmode != Target.SSLMode.VERIFY_FULL and not is_local,
    }


def initial_of_draft(request: PageRequest) -> dict[str, Any]:
    """Return the values of the draft that the query names, so that it can be corrected."""
    text = request.GET.get("draft", "")
    try:
        wanted = uuid.UUID(text) if text else None
    except ValueError:
        wanted = None
    row = TargetCheck.objects.filter(pk=wanted, asked_by=request.user).first() if wanted else None
    return initial_of(row.draft) if row else {}


def keep_sealed(request: PageRequest, check: TargetCheck) -> None:
    """Keep a draft's sealed passwords for the last step, so that none is asked for twice."""
    drafts = {**request.session.get(SEALED, {}), str(check.id): dict(check.sealed)}
    for old in list(drafts)[:-KEPT_DRAFTS]:
        drafts[old] = None  # so that it is known for one of this session
    request.session[SEALED] = dict(list(drafts.items())[-REMEMBERED_DRAFTS:])


def save(request: PageRequest, row: TargetCheck) -> HttpResponse:
    """Register a checked draft; a second press finds it saved."""
    if row.target is None and row.done_at is not None:
        drafts = request.session.get(SEALED, {})
        sealed = drafts.get(str(row.id)) or {}
        try:
            save_draft(request.user.get_username(), source_of(request), row, sealed)
        except PasswordsElsewhere:
            messages.error(request, TOO_OLD if str(row.id) in drafts else ELSEWHERE)
            return redirect(f"{reverse('target-new')}?draft={row.id}")
        except ValidationError as error:
            for sentence in error.messages:
                messages.error(request, sentence)
        else:
            request.session[SEALED] = {key: drafts[key] for key in drafts if key != str(row.id)}
    return redirect("target-check", row.id)


def check_context(request: PageRequest, row: TargetCheck) -> dict[str, Any]:
    """Return what the check's page shows; `step` is the wizard's, 0 outside of it."""
    is_draft = bool(row.draft)
    result = row.result or {}
    progress = first_snapshots(row.target) if is_draft and row.target else []
    is_read = bool(progress) and all(one["read_at"] or one["is_off"] for one in progress)
    if not is_draft:
        step = 0
    elif row.target is None:
        step = ABILITIES if row.done_at and not row.error else CONNECTION
    else:
        step = DONE if is_read else FIRST_SNAPSHOT
    wanting = [
        one for one in [*result.get("probes", ()), *result.get("actions", ())] if not one["works"]
    ]
    return {
        "check": row,
        "advice": states.advice(row.error, otherwise="") if row.error else "",
        "result": result,
        "draft": row.draft,
        "is_draft": is_draft,
        "step": step,
        "wanting": wanting,
        "subject": row.target,
        "subject_name": row.target.name if row.target else row.draft.get("name", ""),
        "progress": progress,
        "databases": result.get("databases", ()),
        "polls": not row.done_at or step == FIRST_SNAPSHOT,
        "pages_open": row.target is not None and access.may(request.user, "view", row.target),
        "view_roles": access.roles_with("view"),
    }


def first_snapshots(target: Target) -> list[dict[str, Any]]:
    """Return the probes of a new target with when they were first read and what went wrong.

    One that can't be read there (`is_off`: no such extension, no right) is not waited for.
    """
    rows = list(ProbeState.objects.filter(target=target))
    found = []
    for probe in probes_of(target.kind):
        mine = [row for row in rows if row.probe == probe.name]
        read = [row.taken_at for row in mine if row.taken_at]
        reason = next((row.reason for row in mine if row.reason), "")
        is_off = bool(mine) and all(row.state in OFF for row in mine)
        found.append(
            {
                "name": probe.name,
                "read_at": min(read, default=None),
                "reason": reason,
                "is_off": is_off,
            }
        )
    return found
