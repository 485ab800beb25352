"""The targets of a fleet as its page and export show them: one row a target.

Long, since servers and poolers are one list, and their figures are read for all at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from django.db.models import Sum
from django.utils import timezone

from monitors.advisor import Finding, Severity
from monitors.findings import judge, unknowns
from monitors.findings.standing import is_stale
from monitors.history.freshness import STALE_INTERVALS, clocks, interval_of
from monitors.history.latest import read_as_of
from monitors.history.window import Window
from monitors.kinds import PGBOUNCER, POSTGRES
from monitors.models import HISTORY, ProbeState, Snapshot, Target
from monitors.probe import Reading
from monitors.rules import connections as rules
from monitors.rules.wraparound import is_invalid

COLUMNS = (
    "name",
    "kind",
    "environment",
    "host",
    "port",
    "server_version",
    "in_recovery",
    "state",
    "since",
    "reason",
    "critical",
    "warning",
    "notice",
    "worst",
    "connections",
    "usable_connections",
    "longest_xact_seconds",
    "blocked",
    "n_dead_tup",
    "xid_age",
    "waiting",
    "longest_wait_seconds",
    "read_at",
)
"""Keys of the export, in order."""

WATCHED = "sessions"
POOLS = "pooler_pools"
"""The same of a pooler."""
SHOWN = {WATCHED: HISTORY[WATCHED].sample.facts, "databases": ("datconnlimit",)}
"""Columns beside gauges that a fleet's rows need."""

SAID_BY_FLEET = (unknowns.STATEMENTS, unknowns.COUNTS)
"""What keeps a target with no finding from being called well."""

NEAR_PCT, FULL_PCT = 80, 95  # of the usable connections


class Figures(TypedDict):
    """What is registered and was read of a target; what was not read is None."""

    target: Target
    name: str
    kind: str
    environment: str
    host: str
    port: int
    server_version: int | None
    in_recovery: bool | None
    connections: int | None  # of a pooler: its clients
    usable_connections: int | None
    used_pct: float | None  # of the usable connections
    blocked: int | None
    xid_age: int | None
    oldest_xact_start: datetime | None  # None too where no transaction is open
    waiting: int | None  # clients of a pooler, as the next one; None for a server
    longest_wait_seconds: float | None


class Answer(TypedDict):
    """Whether a target answers."""

    state: str
    """up, down, failing (it answers, but a right or the read fails), stale (nothing was tried for
    three intervals), unread, disabled or past."""
    since: datetime | None
    reason: str
    read_at: datetime | None


class Counts(TypedDict):
    """The findings that count, how many of each level, and the worst one's words."""

    critical: int
    warning: int
    notice: int
    findings: list[Finding]
    finding: Finding | None
    worst: str
    worst_level: str


class FleetRow(Figures, Answer, Counts):
    """One target as the fleet shows it."""

    level: str  # of its worst finding, or of how it is read
    unknown: str  # why it can't be called well without findings; '' where it can
    longest_xact_seconds: float | None
    n_dead_tup: int | None


def rows_of(
    probe_name: str, targets: Sequence[Target], window: Window
) -> Mapping[int, Sequence[Reading]]:
    """Return {target id: rows of a probe}, now or at the end of a window in the past."""
    if not window.is_live:
        return {target.pk: read_as_of(probe_name, target.pk, window.end) for target in targets}
    found: dict[int, list[Reading]] = defaultdict(list)
    latest = HISTORY[probe_name].latest._default_manager
    wanted = [target.pk for target in targets]
    names = (*HISTORY[probe_name].sample.key, *HISTORY[probe_name].sample.gauges)
    facts = SHOWN.get(probe_name, ())
    for row in latest.filter(target_id__in=wanted, gone_at__isnull=True).values(
        "target_id", "database_id", *names, *facts
    ):
        found[row["target_id"]].append(row)
    return found


def dead_rows(targets: Sequence[Target], window: Window) -> dict[int, int]:
    """Return {target id: dead rows of all tables, TOAST included} where it is known.

    It is not on a standby, nor where track_counts is off.
    """
    targets = [target for target in targets if unknowns.counts_rows(target.settings)]
    if window.is_live:
        latest = HISTORY["tables"].latest._default_manager
        wanted = [target.pk for target in targets]
        read = ProbeState.objects.filter(
            target_id__in=wanted, probe="tables", taken_at__isnull=False
        )
        sums = latest.filter(target_id__in=wanted, gone_at__isnull=True).values_list("target_id")
        dead = dict(sums.annotate(Sum("n_dead_tup")))
        counted = {target.pk for target in targets if not target.in_recovery}
        return {
            pk: dead.get(pk) or 0
            for pk in read.values_list("target_id", flat=True)
            if pk in counted or dead.get(pk) is not None
        }
    tables = rows_of("tables", targets, window)
    known = {
        target_id: [row["n_dead_tup"] for row in rows if row["n_dead_tup"] is not None]
        for target_id, rows in tables.items()
    }
    return {target_id: sum(dead) for target_id, dead in known.items() if dead}


def findings_of(targets: Sequence[Target], window: Window) -> dict[int, list[Finding]]:
    """Return {target id: findings, worst first}, now or at the end of a window in the past."""
    if window.is_live:
        return judge.find_all(targets)
    return {target.pk: judge.find(target, window.end) for target in targets}


def fleet_of(targets: Sequence[Target], window: Window) -> list[FleetRow]:
    """Return a row for each target, worst first."""
    states = {
        state.target_id: as_read(state, window)
        for state in ProbeState.objects.filter(
            target__in=targets, probe__in=(WATCHED, POOLS)
        ).select_related("target")
    }
    servers = [one for one in targets if one.kind == POSTGRES]
    sessions = rows_of(WATCHED, servers, window)
    databases = rows_of("databases", servers, window)
    pools = rows_of(POOLS, [one for one in targets if one.kind == PGBOUNCER], window)
    dead = dead_rows(servers, window)
    findings = findings_of(targets, window)
    missing = missing_of(targets, window)
    rows: list[FleetRow] = [
        {
            **(
                figures_of_pooler(target, pools.get(target.pk, []))
                if target.kind == PGBOUNCER
                else figures_of(target, sessions.get(target.pk, []), databases.get(target.pk, []))
            ),
            **answer_of(target, states.get(target.pk), window),
            **counts_of(findings.get(target.pk, [])),
            "level": "",
            "unknown": missing[target.pk],
            "longest_xact_seconds": None,
            "n_dead_tup": dead.get(target.pk),
        }
        for target in targets
    ]
    for row in rows:
        state = states.get(row["target"].pk)
        row["longest_xact_seconds"] = longest_of(row, state)
        if row["connections"] is None and was_read(row["target"], state, window):
            row["connections"] = 0  # nobody is connected: no row
            row["waiting" if row["kind"] == PGBOUNCER else "blocked"] = 0
            row["used_pct"] = 0.0 if row["usable_connections"] else None
        if row["state"] == "past" and row["connections"] is None:
            row["state"], row["read_at"] = "unread", None  # nothing was read then
        row["level"] = level_of(row)
    return sorted(rows, key=rank)


def missing_of(targets: Sequence[Target], window: Window) -> dict[int, str]:
    """Return {target id: why it can't be called well; '' where it can}."""
    if window.is_live:
        known = unknowns.unknowns_of_all(targets)
    else:
        known = {target.pk: unknowns.unknowns_of(target, window.end) for target in targets}
    return {
        pk: " ".join(
            found[subject]
            for subject in SAID_BY_FLEET
            if found.get(subject, unknowns.STANDBY) != unknowns.STANDBY
        )
        for pk, found in known.items()
    }


def was_read(target: Target, state: ProbeState | None, window: Window) -> bool:
    """Tell whether connections were counted now, or at the end of a window in the past."""
    if window.is_live:
        return state is not None and state.taken_at is not None
    reach = timedelta(seconds=STALE_INTERVALS * interval_of(target, watched_of(target)))
    read = Snapshot.objects.filter(
        target_id=target.pk,
        probe=watched_of(target),
        state=Snapshot.State.OK,
        taken_at__lte=window.end,
        taken_at__gt=window.end - reach,
    )
    return read.exists()


def level_of(row: FleetRow) -> str:
    """Return the level of a target: of its worst finding, or of how it is read."""
    if row["state"] == "down":
        return "critical"
    if row["state"] in {"failing", "stale"}:
        return row["worst_level"] if row["critical"] else "warning"
    return row["worst_level"]


def as_read(state: ProbeState, window: Window) -> ProbeState:
    """Return where the probe stands with the times of its last good read by the window's end."""
    if not window.is_live:
        read = clocks(state.target, watched_of(state.target), window.end).get(0)
        state.taken_at, state.target_at = read or (None, None)
    return state


def figures_of(
    target: Target, sessions: Sequence[Reading], databases: Sequence[Reading]
) -> Figures:
    """Return what is read of one target."""
    usable = usable_connections(target)
    connections = rules.taken(sessions) if sessions else None
    known = usable and connections is not None
    return {
        "target": target,
        "name": target.name,
        "kind": target.kind,
        "environment": target.environment.name,
        "host": target.host,
        "port": target.port,
        "server_version": target.server_version,
        "in_recovery": target.in_recovery,
        "connections": connections,
        "usable_connections": usable,
        "used_pct": 100 * (connections or 0) / usable if known and usable else None,
        "blocked": sum(row["blocked"] or 0 for row in sessions) if sessions else None,
        "xid_age": max(
            (row["xid_age"] for row in databases if row["xid_age"] and not is_invalid(row)),
            default=None,
        ),
        "oldest_xact_start": min(
            (row["longest_xact_start"] for row in sessions if row["longest_xact_start"]),
            default=None,
        ),
        "waiting": None,
        "longest_wait_seconds": None,
    }


def figures_of_pooler(target: Target, pools: Sequence[Reading]) -> Figures:
    """Return what is read of one pooler; what only servers have is None."""
    waiting = [row["maxwait_seconds"] for row in pools if row["cl_waiting"]]
    return {
        **figures_of(target, [], []),
        "connections": sum(row["cl_active"] + row["cl_waiting"] for row in pools)
        if pools
        else None,
        "waiting": sum(row["cl_waiting"] for row in pools) if pools else None,
        "longest_wait_seconds": max(waiting, default=None),
    }


def watched_of(target: Target) -> str:
    """Return the probe whose last attempt says whether a target answers."""
    return POOLS if target.kind == PGBOUNCER else WATCHED


def usable_connections(target: Target) -> int | None:
    """Return how many connections ordinary roles can have, None before the first contact."""
    return rules.usable(target.max_connections, target.reserved_connections)


def used_level(used: float | None) -> str:
    """Return the level of a share of the usable connections, in percent."""
    if used is None or used < NEAR_PCT:
        return ""
    return "critical" if used >= FULL_PCT else "warning"


def longest_of(row: FleetRow, state: ProbeState | None) -> float | None:
    """Return the age of the oldest transaction when it was read, by the target's own clock."""
    start = row["oldest_xact_start"]
    if start is None:
        return None
    read_at = state.target_at if state else None
    return max(0.0, (read_at - start).total_seconds()) if read_at else None


def answer_of(target: Target, state: ProbeState | None, window: Window) -> Answer:
    """Return whether a target answers."""
    read_at = state.taken_at if state else None
    if not window.is_live:
        return {"state": "past", "since": None, "reason": "", "read_at": read_at}
    if not target.enabled:
        return {"state": "disabled", "since": None, "reason": "", "read_at": read_at}
    if state is None or not state.state:
        return {"state": "unread", "since": target.created_at, "reason": "", "read_at": None}
    if state.state == Snapshot.State.OK and is_stale(target, state, timezone.now()):
        reason = "Nothing was tried since: check that Howdah's beat and workers run."
        return {"state": "stale", "since": read_at, "reason": reason, "read_at": read_at}
    if state.state == Snapshot.State.OK:
        return {"state": "up", "since": target.started_at, "reason": "", "read_at": read_at}
    word = "down" if state.state == Snapshot.State.UNREACHABLE else "failing"
    return {"state": word, "since": state.failing_since, "reason": state.reason, "read_at": read_at}


def counts_of(findings: Sequence[Finding]) -> Counts:
    """Return what counts of a target's findings; what is acknowledged or snoozed does not."""
    counting = [finding for finding in findings if not finding.quiet]
    levels = Counter(finding.severity for finding in counting)
    worst = counting[0] if counting else None
    return {
        "critical": levels[Severity.CRITICAL],
        "warning": levels[Severity.WARNING],
        "notice": levels[Severity.NOTICE],
        "findings": counting,
        "finding": worst,
        "worst": worst.title if worst else "",
        "worst_level": worst.level if worst else "",
    }


ORDER = {"critical": 0, "warning": 1, "notice": 2, "": 3}
STANDING = {"down": 0, "failing": 1, "stale": 1, "up": 2, "past": 2, "unread": 3, "disabled": 4}


def rank(row: FleetRow) -> tuple[bool, int, int, int, int, float, str]:
    """Return what orders targets worst first."""
    top = row["findings"][0].score if row["findings"] else 0.0
    return (
        row["state"] != "down",
        ORDER[row["level"]],
        STANDING[row["state"]],
        -row["critical"],
        -row["warning"],
        -top,
        row["name"],
    )
