"""A preview: the target is looked at, and nothing is sent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import psycopg

from monitors.acting import connections, known
from monitors.acting.guard import Eye, database_of, database_with, guarded_now, spec_for
from monitors.acting.outcome import hint
from monitors.action import Action as Spec, Changed, Guarded, Refused, text_of
from monitors.audit import entries
from monitors.models import Action
from monitors.people import access
from monitors.pg import connect
from monitors.pg.errors import Unreachable, own_fault, reason_of
from monitors.targets import logins
from monitors.targets.secrets import SecretUnreadable

State = Action.State


def preview_now(action_id: str) -> None:
    """Look at the target for a draft: what it names, whether it may be done, what to know."""
    row = Action.objects.select_related("target__environment", "asked_by").get(pk=action_id)
    spec = spec_for(row)
    if spec is None or row.state != State.DRAFT or row.preview.get("ready"):
        return
    with contextlib.ExitStack() as opened:
        answer(row, spec, lambda: open_eye(opened, row, spec))


def preview_batch(batch_id: str) -> None:
    """Look at the target for every draft of a batch, over one connection a database.

    Backends name none: of all of them the target's entry database is asked.
    """
    drafts = Action.objects.select_related("target__environment", "asked_by").filter(
        batch__pk=batch_id, state=State.DRAFT, preview__ready=False
    )
    eyes: dict[str, Eye] = {}
    with contextlib.ExitStack() as opened:
        for row in drafts.order_by("batch_position"):
            spec = spec_for(row)
            if spec is None:
                continue
            name = str(row.arguments.get("database", ""))

            def eye(row: Action = row, spec: Spec = spec, name: str = name) -> Eye:
                if name not in eyes or eyes[name][0].closed:
                    eyes[name] = open_eye(opened, row, spec)
                return eyes[name]

            answer(row, spec, eye)


def open_eye(opened: contextlib.ExitStack, row: Action, spec: Spec) -> Eye:
    """Return a connection that looks at the row's database, and who answers there.

    Raises Refused, SecretUnreadable or Unreachable.
    """
    target = row.target
    if target is None or row.asked_by is None or not access.may(row.asked_by, spec.name, target):
        message = f"{row.asked_by_name} may not {spec.name} on {row.target_name}."
        raise Refused(message)
    if spec.extension and "database" not in row.arguments:
        row.arguments = {**row.arguments, "database": database_with(row, spec, target)}
    address = logins.operator_address(target, database_of(row, target))
    eye = opened.enter_context(connections.looking(address, row))
    with connect.deadline(eye, 10):
        return eye, connections.version_checked(eye, target, spec)


def answer(row: Action, spec: Spec, open_it: Callable[[], Eye]) -> None:
    """Look for a draft and save what was seen, or why nothing may be done."""
    preview: dict[str, Any] = {"ready": True, "refused": "", "lock": spec.lock}
    if spec.swap_lock:
        preview["swap_lock"] = spec.swap_lock
    try:
        look(row, spec, preview, *open_it())
    except (Refused, Changed) as error:
        preview["refused"] = str(error)
        entries.add(
            row.name,
            row.asked_by_name,
            row.asked_from,
            target_name=row.target_name,
            object_name=row.object_name,
            reason=str(error),
            result="refused",
        )
    except (Unreachable, SecretUnreadable, psycopg.Error) as error:
        preview["refused"] = (
            f"{row.target_name} could not be asked: {reason_of(error)}{hint(error, row, spec)}"
        )
        preview["unreachable"] = True
    finally:
        if fault := sys.exception():
            preview["refused"] = f"{row.target_name} could not be looked at: {own_fault(fault)}"
        Action.objects.filter(pk=row.pk, state=State.DRAFT).update(
            preview=preview,
            arguments=row.arguments,
            identity=row.identity,
            sql=row.sql,
            object_name=row.object_name,
        )


def look(
    row: Action, spec: Spec, preview: dict[str, Any], eye: psycopg.Connection, version: int
) -> None:
    """Fill in a preview and the row's identity and SQL; raises as `carry_out` catches."""
    target = row.target
    assert target is not None  # noqa: S101 - an eye was opened on it
    with connect.deadline(eye, 10):
        row.identity = spec.resolve(eye, row.arguments)
        row.object_name = spec.object_name(row.arguments, row.identity)[:300]
        guarded = guarded_now(eye, row, spec)
        row.sql = text_of(spec.statement(row.arguments, row.identity, version))
    preview |= shown(guarded)
    preview |= {
        "sql": row.sql,
        "expected_seconds": expected_seconds(row),
        "second_person": spec.second_person and target.environment.protected,
        "reason_required": target.environment.reason_required,
    }


def shown(guarded: Guarded) -> dict[str, Any]:
    """Return what a guard saw as a preview keeps it."""
    return {
        "facts": [list(fact) for fact in (*guarded.facts, *known.facts_of(guarded.numbers))],
        "n_dead_tup": guarded.numbers.get("n_dead_tup"),
        "conflicts": guarded.conflicts[:50],
        "warnings": guarded.warnings,
    }


def expected_seconds(row: Action) -> float | None:
    """Return how long the same took when it last succeeded, None where it never did."""
    if "relid" not in row.identity:
        return None
    last = (
        Action.objects.filter(
            name=row.name,
            target=row.target,
            identity__relid=row.identity["relid"],
            identity__datid=row.identity["datid"],
            state=State.SUCCEEDED,
        )
        .order_by("-finished_at")
        .first()
    )
    if last is None or last.started_at is None or last.finished_at is None:
        return None
    return round((last.finished_at - last.started_at).total_seconds(), 1)
