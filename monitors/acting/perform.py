"""Carries actions out, in a worker: claim, ask again, send, outcome, effect.

A row is claimed by one compare-and-set, so a message that is delivered five
times sends one statement. What the worker does not live to write, the sweep
finds.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
from django.db.models import Q
from django.utils import timezone
from psycopg import sql

from monitors.acting import ask, batch, connections, gates, pooler, send, signalling
from monitors.acting.guard import database_of, guarded_now, settled, spec_for
from monitors.acting.outcome import Ended, finish, hint, not_done, note, skipped
from monitors.acting.watch import Watch
from monitors.action import Action as Spec, Changed, Leftover, Refused, text_of
from monitors.actions import ACTIONS
from monitors.collect import rounds
from monitors.history.reading import Place
from monitors.history.store import keep_measured
from monitors.kinds import PGBOUNCER
from monitors.models import HISTORY, Action, Database, Snapshot, Target
from monitors.people import access
from monitors.pg import backends, connect
from monitors.pg.errors import Unreachable, own_fault, reason_of
from monitors.targets import logins
from monitors.targets.secrets import SecretUnreadable

log = logging.getLogger(__name__)

REMOVE_MS = 20_000
"""How long what a failed statement left behind may take to be removed."""
SNAPSHOT_SECONDS = 12.0
"""For the snapshots around a statement; less than SILENT_AFTER."""

State = Action.State
BATCH_AGAIN = timedelta(seconds=60)
"""So rarely a batch has its database read again while more of it follows."""


def perform(action_id: str) -> tuple[int, frozenset[str]]:
    """Carry out a queued action, unless somebody else did or it has expired.

    Returns the target's id and the probes that were read once it was done.
    """
    rows = Action.objects.select_related("target__environment", "asked_by", "approved_by")
    row = rows.get(pk=action_id)
    spec = spec_for(row)
    nothing: tuple[int, frozenset[str]] = (row.target_id or 0, frozenset())
    if spec is None or row.state != State.QUEUED:
        return nothing
    with connections.slot(spec) as free:
        if not free or not gates.may_begin(row) or not claim(row):
            return nothing
        row = rows.get(pk=action_id)  # as it was claimed, with its target and people in one read
        started = time.monotonic()
        ended: Ended | None = None
        try:
            ended = carry_out(row, spec)
        finally:  # what nobody foresaw goes on to the log, and is an outcome all the same
            ended = unforeseen(row) if ended is None else ended
            if ended.state == State.RUNNING:  # it could not be ended: the sweep goes on with that
                note(row, outcome=ended.outcome[:1000])
            else:
                finish(row, ended, seconds=time.monotonic() - started)
            if row.batch_id and row.target_id:
                batch.advance(row.target_id)
    return row.target_id or 0, ended.read


def unforeseen(row: Action) -> Ended:
    """Return how an action ended whose worker is just raising what nobody foresaw."""
    if row.backend_pid is None and ACTIONS[row.name].settled is None:
        sent = "Nothing was sent"
    else:
        sent = "Whether it was done is not known"
    return Ended(State.FAILED, f"{sent}: {own_fault(sys.exception())}")


def claim(row: Action) -> bool:
    """Take a queued row; False where it is taken, over or expired."""
    now = timezone.now()
    waits = Q(state=State.QUEUED, expires_at__gt=now)
    if row.batch_id and row.target_id:
        return batch.claim(row, waits)
    rows = Action.objects.filter(waits, pk=row.pk)
    return bool(rows.update(state=State.RUNNING, started_at=now, beat_at=now))


def carry_out(row: Action, spec: Spec) -> Ended:
    """Ask every question again, send the statement and return what came of it."""
    try:
        target = still_allowed(row, spec)
        address = logins.operator_address(target, database_of(row, target))
        if spec.settled is not None:
            # Somebody waits for it: the connection that sends it also looks before.
            with connections.HANDS.signalling(address, row, spec) as hand:
                statement = looked_at(hand, row, spec, target)
                return signalling.signal(hand, row, spec, statement, still_allowed)
        with connections.looking(address, row) as eye:
            statement = looked_at(eye, row, spec, target)
        keep_the_last(target, spec)
        with connections.sending(address, row, spec) as hand:
            if spec.kind == PGBOUNCER:
                ended = pooler.command(hand, row, spec, statement)
            else:
                ended = maintain(hand, address, row, spec, statement)
        ended = look_again(row, target, spec, ended)
        keep_result(row, spec, ended)
        return ended
    except Refused as error:
        return Ended(State.REFUSED, str(error))
    except Changed as error:
        return Ended(State.SKIPPED, str(error))
    except (Unreachable, SecretUnreadable) as error:
        return Ended(State.FAILED, f"Nothing was sent: {error}")
    except psycopg.Error as error:
        return Ended(State.FAILED, reason_of(error) + hint(error, row, spec))


def looked_at(
    connection: psycopg.Connection, row: Action, spec: Spec, target: Target
) -> sql.Composed:
    """Ask the server everything again, note the numbers before, and return the statement.

    Raises Refused, Changed, psycopg.Error or Unreachable.
    """
    with connect.deadline(connection, 30):
        version = connections.version_checked(connection, target, spec)
        guarded_now(connection, row, spec)
        statement = spec.statement(row.arguments, row.identity, version)
        if text_of(statement) != row.sql:
            message = "The statement would no longer be the one that was asked for."
            raise Changed(message)
        note(row, before=settled(row, spec.measure(connection, row.identity, None)))
    return statement


def keep_the_last(target: Target, spec: Spec) -> None:
    """Store a last snapshot of what a statement will destroy; raises Refused where that fails."""
    if not spec.before:
        return
    taken = rounds.take_now(target, [spec.before], seconds=SNAPSHOT_SECONDS)
    failed = [found for found in taken if found.state != Snapshot.State.OK]
    if failed or not taken:
        reason = failed[0].error if failed else f"There is no probe {spec.before}."
        message = f"Nothing was sent, since no last snapshot could be stored: {reason}"
        raise Refused(message)


def is_soon_again(row: Action) -> bool:
    """Tell whether more of a batch follows and its database was just read: hundreds may follow."""
    if row.batch_id is None:
        return False
    others = Action.objects.filter(batch=row.batch_id).exclude(pk=row.pk)
    just_now = timezone.now() - BATCH_AGAIN
    return (
        others.exclude(state__in=Action.FINAL).exists()
        and others.filter(state=State.SUCCEEDED, finished_at__gt=just_now).exists()
    )


def look_again(row: Action, target: Target, spec: Spec, ended: Ended) -> Ended:
    """Read what a statement changed, so that the history shows it at once; note what was read."""
    if not spec.after or ended.state != State.SUCCEEDED or is_soon_again(row):
        return ended
    database = str(row.arguments.get("database", ""))
    read = rounds.take_now(target, list(spec.after), seconds=SNAPSHOT_SECONDS, database=database)
    for found in read:
        if found.state != Snapshot.State.OK:
            log.warning("%s: %s after %s: %s", target.name, found.probe, spec.name, found.error)
    return replace(ended, read=frozenset(rounds.good(read)))


def keep_result(row: Action, spec: Spec, ended: Ended) -> None:
    """Keep what a statement measured in the history of its object, where that is known."""
    seen, database = ended.after.get("seen"), database_of(row, row.target) if row.target else ""
    if not spec.keeps or ended.state != State.SUCCEEDED or not seen:
        return
    known = Database.objects.filter(target=row.target, datname=database, gone_at=None).first()
    if known is None or row.target is None:
        return
    place = Place(HISTORY[spec.keeps], row.target.pk, known.pk)
    kept = keep_measured(place, (row.identity["relid"],), row.identity["relkind"], seen)
    if not kept:
        log.warning("%s: %s is not in the history yet", row.target.name, row.object_name)


def still_allowed(row: Action, spec: Spec) -> Target:
    """Return the row's target; raises Refused where actor, approver or target changed since."""
    target = row.target
    if target is None:
        message = f"The target {row.target_name} was removed."
        raise Refused(message)
    if row.asked_by is None or not access.may(row.asked_by, spec.name, target):
        message = f"{row.asked_by_name} may not {spec.name} on {target.name} any more."
        raise Refused(message)
    if spec.second_person and target.environment.protected:
        second = row.approved_by
        if second is None or second == row.asked_by or not access.may(second, "approve", target):
            message = f"{target.environment.name} is protected: a second person must approve."
            raise Refused(message)
    reason = ask.reason_not_to_act(target, spec)
    if reason:
        raise Refused(reason)
    return target


def maintain(
    hand: psycopg.Connection,
    address: connect.Address,
    row: Action,
    spec: Spec,
    statement: Any,
) -> Ended:
    """Send a long statement, watch it, and measure what it did."""
    pid, start = backends.own(hand)
    note(row, backend_pid=pid, backend_start=start)
    watch = Watch(row, address, pid, start, hand.info.server_version)
    try:
        notices = send.send_patiently(hand, statement, spec, watch)
    except (psycopg.Error, Unreachable) as error:
        ended = not_done(error, hand, row, spec, watch)
        return cleared(ended, hand, row, spec, watch)
    else:
        skips = [notice.text for notice in notices if notice.skips]
        nothing = skips and not spec.partly
        after = measured(watch, row, spec, None if nothing else row.before)
        after |= spec.result(watch.rows)
    finally:
        watch.close()
    if skips and not spec.partly:
        return Ended(State.SKIPPED, skipped(skips, row, notices), after=after)
    effect = spec.effect(row.before, after)
    outcome = effect[:1].upper() + effect[1:] + "." if effect else "Done."
    if skips:
        outcome = f"{outcome} The server left out: {'; '.join(dict.fromkeys(skips))}."
    inverse = spec.inverse(row.arguments, row.identity, row.before) if spec.inverse else {}
    return Ended(State.SUCCEEDED, outcome, effect, after, inverse)


def cleared(ended: Ended, hand: psycopg.Connection, row: Action, spec: Spec, watch: Watch) -> Ended:
    """Remove what a failed statement left behind, and say in its outcome what became of that."""
    if spec.leftovers is None:
        return ended
    try:
        eye = watch.open_eye()
        with connect.deadline(eye, 10):
            left = spec.leftovers(eye, row.identity, row.before)
    except (psycopg.Error, Unreachable) as error:
        said = [f"Whether it left something is not known: {reason_of(error)}"]
    else:
        said = [remove(leftover, hand, spec, watch) for leftover in left]
    return replace(ended, outcome=" ".join([ended.outcome, *said]))


def remove(leftover: Leftover, hand: psycopg.Connection, spec: Spec, watch: Watch) -> str:
    """Send what removes a leftover; return a sentence that says whether it is gone."""
    text = text_of(leftover.statement)
    if hand.broken or hand.closed:
        return f"It left {leftover.name}, which is not used: {text}."
    limits = replace(spec, statement_timeout_ms=REMOVE_MS, lock_timeout_ms=REMOVE_MS)
    try:
        backends.limit(hand, REMOVE_MS)
        send.send_watched(hand, leftover.statement, limits, watch)
    except (psycopg.Error, Unreachable) as error:
        why = reason_of(error).rstrip(".")
        return (
            f"It left {leftover.name}, which is not used and could not be dropped ({why}): {text}."
        )
    return f"It left {leftover.name}, which was dropped."


def measured(
    watch: Watch, row: Action, spec: Spec, before: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the numbers after; {} where the target does not tell them any more.

    Without numbers before, as where nothing was done, no change is waited for.
    """
    try:
        eye = watch.open_eye()
        with connect.deadline(eye, 10):
            return settled(row, spec.measure(eye, row.identity, before))
    except (psycopg.Error, Unreachable) as error:
        log.warning("Action %s: no numbers after: %s", row.pk, type(error).__name__)
        return {}
