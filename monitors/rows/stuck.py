"""Stuck backends of some targets, worst first, and the targets of which that is not known now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from django.utils import timezone

from monitors import words
from monitors.advisor import Row, marked
from monitors.findings import stuck as definitions, thresholds
from monitors.findings.samples import activity_of, latest
from monitors.findings.standing import is_stale
from monitors.kinds import POSTGRES
from monitors.models import Fleet, ProbeState, Snapshot, Target
from monitors.rows.backends import Backend, backends_of, in_utc
from monitors.rows.lock_tree import blockers_of, build_lock_tree
from monitors.rules import stuck
from monitors.rules.stuck import Definition, Found

COLUMNS = (
    "target",
    "environment",
    "pid",
    "usename",
    "application_name",
    "datname",
    "client_addr",
    "stuck",
    "stuck_seconds",
    "limit_seconds",
    "definition",
    "why",
    "blocking",
    "blocked_by",
    "state",
    "wait_event_type",
    "wait_event",
    "query",
    "backend_start",
    "query_start",
    "xact_start",
    "state_change",
    "read_at",
)
PROBE = "activity"
Texts = Callable[[Target], Mapping[str, str]]
"""The running texts of a target that the reader may see, by `pid:backend_start`."""


class StuckRow(TypedDict):
    """One stuck backend; columns of pg_stat_activity keep their names."""

    target: str
    environment: str
    pid: int
    usename: str | None
    application_name: str | None
    datname: str | None
    client_addr: str | None
    stuck: str  # running, blocked, blocking or idle_in_transaction
    stuck_seconds: float
    limit_seconds: float
    definition: str  # what names it: application, user, database; '' where the target's limits hold
    why: str  # a sentence
    blocking: int
    blocked_by: list[int]
    state: str | None
    wait_event_type: str | None
    wait_event: str | None
    query: str  # literals replaced, unless the reader may see them
    backend_start: datetime
    query_start: datetime | None
    xact_start: datetime | None
    state_change: datetime | None
    read_at: datetime  # our clock


@dataclass(frozen=True)
class Seen:
    """The backends of one target as last read, with what is known of who waits and works."""

    target: Target
    backends: list[Backend]
    kept_waiting: dict[int, float]
    maintained: frozenset[int]
    read_at: datetime  # our clock


@dataclass(frozen=True)
class Line:
    """A stuck backend, of which target, and when that was read."""

    target: Target
    found: Found[Backend]
    read_at: datetime

    @property
    def backend(self) -> Backend:
        """The backend."""
        return self.found.backend

    @property
    def key(self) -> str:
        """Name it in this state, and no other one: a mark and a rule know it by that."""
        since = self.backend.row.get("query_start") or self.backend.row.get("state_change")
        began = f"{since:%Y%m%dT%H%M%S.%f}" if since else ""
        return f"{self.found.state} {self.backend.key} {began}"

    def row(self) -> StuckRow:
        """Return it as a row."""
        backend, found = self.backend.export(), self.found
        return {
            "target": self.target.name,
            "environment": self.target.environment.name,
            "pid": backend["pid"],
            "usename": backend["usename"],
            "application_name": backend["application_name"],
            "datname": backend["datname"],
            "client_addr": backend["client_addr"],
            "stuck": found.state,
            "stuck_seconds": found.seconds,
            "limit_seconds": found.limit,
            "definition": found.definition.words if found.definition else "",
            "why": why_of(found),
            "blocking": backend["blocking"],
            "blocked_by": backend["blocked_by"],
            "state": backend["state"],
            "wait_event_type": backend["wait_event_type"],
            "wait_event": backend["wait_event"],
            "query": backend["query"],
            "backend_start": backend["backend_start"],
            "query_start": backend["query_start"],
            "xact_start": backend["xact_start"],
            "state_change": backend["state_change"],
            "read_at": self.read_at,
        }


@dataclass(frozen=True)
class Unread:
    """A target of which nobody knows now what is stuck, and since when."""

    target: Target
    read_at: datetime | None
    reason: str


@dataclass(frozen=True)
class Stuck:
    """What is stuck on some targets, worst first, and the targets that are not read now."""

    lines: list[Line]
    unread: list[Unread]
    seen: list[Seen]


def why_of(found: Found[Backend]) -> str:
    """Return why a backend is stuck, in a sentence."""
    name = found.definition.words if found.definition else ""
    seconds, limit = words.duration(found.seconds), words.duration(found.limit)
    return stuck.reason(found.state, seconds, limit, name)


def no_texts(target: Target) -> Mapping[str, str]:
    """Show statements without their literals."""
    return {}


def stuck_of(
    targets: Sequence[Target], *, texts: Texts = no_texts, now: datetime | None = None
) -> Stuck:
    """Return what is stuck on some targets, as last read: a handful of queries for all of them."""
    moment = now or timezone.now()
    targets = [one for one in targets if one.kind == POSTGRES]  # a pooler has no backends
    states = {
        state.target_id: state
        for state in ProbeState.objects.filter(target__in=targets, probe=PROBE)
    }
    unread = [gap for one in targets if (gap := unread_of(one, states.get(one.pk), moment))]
    skipped = {gap.target.pk for gap in unread}
    fresh = [one for one in targets if one.pk not in skipped]
    ids = [one.pk for one in fresh]
    activity, progress = activity_of(ids), latest("progress", ids, fields=("target_id", "pid"))
    seen = [
        see(one, activity[one.pk], states[one.pk], {row["pid"] for row in progress.get(one.pk, ())})
        for one in fresh
        if activity.get(one.pk)
    ]
    fleet, known = thresholds.the_fleet(), definitions.definitions()
    lines = [line for one in seen for line in lines_of(one, known, fleet)]
    for target in {line.target.pk: line.target for line in lines}.values():
        give_texts(target, lines, texts(target))
    lines.sort(key=lambda line: stuck.rank(line.found, line.backend.blocking))
    return Stuck(lines, unread, seen)


def unread_of(target: Target, state: ProbeState | None, now: datetime) -> Unread | None:
    """Return since when and why a target's backends are not known now; None where they are."""
    read_at = state.taken_at if state else None
    if not target.enabled:
        return Unread(target, read_at, "It is disabled.")
    if target.frozen_reason:
        return Unread(target, read_at, target.frozen_reason)
    if state is None or state.taken_at is None:
        reason = state.reason if state and state.reason else "It has not been read yet."
        return Unread(target, None, reason)
    if state.state != Snapshot.State.OK:
        return Unread(target, read_at, state.reason)
    if is_stale(target, state, now):
        return Unread(target, read_at, "Nothing was tried since.")
    return None


def see(target: Target, rows: Iterable[Row], state: ProbeState, maintained: Iterable[int]) -> Seen:
    """Return the backends of a target that was read, by its own clock."""
    moment, read_at = state.target_at, state.taken_at
    assert moment is not None and read_at is not None  # noqa: S101, PT018 - it was read
    backends = backends_of(marked(rows, target.logins), moment, {})
    build_lock_tree(backends, moment)
    return Seen(target, backends, kept_waiting(backends), frozenset(maintained), read_at)


def lines_of(seen: Seen, known: Sequence[Definition], fleet: Fleet) -> list[Line]:
    """Return what is stuck on one target."""
    found = stuck.judge(
        seen.backends,
        definitions.limits_of(seen.target, fleet),
        known,
        environment_id=seen.target.environment_id,
        kept_waiting=seen.kept_waiting,
        maintained=seen.maintained,
    )
    return [Line(seen.target, one, seen.read_at) for one in found]


def kept_waiting(backends: Iterable[Backend]) -> dict[int, float]:
    """Return {pid: how long the one has waited that waits longest behind it}, where that is known."""
    waiting = [one for one in backends if one.blocked_by]
    graph = {one.pid: one.blocked_by for one in waiting}
    longest: dict[int, float] = {}
    for one in waiting:
        waited = one.waited_seconds
        for pid in blockers_of(one.pid, graph) if waited is not None else ():
            longest[pid] = max(longest.get(pid, 0.0), waited or 0.0)
    return longest


def count_stuck(targets: Sequence[Target], now: datetime) -> int:
    """Return how many backends workers last found stuck on some targets that are read now: one query."""
    by_id = {target.pk: target for target in targets}
    states = ProbeState.objects.filter(
        target__in=targets, probe=PROBE, state=Snapshot.State.OK, stuck__gt=0
    )
    return sum(
        state.stuck or 0 for state in states if not unread_of(by_id[state.target_id], state, now)
    )


def give_texts(target: Target, lines: Iterable[Line], texts: Mapping[str, str]) -> None:
    """Show a target's statements as they run, where those texts are at hand."""
    texts = {in_utc(key): text for key, text in texts.items()}
    for line in lines:
        if line.target.pk == target.pk:
            line.backend.query = texts.get(line.backend.key, line.backend.query)
