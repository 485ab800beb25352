"""Carries actions out, in a worker: claim, ask again, send, outcome, effect.

A row is claimed by one compare-and-set, so a message that is delivered five
times sends one statement. What the worker does not live to write, the sweep
finds.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import psycopg
from django.db import OperationalError, connection as history, transaction
from django.db.models import Q
from django.utils import timezone
from psycopg import errors, sql

from monitors import queue
from monitors.acting import ask, batch, connections, gates, lacking
from monitors.acting.connections import Notice, Watch
from monitors.action import Action as Spec, Changed, Guarded, Leftover, Refused, text_of
from monitors.actions import ACTIONS
from monitors.audit import entries
from monitors.collect import rounds
from monitors.history import store
from monitors.models import HISTORY, Action, Batch, Database, Snapshot, Target, TargetCheck
from monitors.people import access
from monitors.pg import backends, connect, extensions, relations
from monitors.pg.errors import DatabaseClosed, Unreachable, own_fault, reason_of
from monitors.pg.identity import Identity
from monitors.rules import verdict
from monitors.targets import logins
from monitors.targets.secrets import SecretUnreadable

log = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
REMOVE_MS = 20_000
"""How long what a failed statement left behind may take to be removed."""
REPUBLISH_AFTER = timedelta(seconds=5)
MESSAGE_SECONDS = 15
SILENT_AFTER = timedelta(seconds=15)
DRAFTS_KEPT = timedelta(days=1)
CHECK_ANSWERED_WITHIN = timedelta(seconds=60)
LOST_AT_ONCE = 20
DATABASES_AT_MOST = 20
SNAPSHOT_SECONDS = 12.0
"""For the snapshots around a statement; less than SILENT_AFTER."""
BATCH_AGAIN = timedelta(seconds=60)
"""So rarely a batch has its database read again while more of it follows."""
WRITE_AGAIN_SECONDS = (1, 2, 5, 10, 20)

State = Action.State


@dataclass(frozen=True)
class Ended:
    """How an action ended."""

    state: str
    outcome: str  # a sentence
    effect: str = ""
    after: dict[str, Any] = field(default_factory=dict)
    inverse: dict[str, Any] = field(default_factory=dict)
    read: frozenset[str] = frozenset()  # the probes that were read again


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


def spec_for(row: Action) -> Spec | None:
    """Return a row's action as it is with the row's arguments, None for an unknown one."""
    spec = ACTIONS.get(row.name)
    return spec.given(row.arguments) if spec else None


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
                return signal(hand, row, spec, statement)
        with connections.looking(address, row) as eye:
            statement = looked_at(eye, row, spec, target)
        keep_the_last(target, spec)
        with connections.sending(address, row, spec) as hand:
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
        identity = connections.check_server(connection, target, spec)
        guarded_now(connection, row, spec)
        statement = spec.statement(row.arguments, row.identity, identity.server_version)
        if text_of(statement) != row.sql:
            message = "The statement would no longer be the one that was asked for."
            raise Changed(message)
        note(row, before=spec.measure(connection, row.identity, None))
    return statement


def guarded_now(connection: psycopg.Connection, row: Action, spec: Spec) -> Guarded:
    """Run an action's guard, which learns from the identity by which `logins` Howdah comes.

    Raises Refused, Changed or psycopg.Error.
    """
    logins = row.target.logins if row.target is not None else frozenset()
    return spec.guard(connection, row.arguments, {**row.identity, "logins": logins})


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
    place = store.Place(HISTORY[spec.keeps], row.target.pk, known.pk)
    kept = store.keep_measured(place, (row.identity["relid"],), row.identity["relkind"], seen)
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


def database_of(row: Action, target: Target) -> str:
    """Return the database to act in."""
    return str(row.arguments.get("database") or target.dbname)


def database_with(row: Action, spec: Spec, target: Target) -> str:
    """Return the first database that has an action's extension; the entry database if none has."""
    included = Database.objects.filter(target=target, included=True, gone_at=None)
    names = dict.fromkeys([target.dbname, *included.values_list("datname", flat=True)])
    for name in list(names)[:DATABASES_AT_MOST]:
        try:
            with connections.looking(logins.operator_address(target, name), row) as eye:
                if extensions.find(eye, spec.extension) is not None:
                    return name
        except DatabaseClosed:
            continue
    return target.dbname


def note(row: Action, **values: Any) -> None:
    """Write down what is known of a running action."""
    for name, value in values.items():
        setattr(row, name, value)
    Action.objects.filter(pk=row.pk).update(**values)


def signal(hand: psycopg.Connection, row: Action, spec: Spec, statement: Any) -> Ended:
    """Send a guarded signal and wait until the backend has reacted."""
    rows, _ = connections.send(hand, statement, spec)
    matched, signalled = rows[0]
    if not matched:
        guarded_now(hand, row, spec)  # says what has changed, if it can
        message = "The backend had finished or changed: nothing was sent."
        raise Changed(message)
    if not signalled:
        message = "The backend ended before the signal reached it."
        raise Changed(message)
    became = settle(hand, row, spec)
    after = spec.measure(hand, row.identity, row.before)
    if not became:
        escalate = "it may be rolling back" if spec.destructive else "terminate it"
        outcome = f"The signal was sent, but the backend has not reacted in 5 s: {escalate}."
        return Ended(State.FAILED, outcome, after=after)
    released = spec.effect(row.before, after)
    effect = f"{became}; {released}" if released else became
    return Ended(State.SUCCEEDED, f"{effect[0].upper()}{effect[1:]}.", effect, after)


def settle(hand: psycopg.Connection, row: Action, spec: Spec) -> str:
    """Return what became of a backend within 5 s, '' where it is as before."""
    assert spec.settled is not None  # noqa: S101 - only signals come here
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        became = spec.settled(hand, row.identity)
        if became or time.monotonic() > deadline:
            return became
        time.sleep(0.03)


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
        notices = connections.send_patiently(hand, statement, spec, watch)
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
        connections.send_watched(hand, leftover.statement, limits, watch)
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
            return spec.measure(eye, row.identity, before)
    except (psycopg.Error, Unreachable) as error:
        log.warning("Action %s: no numbers after: %s", row.pk, type(error).__name__)
        return {}


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
    found = verdict.at_once(row.name, row.before, row.after)
    if found is not None:
        row.verdict, row.verdict_text = found.word, found.text[:300]
        row.judged_at = row.finished_at


def preview_now(action_id: str) -> None:
    """Look at the target for a draft: what it names, whether it may be done, what to know."""
    row = Action.objects.select_related("target__environment", "asked_by").get(pk=action_id)
    spec = spec_for(row)
    if spec is None or row.state != State.DRAFT or row.preview.get("ready"):
        return
    with contextlib.ExitStack() as opened:
        answer(row, spec, lambda: open_eye(opened, row, spec))


def preview_batch(batch_id: str) -> None:
    """Look at the target for every draft of a batch, over one connection a database."""
    drafts = Action.objects.select_related("target__environment", "asked_by").filter(
        batch__pk=batch_id, state=State.DRAFT, preview__ready=False
    )
    eyes: dict[str, tuple[psycopg.Connection, Identity]] = {}
    with contextlib.ExitStack() as opened:
        for row in drafts.order_by("batch_position"):
            spec = spec_for(row)
            if spec is None:
                continue
            name = row.arguments["database"]

            def eye(row: Action = row, spec: Spec = spec, name: str = name) -> Eye:
                if name not in eyes or eyes[name][0].closed:
                    eyes[name] = open_eye(opened, row, spec)
                return eyes[name]

            answer(row, spec, eye)


Eye = tuple[psycopg.Connection, Identity]


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
        return eye, connections.check_server(eye, target, spec)


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
    row: Action, spec: Spec, preview: dict[str, Any], eye: psycopg.Connection, server: Identity
) -> None:
    """Fill in a preview and the row's identity and SQL; raises as `carry_out` catches."""
    target = row.target
    assert target is not None  # noqa: S101 - an eye was opened on it
    with connect.deadline(eye, 10):
        row.identity = spec.resolve(eye, row.arguments)
        row.object_name = spec.object_name(row.arguments, row.identity)[:300]
        guarded = guarded_now(eye, row, spec)
        row.sql = text_of(spec.statement(row.arguments, row.identity, server.server_version))
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
        "facts": [list(fact) for fact in guarded.facts],
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


def sweep() -> None:
    """Find what got stuck: messages the broker lost, what expired, workers that are gone."""
    now = timezone.now()
    for row in (
        Action.objects.filter(state__in=[State.QUEUED, State.WAITING], expires_at__lte=now)
        .exclude(batch__in=gates.governed_batches())
        .select_related("approved_by")
    ):
        outcome = "No worker took it in time: nothing was sent."
        if row.state == State.WAITING:
            outcome = "Nobody approved it in time."
        elif row.batch_id:
            outcome = "Its time was over before its turn came: nothing was sent."
        end(row, [State.QUEUED, State.WAITING], State.EXPIRED, outcome)
    late = Action.objects.filter(
        Q(batch=None) | Q(target=None),
        state=State.QUEUED,
        expires_at__gt=now,
        queued_at__lt=now - REPUBLISH_AFTER,
    )
    for row in late:
        spec = ACTIONS.get(row.name)
        if spec is not None:
            queue.send("perform", str(row.pk), queue=spec.queue, expires=MESSAGE_SECONDS)
    silent = Action.objects.filter(state=State.RUNNING, beat_at__lt=now - SILENT_AFTER)
    for row in silent.select_related("target", "approved_by")[:LOST_AT_ONCE]:
        end(row, [State.RUNNING], State.LOST, what_is_left(row))
    batch.sweep()
    tidy()


def end(row: Action, states: list[State], state: State, outcome: str) -> None:
    """Give a row its final state, once, with its audit row."""
    with transaction.atomic():
        row.state = state
        row.outcome = outcome[:1000]
        row.finished_at = timezone.now()
        changed = Action.objects.filter(pk=row.pk, state__in=states).update(
            state=state, outcome=row.outcome, finished_at=row.finished_at
        )
        if changed:
            entries.add_outcome(row)


def what_is_left(row: Action) -> str:
    """Return what the target still has of an action whose worker went silent."""
    if row.target is None:
        return "Its worker went silent, and the target was removed."
    try:
        address = logins.operator_address(row.target, row.target.dbname)
        with connections.looking(address, row) as eye, connect.deadline(eye, 5):
            pids = backends.named(eye, connections.application_name(row))
    except (psycopg.Error, Unreachable, SecretUnreadable, Refused) as error:
        return f"Its worker went silent, and the target could not be asked: {reason_of(error)}"
    if pids:
        return f"Its worker went silent, but its backend still runs on the target: pid {pids[0]}."
    return (
        "Its worker went silent, and its backend is gone: the statement was ended or had ended."
        f" Nothing of it waits or runs on the target.{leftovers_of(row)}"
    )


def leftovers_of(row: Action) -> str:
    """Return what a lost statement left in its database and how to remove it, '' for nothing."""
    spec = spec_for(row)
    if spec is None or spec.leftovers is None or row.target is None:
        return ""
    try:
        address = logins.operator_address(row.target, database_of(row, row.target))
        with connections.looking(address, row) as eye, connect.deadline(eye, 5):
            left = spec.leftovers(eye, row.identity, row.before)
    except (psycopg.Error, Unreachable, SecretUnreadable, Refused) as error:
        return f" Whether it left something is not known: {reason_of(error)}"
    return "".join(
        f" It left {one.name}, which is not used: {text_of(one.statement)}." for one in left
    )


def tidy() -> None:
    """Drop old drafts, end checks that nobody answered, go on with removals."""
    now = timezone.now()
    Action.objects.filter(state=State.DRAFT, created_at__lt=now - DRAFTS_KEPT).delete()
    Batch.objects.filter(asked_at=None, created_at__lt=now - DRAFTS_KEPT).delete()
    TargetCheck.objects.filter(Q(done_at=None), asked_at__lt=now - CHECK_ANSWERED_WITHIN).update(
        done_at=now, sealed={}, error="No worker answered within 60 s: are the workers running?"
    )
    TargetCheck.objects.filter(asked_at__lt=now - DRAFTS_KEPT).delete()
    for target in Target.objects.exclude(deleting_at=None):
        queue.send("delete_target", target.pk, queue="requests", expires=MESSAGE_SECONDS)
