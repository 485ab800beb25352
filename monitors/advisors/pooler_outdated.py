"""A pooler whose version has weaknesses that are known.

Source: https://www.pgbouncer.org/changelog.html
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors.advisor import Advisor, Finding, Hurt, Samples, Severity, Thresholds
from monitors.kinds import PGBOUNCER
from monitors.rules import pooler

DEFAULTS: Thresholds = {}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Compare the version that answers with the oldest that is safe."""
    said = pooler.outdated(samples.server_version)
    if said and samples.server_version is not None:
        yield Finding(
            advisor="pooler_outdated",
            severity=Severity.WARNING,
            title=said,
            why="Whoever reaches its port may make use of them; until then let only known hosts in.",
            object_name="version",
            hurt=Hurt("no date: when somebody makes use of them"),
            evidence=(("Version", pooler.spelled(samples.server_version), ""),),
            score=1.0,
        )


ADVISOR = Advisor(
    name="pooler_outdated",
    kind=PGBOUNCER,
    subject="pooler",
    defaults=DEFAULTS,
    advise=advise,
    reads=("pooler_config",),
)
