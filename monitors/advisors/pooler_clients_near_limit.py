"""How near a pooler's clients are to the number that it admits.

Source: https://www.pgbouncer.org/config.html#max_client_conn
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors.advisor import Advisor, Finding, Hurt, Samples, Thresholds, severity_of, times_of
from monitors.kinds import PGBOUNCER
from monitors.rules import pooler

DEFAULTS = {
    "warning_pct": 80,  # of max_client_conn
    "critical_pct": 95,
}


REFUSED = "new clients are refused"
UNDATED = "no date: how their number grows is not reckoned"


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Compare all clients with max_client_conn."""
    limit = pooler.number_of(samples.of("pooler_config"), "max_client_conn")
    if not limit:
        return
    clients = sum(
        (row["cl_active"] or 0) + (row["cl_waiting"] or 0) for row in samples.of("pooler_pools")
    )
    pct = 100 * clients / limit
    severity = severity_of(pct, thresholds, "pct")
    if severity is None:
        return
    yield Finding(
        advisor="pooler_clients_near_limit",
        severity=severity,
        title=f"{clients:,} of {limit:,.0f} clients are connected to the pooler ({pct:.0f} %).",
        why=(
            'Then new ones are refused with "no more connections allowed (max_client_conn)": raise'
            " max_client_conn (and the limit of open files with it), or have the application"
            " keep fewer."
        ),
        object_name="max_client_conn",
        hurt=Hurt(REFUSED, already=True) if clients >= limit else Hurt(f"{REFUSED}; {UNDATED}"),
        evidence=(
            ("Clients", clients, "count"),
            ("max_client_conn", limit, "count"),
            ("Share", pct, "pct"),
        ),
        score=times_of(pct, thresholds["warning_pct"]),
    )


ADVISOR = Advisor(
    name="pooler_clients_near_limit",
    kind=PGBOUNCER,
    subject="pooler",
    defaults=DEFAULTS,
    advise=advise,
    reads=("pooler_pools", "pooler_config"),
)
