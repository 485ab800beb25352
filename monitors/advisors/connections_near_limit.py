"""How near the clients' connections are to the number that the server admits.

Source: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors.advisor import (
    HOUR,
    Advisor,
    Evidence,
    Finding,
    Hurt,
    Samples,
    Severity,
    Thresholds,
    severity_of,
)
from monitors.rules import hurt
from monitors.rules.wraparound import NEARLY

DEFAULTS = {
    "warning_pct": 80,  # of max_connections less the reserved ones
    "critical_pct": 95,
}
BACKENDS = ("backends", None, 0)  # their rate in Samples.rates


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Compare the clients' backends with what an ordinary role may use."""
    if samples.max_connections is None:
        return
    usable = samples.max_connections - (samples.reserved_connections or 0)
    used = sum(row["backends"] or 0 for row in samples.of("sessions"))
    pct = 100 * used / max(usable, 1)
    severity = severity_of(pct, thresholds, "pct")
    if severity is not None:
        yield finding_of(samples, used, usable, severity, thresholds)


def finding_of(
    samples: Samples, used: int, usable: int, severity: Severity, thresholds: Thresholds
) -> Finding:
    """Say how many are left, and that the next clients get an error."""
    pct = 100 * used / max(usable, 1)
    left = max(usable - used, 0)
    return Finding(
        advisor="connections_near_limit",
        severity=severity,
        title=f"{used:,} of {usable:,} usable connections are taken ({pct:.0f} %); {left:,} are left.",
        why=(
            'Then clients are refused with "sorry, too many clients already" or "remaining '
            'connection slots are reserved"; close idle ones, bound the pools, or put a pooler '
            "in front."
        ),
        object_name="max_connections",
        hurt=hurt_of(samples, used, usable),
        evidence=(
            ("Connections", used, "count"),
            ("Usable", usable, "count"),
            ("Share", pct, "pct"),
            *by_state(samples),
        ),
        score=pct / thresholds["warning_pct"],
    )


def hurt_of(samples: Samples, used: int, usable: int) -> Hurt:
    """Return when the last one is taken, if their number has risen steadily."""
    then = "clients are refused"
    if used >= usable:
        return Hurt(then, already=True)
    rate = samples.rates.get(BACKENDS)
    if rate is not None and rate.seconds >= NEARLY * HOUR and rate.per_second <= 0:
        return Hurt(f"{then}; no date: connections did not rise steadily in the last hour")
    return hurt.reaches(then, used, usable, rate, "connection", samples.now)


def by_state(samples: Samples) -> Iterator[Evidence]:
    """Yield how many backends are in each state, most first."""
    states: dict[str, int] = {}
    for row in samples.of("sessions"):
        state = row["state"] or "unknown"
        states[state] = states.get(state, 0) + (row["backends"] or 0)
    for state, backends in sorted(states.items(), key=lambda item: -item[1]):
        yield (state.capitalize(), backends, "count")


ADVISOR = Advisor(
    name="connections_near_limit",
    subject="activity",
    defaults=DEFAULTS,
    advise=advise,
    reads=("sessions",),
)
