"""A server that flushes nothing: a crash of its machine can destroy every database.

Source: https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-FSYNC
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors.advisor import Advisor, Finding, Hurt, Samples, Severity, Thresholds
from monitors.rules import autovacuum, setting


def advise(samples: Samples, _thresholds: Thresholds) -> Iterator[Finding]:
    """Say it where fsync is off; nothing where it was not read."""
    if autovacuum.is_on(samples.settings.get("fsync", "on")):
        return
    yield Finding(
        advisor="fsync_off",
        severity=Severity.CRITICAL,
        title="fsync is off: a crash of the machine can destroy every database.",
        why=(
            "Nothing is flushed to disk, so what survives a power failure is a matter of luck. "
            f"{setting.remedy_words('fsync', 'on', samples.settings)}"
        ),
        object_name="fsync",
        hurt=Hurt("the next crash of the machine; no date: nobody knows when"),
        evidence=(("fsync", "off", ""),),
        score=1.0,
    )


ADVISOR = Advisor(
    name="fsync_off",
    subject="settings",
    defaults={},
    advise=advise,
    reads=("settings",),
)
