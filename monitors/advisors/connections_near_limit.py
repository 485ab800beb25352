"""How near the clients' connections are to the number that the server admits.

Source: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors.advisor import (
    Advisor,
    Evidence,
    Finding,
    Samples,
    Severity,
    Thresholds,
    severity_of,
    times_of,
)
from monitors.rules import connections

DEFAULTS = {
    "warning_pct": 80,  # of max_connections less the reserved ones
    "critical_pct": 95,
}
BACKENDS = ("backends", None, 0)  # their rate in Samples.rates


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Compare the clients' backends with what an ordinary role may use."""
    usable = connections.usable(samples.max_connections, samples.reserved_connections)
    if usable is None:
        return
    used = connections.taken(samples.of("sessions"))
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
        hurt=connections.exhausted(used, usable, samples.rates.get(BACKENDS), samples.now),
        evidence=(
            ("Connections", used, "count"),
            ("Usable", usable, "count"),
            ("Share", pct, "pct"),
            *by_state(samples),
        ),
        score=times_of(pct, thresholds["warning_pct"]),
    )


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
    subject="connections",
    defaults=DEFAULTS,
    advise=advise,
    reads=("sessions",),
)
