"""How an action ended: its state and sentence, kept with what was measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import OperationalError, connection as history, transaction
from django.utils import timezone
from psycopg import errors

from monitors.acting import lacking
from monitors.acting.guard import database_of
from monitors.acting.send import Notice
from monitors.acting.watch import Watch
from monitors.action import Action as Spec
from monitors.actions import ACTIONS
from monitors.audit import entries
from monitors.models import Action
from monitors.pg import relations
from monitors.pg.errors import Unreachable, reason_of

State = Action.State

log = logging.getLogger(__name__)
WRITE_AGAIN_SECONDS = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Ended:
    """How an action ended."""

    state: str
    outcome: str  # a sentence
    effect: str = ""
    after: dict[str, Any] = field(default_factory=dict)
    inverse: dict[str, Any] = field(default_factory=dict)
    read: frozenset[str] = frozenset()  # the probes that were read again


def note(row: Action, **values: Any) -> None:
    """Write down what is known of a running action."""
    for name, value in values.items():
        setattr(row, name, value)
    Action.objects.filter(pk=row.pk).update(**values)


def skipped(texts: Sequence[str], row: Action, notices: Sequence[Notice]) -> str:
    """Return what the server said it left out, and what would change that."""
    said = "; ".join(dict.fromkeys(text.strip() for text in texts))
    locked = any(notice.sqlstate == "55P03" for notice in notices)
    needs = ""
    if not locked and row.target is not None:
        needs = lacking.find_remedy(row, ACTIONS[row.name], database_of(row, row.target))
    return f"The server skipped it: {said}. {needs}".rstrip()[:1000]


def not_done(
    error: Exception, hand: psycopg.Connection, row: Action, spec: Spec, watch: Watch
) -> Ended:
    """Return how a statement ended that raised."""
    if watch.stopped and isinstance(error, errors.QueryCanceled):
        row.refresh_from_db(fields=["stop_asked_by"])
        return Ended(State.CANCELLED, f"Stopped by {row.stop_asked_by} while it ran.")
    if isinstance(error, errors.LockNotAvailable):
        return locked(row, spec, watch)
    if isinstance(error, errors.QueryCanceled):
        limit = spec.statement_timeout_ms // 1000
        return Ended(
            State.FAILED,
            f"The statement was cancelled, by its time limit of {limit:,} s or by somebody"
            " on the server.",
        )
    if hand.broken or isinstance(error, Unreachable):
        return Ended(
            State.LOST,
            f"The connection broke while it ran: {reason_of(error)} Look at the table:"
            " whether it was done is not known.",
        )
    return Ended(State.FAILED, reason_of(error) + hint(error, row, spec))


def locked(row: Action, spec: Spec, watch: Watch) -> Ended:
    """Return that the table's lock was not free, with whom it waited for."""
    blockers = watch.blockers
    swaps = bool(spec.swap_lock) and watch.phase == spec.swap_phase
    lock = spec.swap_lock if swaps else spec.lock
    try:
        eye = watch.open_eye()
        if lock and not blockers:
            blockers = relations.holders(eye, row.identity["relid"], lock)
    except (psycopg.Error, Unreachable) as error:
        log.warning("Action %s: blockers unknown: %s", row.pk, type(error).__name__)
    who = ", ".join(
        f"pid {found['pid']} ({found['application_name'] or found['usename'] or 'unnamed'})"
        for found in blockers[:5]
    )
    seconds = f"{spec.lock_timeout_ms // 1000} s"
    if spec.tries > 1:
        seconds = f"{spec.tries} times {seconds}"
    what = "The table's lock" if spec.lock else "A lock"
    if spec.swap_lock and not swaps:
        what = "What it waits for before it begins"
    outcome = f"{what} was not free within {seconds}: {who or 'its holder is gone'}."
    if swaps:
        outcome += (
            " All its work was lost, and the table is as before: ask again when nobody holds it"
            " for long, or with more wait_seconds."
        )
    return Ended(State.FAILED, outcome, after={"sqlstate": "55P03", "blockers": blockers})


def hint(error: Exception, row: Action, spec: Spec) -> str:
    """Return what gives the right that was missing, '' for another error or where none is known."""
    if not isinstance(error, errors.InsufficientPrivilege) or row.target is None:
        return ""
    needs = lacking.find_remedy(row, spec, database_of(row, row.target), error)
    return f" {needs}" if needs else ""


def finish(row: Action, ended: Ended, *, seconds: float) -> None:
    """Write the outcome and its audit row together; tries for a while where that fails.

    A row that was declared lost meanwhile still gets its true outcome.
    """
    for pause in (*WRITE_AGAIN_SECONDS, None):
        try:
            write(row, ended, seconds)
        except OperationalError as error:
            log.warning("Action %s: outcome not written: %s", row.pk, type(error).__name__)
            history.close()
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


def write(row: Action, ended: Ended, seconds: float) -> None:
    """Write an outcome, unless the row has one already."""
    with transaction.atomic():
        row.state = State(ended.state)
        row.outcome = ended.outcome[:1000]
        row.effect = ended.effect[:300]
        row.after = ended.after
        row.inverse = ended.inverse
        row.finished_at = timezone.now()
        judge(row)
        changed = Action.objects.filter(pk=row.pk, state__in=[State.RUNNING, State.LOST]).update(
            state=row.state,
            outcome=row.outcome,
            effect=row.effect,
            after=row.after,
            verdict=row.verdict,
            verdict_text=row.verdict_text,
            judged_at=row.judged_at,
            inverse=row.inverse,
            finished_at=row.finished_at,
        )
        if changed:
            entries.add_outcome(row, seconds=f"{seconds:.1f}")


def judge(row: Action) -> None:
    """Say whether it helped, where the numbers before and after tell that at once."""
    if row.state != State.SUCCEEDED:
        return
    found = ACTIONS[row.name].judge(row.before, row.after)
    if found is not None:
        row.verdict, row.verdict_text = found.word, found.text[:300]
        row.judged_at = row.finished_at
