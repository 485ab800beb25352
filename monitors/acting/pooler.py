"""Sends a pooler's console its commands, and ends what holds its clients back: always, by whomever.

A command that is `held` (a pause) runs as long as it is held: its worker beats, and where that
falls silent the sweep sends what ends it, again until the pooler has answered.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import psycopg
from django.db import DatabaseError, connection as history
from django.utils import timezone
from psycopg import sql

from monitors.acting import connections
from monitors.acting.outcome import Ended, note
from monitors.action import Action as Spec, Measured, Refused
from monitors.models import Action
from monitors.pg import connect, console
from monitors.pg.errors import Unreachable, reason_of
from monitors.targets import logins
from monitors.targets.secrets import SecretUnreadable

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
RELEASE_SECONDS = 5.0
RELEASE_TRIES = 5
GIVE_UP_AFTER = timedelta(days=1)
"""A pooler that does not answer for so long is no longer asked to resume."""

State = Action.State


def command(hand: psycopg.Connection, row: Action, spec: Spec, statement: sql.Composed) -> Ended:
    """Send a command and return what came of it; raises psycopg.Error, Unreachable."""
    text = statement.as_bytes(None)
    if spec.release is None:
        with connect.deadline(hand, spec.statement_timeout_ms / 1000):
            console.send(hand, text)
        return done(hand, row, spec)
    return hold(hand, row, spec, text)


def done(hand: psycopg.Connection, row: Action, spec: Spec) -> Ended:
    """Return the outcome of a command that was carried out, with the numbers after."""
    with connect.deadline(hand, 15):
        after = spec.measure(hand, row.identity, row.before)
    effect = spec.effect(row.before, after)
    outcome = effect[:1].upper() + effect[1:] + "." if effect else "Done."
    return Ended(State.SUCCEEDED, outcome, effect, after)


def hold(hand: psycopg.Connection, row: Action, spec: Spec, text: bytes) -> Ended:
    """Send a command, keep it for its seconds or until it is stopped, and end it whatever happens."""
    seconds = spec.held_seconds(row.arguments)
    ends = time.monotonic() + seconds
    held, problem = False, ""
    address = address_of(row)  # as it is now: the target may be changed, or removed, meanwhile
    try:
        console.begin(hand, text)
        while time.monotonic() < ends and not is_stopped(row, seconds - (ends - time.monotonic())):
            pause = min(BEAT_SECONDS, max(ends - time.monotonic(), 0.0))
            if held:
                time.sleep(pause)
            else:
                held = console.is_done(hand, pause)
    except (psycopg.Error, Unreachable) as error:
        problem = reason_of(error)
    finally:
        hand.close()  # it may still wait for its answer
        released = release(row, spec, address, RELEASE_TRIES)
    return ended(row, spec, address, held=held, problem=problem, released=released)


def ended(
    row: Action, spec: Spec, address: connect.Address, *, held: bool, problem: str, released: str
) -> Ended:
    """Return how a command ended that was held; RUNNING where it could not be ended."""
    if released:
        said = (
            f"It could not be ended: {released} The sweep tries again each few seconds; by hand, on"
            f" the console: {text_of_release(row, spec)}"
        )
        return Ended(State.RUNNING, said)
    row.refresh_from_db(fields=["stop_asked_by"])
    after = numbers_after(row, spec, address)
    effect = spec.effect(row.before, after) if after else ""
    if problem:
        return Ended(State.FAILED, f"{problem} It is ended again.", after=after)
    if not held:
        return Ended(
            State.FAILED,
            "Its clients did not come to rest in that time, so it never held; it is ended again.",
            after=after,
        )
    if row.stop_asked_by:
        return Ended(
            State.SUCCEEDED, f"Ended early by {row.stop_asked_by}: {effect}.", effect, after
        )
    return Ended(
        State.SUCCEEDED, f"{effect[:1].upper()}{effect[1:]}." if effect else "Done.", effect, after
    )


def is_stopped(row: Action, elapsed: float) -> bool:
    """Give a sign of life; tell whether somebody wants it ended."""
    progress = {"phase": "held", "elapsed_seconds": round(elapsed, 1)}
    try:
        note(row, progress=progress, beat_at=timezone.now())
        row.refresh_from_db(fields=["stop_asked_by"])
    except DatabaseError as error:
        log.warning("Action %s: no sign of life written: %s", row.pk, type(error).__name__)
        history.close()
    return bool(row.stop_asked_by)


def address_of(row: Action) -> connect.Address:
    """Return where and as whom to act on a row's target; raises Refused, SecretUnreadable."""
    if row.target is None:
        message = f"The target {row.target_name} was removed."
        raise Refused(message)
    return logins.operator_address(row.target, console.DATABASE)


def release(row: Action, spec: Spec, address: connect.Address, tries: int = 1) -> str:
    """End what a row holds; return why that failed, '' where nothing holds any more."""
    reason = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(1)
        reason = try_release(row, spec, address)
        if not reason:
            return ""
        log.warning("Action %s: not ended: %s", row.pk, reason)
    return reason


def try_release(row: Action, spec: Spec, address: connect.Address) -> str:
    """Send once, over a connection of its own, what ends a row; return why it failed."""
    if spec.release is None:
        return ""
    statement = spec.release(row.arguments, row.identity)
    try:
        with (
            connections.looking(address, row) as hand,
            connect.deadline(hand, RELEASE_SECONDS),
        ):
            console.send(hand, statement.as_bytes(None))
    except psycopg.errors.ProtocolViolation as error:
        # It holds no more, or is gone: somebody else has ended it.
        return "" if console.is_nothing_to_end(error) else reason_of(error)
    except (psycopg.Error, Unreachable) as error:
        return reason_of(error)
    return ""


def numbers_after(row: Action, spec: Spec, address: connect.Address) -> Measured:
    """Return the numbers after, {} where the pooler does not tell them."""
    try:
        with connections.looking(address, row) as eye, connect.deadline(eye, 10):
            return spec.measure(eye, row.identity, row.before)
    except (psycopg.Error, Unreachable) as error:
        log.warning("Action %s: no numbers after: %s", row.pk, reason_of(error))
        return {}


def text_of_release(row: Action, spec: Spec) -> str:
    """Return what ends a row, as somebody types it."""
    return spec.release(row.arguments, row.identity).as_string(None) if spec.release else ""


def end_lost(row: Action, spec: Spec) -> str:
    """End what a row whose worker is gone holds back; return its outcome, '' to try again later."""
    try:
        why = release(row, spec, address_of(row))
    except (SecretUnreadable, Refused) as error:
        why = str(error)
    text = text_of_release(row, spec)
    if not why:
        return f"Its worker went silent. {text} was sent: nothing is held back by it any more."
    if row.started_at is not None and row.started_at > timezone.now() - GIVE_UP_AFTER:
        return ""
    return f"Its worker went silent, and {text} could not be sent for a day: {why}"
