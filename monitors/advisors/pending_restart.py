"""Settings that were changed in a file and hold only after a restart.

Source: https://www.postgresql.org/docs/current/view-pg-settings.html
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors import words
from monitors.advisor import Advisor, Finding, Hurt, Samples, Severity, Thresholds

NAMED = 4


def advise(samples: Samples, _thresholds: Thresholds) -> Iterator[Finding]:
    """Say once which settings await a restart."""
    text = samples.settings.get("pending_restart", "")
    if not text:
        return
    names = text.split(",")
    shown = ", ".join(names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    yield Finding(
        advisor="pending_restart",
        severity=Severity.NOTICE,
        title=f"{words.count(len(names), 'setting')} changed in a file, not in force until a restart: "
        f"{shown}{more}.",
        why=(
            "The server runs with the old values, and the next restart, planned or not, brings "
            "the new ones; restart it in a quiet hour, or take the change back."
        ),
        object_name=names[0],
        hurt=Hurt("the next restart, planned or not; no date: nobody knows when"),
        evidence=(("Settings", len(names), "count"),),
        score=float(len(names)),
    )


ADVISOR = Advisor(
    name="pending_restart",
    subject="settings",
    defaults={},
    advise=advise,
    reads=("settings",),
)
