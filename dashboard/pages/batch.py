"""One action on several tables or backends: POST freezes the list, GET shows it, POST asks; then the results."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from dashboard.errors import BadForm
from dashboard.forms.arguments import option_groups, posted_arguments
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response
from dashboard.frame.tiles import Tile
from dashboard.source import source_of
from dashboard.templatetags import figures
from monitors import words
from monitors.acting import batch as batches
from monitors.action import Action as Spec, InvalidArguments, Refused
from monitors.actions import ACTIONS
from monitors.models import Action, Batch, Database, JobRun, Target
from monitors.people import access
from monitors.rows import due

COLUMNS = (
    "position",
    "id",
    "action",
    "database",
    "object",
    "sql",
    "state",
    "outcome",
    "effect",
    "started_at",
    "finished_at",
    "seconds",
)
"""Keys of the export, one row a table or backend."""

PLACES = {"table": "vacuum", "backend": "activity"}
"""The page on which things to act on are chosen."""
State = Action.State


@require_POST
def new(request: PageRequest, name: str, action: str) -> HttpResponse:
    """Freeze a list and preview each: `tables`, with `due` those that are due, or `backends`."""
    target = get_target(request, name)
    kind = ACTIONS.get(action)
    if kind is None or not kind.several:
        raise Http404
    wants_due = bool(request.POST.get("due")) and not kind.is_signal
    if kind.is_signal:
        objects = marked(kind, request.POST.getlist("backends"))
    else:
        objects = due_now(target) if wants_due else chosen(target, request.POST.getlist("tables"))
    options = posted_arguments(request.POST, kind.options)
    try:
        made = batches.preview(
            request.user,
            target,
            action,
            objects,
            options,
            due=wants_due,
            source=source_of(request),
        )
    except (InvalidArguments, Refused) as error:
        messages.error(request, str(error))
        return redirect(PLACES[kind.noun], target.name)
    return redirect("batch", made.pk)


def due_now(target: Target) -> list[dict[str, str]]:
    """Return the tables that are due by the last snapshot."""
    return [{"database": one.database, "relid": str(one.relid)} for one in due.due_tables(target)]


def chosen(target: Target, words: Sequence[str]) -> list[dict[str, str]]:
    """Return the tables that boxes name as DATID.RELID; raises BadForm for another text."""
    names = dict(Database.objects.filter(target=target).values_list("datid", "datname"))
    tables = []
    for word in words:
        datid, _, relid = word.partition(".")
        if not (datid.isascii() and datid.isdigit() and int(datid) in names and relid.isdigit()):
            message = "The list of tables is not one of this page's. Load it again."
            raise BadForm(message)
        tables.append({"database": names[int(datid)], "relid": relid})
    return tables


def marked(kind: Spec, words: Sequence[str]) -> list[dict[str, str]]:
    """Return the guards of the backends whose boxes were ticked (`Backend.marked`).

    A box says when the statement began too, for who cancels it: one that idles is guarded by
    its change of state alone. Raises BadForm for another text.
    """
    takes = {parameter.name for parameter in kind.parameters}
    found = []
    for word in words:
        try:
            told = dict(json.loads(word))
        except (ValueError, TypeError, RecursionError):
            message = "The list of backends is not one of this page's. Load it again."
            raise BadForm(message) from None
        guard = {name: str(value) for name, value in told.items() if name in takes}
        if "state_change" in guard:
            guard.pop("query_start", None)
        found.append(guard)
    return found


@require_safe
def batch(request: PageRequest, batch_id: uuid.UUID) -> HttpResponseBase:
    """Show the list: what would be sent, or the result of each."""
    found = get_batch(request, batch_id)
    rows = list(found.actions.order_by("batch_position"))
    opened = JobRun.objects.select_related("job").filter(batch=found).first()
    held = opened.text if opened and opened.state == JobRun.State.HELD else ""
    lines = [exported_row(row, held) for row in rows]
    exported = table_response(request, "batch", COLUMNS, lines)
    return exported or show(request, found, rows, opened, held)


@require_POST
def request(request: PageRequest, batch_id: uuid.UUID) -> HttpResponse:
    """Ask for what the preview showed."""
    found = get_batch(request, batch_id)
    reason = request.POST.get("reason", "").strip()
    try:
        batches.request(request.user, found, reason=reason, source=source_of(request))
    except (InvalidArguments, Refused) as error:
        messages.error(request, str(error))
    return redirect("batch", found.pk)


@require_POST
def stop(request: PageRequest, batch_id: uuid.UUID) -> HttpResponse:
    """Begin no further one, and stop those that run."""
    found = get_batch(request, batch_id)
    try:
        batches.stop(request.user, found, source_of(request))
    except Refused as error:
        messages.error(request, str(error))
    return redirect("batch", found.pk)


def get_batch(request: PageRequest, batch_id: uuid.UUID) -> Batch:
    """Return a batch; raise Http404 where the person may not know of it, as of an action."""
    rows = Batch.objects.select_related("target__environment", "asked_by")
    found = rows.filter(pk=batch_id).first()
    if found is None or not may_see(request, found):
        raise Http404
    return found


def may_see(request: PageRequest, found: Batch) -> bool:
    """Return whether the person may know of a batch."""
    is_mine = found.asked_by_id == request.user.pk
    if found.target is None:
        return is_mine or access.may(request.user, "audit")
    if found.asked_at is None and not is_mine:
        return False
    return access.may(request.user, "view", found.target)


def show(
    request: PageRequest, found: Batch, rows: list[Action], opened: JobRun | None, held: str
) -> HttpResponse:
    """Render the page of a batch; `held` says why its job lets no further table begin."""
    kind = ACTIONS.get(found.name)
    target = found.target
    is_draft = found.asked_at is None
    ready = not is_draft or all(row.preview.get("ready") for row in rows)
    allowed = [row for row in rows if ready and not row.preview.get("refused")]
    may = access.permissions_of(request.user, target) if target else frozenset()
    context: dict[str, Any] = {
        "batch": found,
        "kind": kind,
        "noun": kind.noun if kind else "object",
        "rows": [row_of(row) for row in rows],
        "job": opened.job if opened else None,
        "held": held,
        "is_draft": is_draft,
        "ready": ready,
        "allowed": allowed,
        "dead": sum(dead_of(row) for row in allowed),
        "tiles": [] if is_draft else tiles(rows, kind),
        "asks": is_draft and ready and bool(allowed),
        "may_stop": not is_draft and not found.finished_at and found.name in may,
        "polls": 1
        if is_draft and not ready
        else 2
        if not is_draft and not found.finished_at
        else 0,
        "option_groups": option_groups(kind, found.options, target) if kind else [],
        "is_open": bool(ready and not allowed),
        "form_id": "batch-options",
        "back": reverse(PLACES[kind.noun], args=[target.name])
        if target and kind
        else reverse("actions"),
        "done": sum(1 for row in rows if row.is_final),
    }
    page = "target-actions" if target else "actions"
    return render_page(request, "batch.html", context, page=page, target=target)


def row_of(row: Action) -> dict[str, Any]:
    """Return one row of the list."""
    facts = dict(row.preview.get("facts") or [])
    return {
        "action": row,
        "facts": facts,
        "refused": row.preview.get("refused", "") if row.state == State.DRAFT else "",
        "dead": row.preview.get("n_dead_tup"),
        "size": facts.get("Size", ""),
        "warnings": row.preview.get("warnings") or [],
        "conflicts": len(row.preview.get("conflicts") or []),
        "expected": row.preview.get("expected_seconds"),
        "seconds": seconds_of(row),
    }


def dead_of(row: Action) -> int:
    """Return the dead rows that a preview saw."""
    dead: int | None = row.preview.get("n_dead_tup")
    return dead or 0


def seconds_of(row: Action) -> float | None:
    """Return how long the statement ran, None before its end."""
    if row.started_at is None or row.finished_at is None:
        return None
    return (row.finished_at - row.started_at).total_seconds()


def tiles(rows: Sequence[Action], kind: Spec | None) -> list[Tile]:
    """Return the totals."""
    found = [*tiles_of_states(rows), *([] if kind and kind.is_signal else tiles_of_tables(rows))]
    seconds = sum(seconds_of(row) or 0 for row in rows)
    return [
        *found,
        Tile(title="Worked", value=seconds, write=figures.duration, note="sum of all"),
    ]


def tiles_of_states(rows: Sequence[Action]) -> list[Tile]:
    """Return how many rows came to what."""
    counts = batches.counts(rows)
    bad = sum(counts.get(str(state), 0) for state in (State.FAILED, State.LOST, State.EXPIRED))
    left = sum(counts.get(str(state), 0) for state in (State.SKIPPED, State.REFUSED))
    waiting = counts.get("queued", 0)
    return [
        Tile(
            title="Succeeded",
            value=counts.get("succeeded", 0),
            unit=f"of {len(rows):,}",
            level="good" if counts.get("succeeded") else "",
        ),
        Tile(title="Waiting", value=waiting, note=f"{counts.get('running', 0)} running"),
        Tile(
            title="Failed or lost",
            value=bad,
            level="critical" if bad else "",
            note=f"{counts.get('cancelled', 0)} stopped",
        ),
        Tile(
            title="Left alone",
            value=left,
            level="warning" if left else "",
            note="skipped or refused",
        ),
    ]


def tiles_of_tables(rows: Sequence[Action]) -> list[Tile]:
    """Return what maintenance brought in all."""
    numbers = [(row.before, row.after) for row in rows if row.state == State.SUCCEEDED]
    dead = sum(
        before["n_dead_tup"] - after["n_dead_tup"]
        for before, after in numbers
        if before.get("n_dead_tup") is not None and after.get("n_dead_tup") is not None
    )
    size = sum(
        (before.get("size_bytes") or 0) - (after.get("size_bytes") or 0)
        for before, after in numbers
        if after.get("size_bytes") is not None and before.get("size_bytes") is not None
    )
    return [
        Tile(
            title="Dead rows removed",
            value=max(0, dead),
            write=figures.short,
            note=f"{' '.join(words.size_parts(max(0, size)))} given back to the disk",
        ),
    ]


def exported_row(row: Action, held: str) -> dict[str, Any]:
    """Return one row of the export."""
    why = held if row.state == State.QUEUED else row.preview.get("refused", "")
    return {
        "position": row.batch_position,
        "id": str(row.pk),
        "action": row.name,
        "database": row.arguments.get("database", ""),
        "object": row.object_name,
        "sql": row.sql,
        "state": row.state,
        "outcome": row.outcome or why,
        "effect": row.effect,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "seconds": seconds_of(row),
    }
