"""Sorts and hashes that do not fit into memory, and go to disk in numbers.

Source: https://www.postgresql.org/docs/current/runtime-config-resource.html#GUC-WORK-MEM
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors import words
from monitors.advisor import (
    Advisor,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    severity_of,
    times_of,
)

DEFAULTS = {
    "notice_bytes": 5 * 1024**2,  # written a second
    "warning_bytes": 50 * 1024**2,
    "notice_files": 2,  # a second
    "warning_files": 20,
    "min_seconds": 540,  # of history: ten minutes, less the time between two readings
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge each database by what it wrote in ten minutes, in bytes and in files."""
    for row in samples.grown:
        if row["seconds"] < thresholds["min_seconds"]:
            continue
        pace = (row["temp_bytes"] or 0) / row["seconds"]
        files = (row["temp_files"] or 0) / row["seconds"]
        found = [severity_of(pace, thresholds, "bytes"), severity_of(files, thresholds, "files")]
        severity = max((one for one in found if one is not None), default=None)
        if severity is not None:
            yield finding_of(row, pace, files, severity, thresholds)


def finding_of(
    row: Row, pace: float, files: float, severity: Severity, thresholds: Thresholds
) -> Finding:
    """Say how much goes to disk, and where to look for what sends it there."""
    return Finding(
        advisor="temp_files",
        severity=severity,
        title=f"{row['datname']} writes {words.size(pace)} a second into temporary files, "
        f"{words.trim(files)} files a second.",
        why="Sorts, hashes and materialized results outgrow work_mem. The Queries page orders "
        "statements by the temporary blks they write: give the worst an index or less to sort, or "
        "their role more work_mem; log_temp_files = '10MB' logs each, temp_file_limit bounds a session.",
        object_name=row["datname"],
        hurt=Hurt("statements wait for the disk", already=True),
        evidence=(
            ("Written", row["temp_bytes"], "bytes"),
            ("Files", row["temp_files"], "count"),
            ("Over", row["seconds"], "seconds"),
        ),
        score=max(
            times_of(pace, thresholds["notice_bytes"]), times_of(files, thresholds["notice_files"])
        ),
    )


ADVISOR = Advisor(
    name="temp_files",
    subject="connections",
    plural="{count} databases write temporary files in numbers.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("databases",),
    kept=True,
)
