"""Signals: sent once, waited for, and followed by a stronger one where the action says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.utils import timezone

from monitors.acting import send
from monitors.acting.guard import guarded_now, settled
from monitors.acting.outcome import Ended, note
from monitors.action import Action as Spec, Changed, Refused
from monitors.models import Action, Target
from monitors.pg import backends

SETTLE_SECONDS = 5.0

State = Action.State
Allowed = Callable[[Action, Spec], Target]
"""Asks again whether an action may go on; raises Refused."""


def signal(
    hand: psycopg.Connection, row: Action, spec: Spec, statement: Any, still_allowed: Allowed
) -> Ended:
    """Send a guarded signal and wait until the backend has reacted."""
    rows, _ = send.send(hand, statement, spec)
    matched, signalled = rows[0]
    if not matched:
        guarded_now(hand, row, spec)  # says what has changed, if it can
        message = "The backend had finished or changed: nothing was sent."
        raise Changed(message)
    if not signalled:
        message = "The backend ended before the signal reached it."
        raise Changed(message)
    sent_at = stamp()
    became = settle(hand, row, spec)
    stronger = spec.escalation(row.arguments)
    if stronger is not None:
        if not became:
            return escalate(hand, row, spec, stronger, sent_at, still_allowed)
        became = f"cancel sent at {sent_at}, {became}"
    return told(hand, row, spec, became)


def told(hand: psycopg.Connection, row: Action, spec: Spec, became: str) -> Ended:
    """Return how a signal ended, with whom it released; `became` is '' where nothing changed."""
    after = settled(row, spec.measure(hand, row.identity, row.before))
    if not became:
        why = why_it_stays(hand, row, spec)
        outcome = f"The signal was sent, but the backend has not reacted in 5 s: {why}."
        return Ended(State.FAILED, outcome, after=after)
    released = spec.effect(row.before, after)
    effect = f"{became}; {released}" if released else became
    return Ended(State.SUCCEEDED, f"{effect[0].upper()}{effect[1:]}.", effect, after)


def why_it_stays(hand: psycopg.Connection, row: Action, spec: Spec) -> str:
    """Return what may keep a backend from reacting to a signal, and what helps."""
    if spec.destructive:
        return "it may be rolling back"
    backend = backends.find(hand, int(row.identity["pid"]))
    if backend is not None and backend.awaits_client:
        return f"it waits for its client ({backend.waits}), which no cancel ends; terminate it"
    return "terminate it"


def escalate(
    hand: psycopg.Connection,
    row: Action,
    spec: Spec,
    stronger: Any,
    sent_at: str,
    still_allowed: Allowed,
) -> Ended:
    """Send the stronger signal, unless somebody stopped the action or lost the right meanwhile."""
    said = f"cancel sent at {sent_at}, still running after {SETTLE_SECONDS:.0f} s"
    note(row, beat_at=timezone.now())
    row.refresh_from_db(fields=["stop_asked_by"])
    if row.stop_asked_by:
        text = f"{said}, not terminated: stopped by {row.stop_asked_by}"
        return Ended(State.CANCELLED, f"{text[0].upper()}{text[1:]}.")
    try:
        still_allowed(row, spec)
    except Refused as error:
        return Ended(State.FAILED, f"{said[0].upper()}{said[1:]}, not terminated: {error}")
    rows, _ = send.send(hand, stronger, spec)
    matched, signalled = rows[0]
    if not matched or not signalled:  # it ended between the look and the signal
        became = settle(hand, row, spec) or "the session is gone"
        return told(hand, row, spec, f"{said}, {became}: nothing was terminated")
    gone_by = stamp()
    became = gone(hand, row, spec)
    if not became:
        after = settled(row, spec.measure(hand, row.identity, row.before))
        text = f"{said}, terminated at {gone_by}, still there after 5 s: it may be rolling back"
        return Ended(State.FAILED, f"{text[0].upper()}{text[1:]}.", after=after)
    return told(hand, row, spec, f"{said}, terminated at {gone_by}, {became}")


def gone(hand: psycopg.Connection, row: Action, spec: Spec) -> str:
    """Wait for the end of a session, which a terminated statement comes before; '' while it is there."""
    times = {name: row.identity[name] for name in ("pid", "backend_start")}
    return settle(hand, row, spec, times)


def settle(
    hand: psycopg.Connection, row: Action, spec: Spec, identity: dict[str, Any] | None = None
) -> str:
    """Return what became of a backend within 5 s, '' where it is as before."""
    assert spec.settled is not None  # noqa: S101 - only signals come here
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        became = spec.settled(hand, identity or row.identity)
        if became or time.monotonic() > deadline:
            return became
        time.sleep(0.03)


def stamp() -> str:
    """Return the time of day, to the second."""
    return f"{timezone.now():%H:%M:%S} UTC"
