"""Who waits for a lock, and which backend stands at the root of each queue.

Source: https://www.postgresql.org/docs/current/functions-info.html (pg_blocking_pids)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from operator import itemgetter

from monitors import words
from monitors.advisor import (
    DISABLED,
    IDLE_IN_TRANSACTION,
    RUNNING,
    Advisor,
    Evidence,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    backend_name,
    remedy_of,
    seconds_since,
    severity_of,
    times_of,
)

DEFAULTS = {
    "warning_seconds": 5,  # the longest wait; shorter ones are a notice
    "critical_seconds": 300,
    "critical_backends": 5,  # that many waiting are critical however short their wait
    # Not of the finding: when the Stuck page says so of the one who waits, and of the root.
    "stuck_blocked_seconds": 30,
    "stuck_blocking_seconds": 30,
}
PREPARED = 0  # what pg_blocking_pids says of a prepared transaction


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield one finding for each backend that blocks others and waits for nobody itself."""
    rows = {row["pid"]: row for row in samples.of("activity")}
    waits = {pid: frozenset(row["blocked_by"]) for pid, row in rows.items() if row["blocked_by"]}
    for root in sorted(roots(waits)):
        victims = [rows[pid] for pid in sorted(victims_of(root, waits))]
        yield finding_of(root, rows.get(root), victims, samples, thresholds)


def roots(waits: Mapping[int, frozenset[int]]) -> set[int]:
    """Return the pids that block somebody and are not blocked.

    Backends that wait in a circle (a deadlock that the server hasn't ended yet) have no
    such root: the lowest pid of the circle stands for it.
    """
    found = {pid for blockers in waits.values() for pid in blockers if pid not in waits}
    under = set().union(*(victims_of(root, waits) for root in found))
    left = set(waits) - under
    while left:
        circle = min(left)
        found.add(circle)
        left -= victims_of(circle, waits) | {circle}
    return found


def victims_of(root: int, waits: Mapping[int, frozenset[int]]) -> set[int]:
    """Return the pids that wait for root, directly or behind one that does."""
    victims: set[int] = set()
    reached = {root}
    while reached:
        reached = {pid for pid, by in waits.items() if by & reached and pid not in victims}
        victims |= reached
    return victims - {root}


def finding_of(
    root: int, row: Row | None, victims: list[Row], samples: Samples, thresholds: Thresholds
) -> Finding:
    """Name the root, count who waits, and offer to end what the root does."""
    first = first_waiter(victims)
    longest = seconds_since(began_at(first), samples.now) if first else 0
    severity = severity_of(longest, thresholds, "seconds") or Severity.NOTICE
    if len(victims) >= thresholds["critical_backends"]:
        severity = Severity.CRITICAL
    action, arguments = remedy_of(row) if row else ("", {})
    return Finding(
        advisor="blocked",
        severity=severity,
        title=f"{root_name(root, row, samples)} blocks {words.count(len(victims), 'backend')}.",
        why=f"{wait_words(first, longest)} {way_out(root, row)}",
        object_name=str(root),
        hurt=Hurt(
            "the first statement that waits began then",
            at=began_at(first) if first else None,
            already=True,
        ),
        pid=root,
        backend_start=row["backend_start"] if row else None,
        evidence=evidence_of(row, victims, first, longest),
        action=action,
        arguments=arguments,
        score=len(victims) + times_of(longest, thresholds["critical_seconds"]),
    )


def began_at(victim: Row) -> datetime | None:
    """Return when a victim's statement began, or its wait where track_activities hides the statement."""
    began: datetime | None = victim["query_start"] or victim["waitstart"]
    return began


def first_waiter(victims: list[Row]) -> Row | None:
    """Return the victim that began first, None where of no one it is known."""
    known = [(began, one) for one in victims if (began := began_at(one)) is not None]
    return min(known, key=itemgetter(0))[1] if known else None


def wait_words(first: Row | None, longest: float) -> str:
    """Return a sentence on how long the others wait, by the one that began first."""
    if first is None:
        return "How long they have waited is not known."
    if first["query_start"] is None:
        return f"The longest wait that is known began {words.duration(longest)} ago."
    return f"The longest statement that waits began {words.duration(longest)} ago."


def root_name(root: int, row: Row | None, samples: Samples) -> str:
    """Return who the root is and what it does."""
    if root == PREPARED:
        return "A prepared transaction"
    if row is None:
        return f"Backend {root}"
    if row["state"] in IDLE_IN_TRANSACTION:
        idle = words.duration(seconds_since(row["state_change"], samples.now))
        return f"{backend_name(row)}, idle in transaction for {idle},"
    return backend_name(row)


def way_out(root: int, row: Row | None) -> str:
    """Return a sentence on what frees those that wait."""
    if root == PREPARED:
        return "Find it in pg_prepared_xacts: COMMIT PREPARED or ROLLBACK PREPARED frees them."
    if row is None:
        return "The root had ended when the backends were read: they should go on by themselves."
    if row["backend_type"] == "autovacuum worker":
        return "Autovacuum gives way by itself, except to prevent wraparound."
    return way_out_by(root, row["state"])


def way_out_by(root: int, state: str | None) -> str:
    """Return a sentence on what frees those that wait for a backend in a state."""
    if state in IDLE_IN_TRANSACTION:
        return (
            "The root runs none itself, so only terminating it frees the others; "
            "its transaction rolls back."
        )
    if state in RUNNING:
        return "Cancelling the root's statement frees them, unless its transaction goes on."
    if state == "idle":
        return (
            "The root holds an advisory lock while it is idle, until its session ends "
            f"or somebody calls pg_terminate_backend({root})."
        )
    why = ", since its track_activities is off" if state == DISABLED else ""
    return (
        f"What the root does is not known{why}; only terminating it surely frees the others, "
        f"and rolls back what it has open: SELECT pg_terminate_backend({root});"
    )


def evidence_of(
    row: Row | None, victims: list[Row], first: Row | None, longest: float
) -> tuple[Evidence, ...]:
    """Return the numbers and names behind the finding."""
    known: list[Evidence] = [("Blocked", len(victims), "count")]
    if first is not None:
        what = "Longest statement that waits" if first["query_start"] else "Longest wait"
        known.append((what, longest, "seconds"))
    if row is None:
        return tuple(known)
    if row["xact_start"] is not None:
        known.append(("Its transaction since", row["xact_start"], "at"))
    names = (("State", "state"), ("Database", "datname"), ("User", "usename"))
    known += [(label, row[column], "") for label, column in names if row[column]]
    return (*known, ("Its statement", row["query"], "")) if row["query"] else tuple(known)


ADVISOR = Advisor(
    name="blocked",
    subject="activity",
    plural="{count} backends block others.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("activity",),
    opens_after=5,  # a lock that is waited for in passing is nobody's trouble
)
