"""The backends of a target now or then, as the pages that show them share them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from dashboard.broker import cached
from dashboard.frame.hindrance import why_not
from dashboard.frame.requests import PageRequest
from monitors.actions import ACTIONS
from monitors.advisor import marked
from monitors.collect import live
from monitors.history.freshness import around, clocks
from monitors.history.latest import read_as_of, read_latest
from monitors.history.window import Window
from monitors.kinds import PGBOUNCER
from monitors.models import Action, Target
from monitors.people import access
from monitors.rows.backend_groups import fold_workers
from monitors.rows.backends import Backend, backends_of, note_progress
from monitors.rows.lock_tree import LockTree, build_lock_tree
from monitors.rows.pooler_clients import clients_behind, is_same_work
from monitors.rows.vacuum_parts import rows_at

SIGNALS = [name for name, spec in ACTIONS.items() if spec.is_signal]
RECENT = timedelta(minutes=2)
NOT_SENT = (Action.State.DRAFT, Action.State.REFUSED, Action.State.EXPIRED, Action.State.FAILED)
SUPERUSERS = (
    "A superuser's backend can be signalled by a superuser alone, and the operator login of this target"
    " may be none."
)


@dataclass(frozen=True)
class Now:
    """All backends of a target at one moment, longest statement first."""

    backends: list[Backend]
    alone: list[Backend]
    """The same with the workers of a parallel statement at their leader."""
    tree: LockTree
    is_live: bool
    """Whether they were read for those who look, a second ago or two."""


def may_of(request: PageRequest, target: Target, window: Window) -> dict[str, Any]:
    """Return what the buttons beside backends ask: what the person may, and why not."""
    may = access.permissions_of(request.user, target)
    return {
        "may": may,
        "shows_text": "view_query_text" in may and window.is_live,
        "may_pick": [
            signal for signal in SIGNALS if not why_not(target, signal, may, is_live=window.is_live)
        ],
        "cancel_why": why_not(target, "cancel_backend", may, is_live=window.is_live),
    }


def scrub_of(target: Target, window: Window) -> dict[str, Any]:
    """Return what leads from one reading to the next: their moments, and those that the bar spans."""
    beside = around(target, "activity", window.end)
    return {
        # What is live is newer than every stored reading.
        "before": beside.shown if window.is_live else beside.before,
        "after": None if window.is_live else beside.after,
        "least": int(window.start.timestamp()),
        "now": int(window.end.timestamp()),
        "most": int(min(window.end + window.length, timezone.now()).timestamp()),
    }


def read(request: PageRequest, target: Target, window: Window) -> Now:
    """Return the backends now, or as they were where the window ends in the past."""
    if not window.is_live:
        moment = read_at(target, window.end) or window.end
        rows = read_as_of("activity", target.pk, window.end)
        return seen_at(target, rows, moment, {}, at=window.end)
    live.watch(target.pk)
    shows_text = access.may(request.user, "view_query_text", target)
    shared, stored_at = live.activity(target.pk), read_at(target)
    # A reading is shared for seconds; while the worker can't read it, the stored one is newer.
    if shared is not None and (stored_at is None or shared.read_at >= stored_at):
        texts = shared.texts if shows_text else {}
        seen = seen_at(target, shared.rows, shared.read_at, texts, is_live=True)
        for backend in seen.backends:
            backend.used = shared.used.get(backend.key, {})
        return seen
    texts = cached(f"activity:{target.pk}") or {} if shows_text else {}
    return seen_at(target, read_latest("activity", target.pk), stored_at or window.end, texts)


def seen_at(
    target: Target,
    rows: list[dict[str, Any]],
    moment: datetime,
    texts: dict[str, str],
    *,
    is_live: bool = False,
    at: datetime | None = None,
) -> Now:
    """Return backends and lock tree of some rows at a moment of the target's clock; `at` is ours, None: now."""
    backends = backends_of(marked(rows, target.logins), moment, texts)
    if at is None:  # what is done now was not done then
        answer(target, backends)
    note_superusers(target, backends)
    note_progress(backends, rows_at("progress", target, at))
    tree = build_lock_tree(backends, moment)
    return Now(backends, fold_workers(backends), tree, is_live)


def answer(target: Target, backends: list[Backend]) -> None:
    """Note on each backend what was just done to it: the snapshot may be older."""
    since = timezone.now() - RECENT
    actions = Action.objects.filter(target=target, name__in=SIGNALS, created_at__gte=since)
    for action in actions.exclude(state__in=NOT_SENT).order_by("created_at"):
        for backend in backends:
            if action.arguments == backend.guard:
                backend.answered = action


def note_superusers(target: Target, backends: list[Backend]) -> None:
    """Note which backends are beyond the operator login, where it may be no superuser."""
    if not target.allow_superuser:
        for backend in backends:
            if backend.row.get("rolsuper"):
                backend.no_signal = SUPERUSERS


def note_clients(
    request: PageRequest, target: Target, window: Window, backends: list[Backend]
) -> None:
    """Note which client of a pooler that the person may see each backend works for."""
    seen = access.visible_targets(request.user).filter(kind=PGBOUNCER, enabled=True)
    at = None if window.is_live else window.end
    clients, clock = clients_behind(target, at, list(seen)), clocks(target, "activity", at).get(0)
    skew = clock[1] - clock[0] if clock else timedelta()
    for backend in backends:
        client = clients.get(backend.pid)
        if client is not None and is_same_work(client, backend.xact_start, skew):
            backend.client = client


def read_at(target: Target, at: datetime | None = None) -> datetime | None:
    """Return when the activity was read last, now or by a past moment, by the target's clock."""
    read = clocks(target, "activity", at).get(0)
    return read[1] if read else None
