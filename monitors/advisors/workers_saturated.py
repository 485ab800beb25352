"""All autovacuum workers busy for long while tables wait for one.

Source: https://www.postgresql.org/docs/current/runtime-config-autovacuum.html#GUC-AUTOVACUUM-MAX-WORKERS
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors import words
from monitors.advisor import (
    Advisor,
    Finding,
    Row,
    Samples,
    Severity,
    Thresholds,
    table_name,
    times_of,
)
from monitors.rules import autovacuum, hurt, setting

DEFAULTS = {
    "min_readings": 20,  # of the last 15 minutes; with fewer nothing is said
    "busy_pct": 90,  # of the readings, with every worker at work
    "warning_tables": 1,  # that are due and that nobody works on
    "critical_tables": 50,
}
DEFAULT_WORKERS = "3"
LATE = 2  # times its threshold: autovacuum should have come by now
NUMBER_SETTINGS_CHANGE = 18  # autovacuum_max_workers is read at a reload from here on


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Compare the workers at each reading with how many there may be."""
    most = int(samples.settings.get("autovacuum_max_workers", DEFAULT_WORKERS))
    if len(samples.workers) < thresholds["min_readings"]:
        return
    busy = 100 * sum(count >= most for count in samples.workers) / len(samples.workers)
    waiting = [
        (row, limit)
        for row in samples.of("tables")
        if (limit := limit_of(row, samples)) is not None and (row["n_dead_tup"] or 0) > limit
    ]
    if busy < thresholds["busy_pct"] or len(waiting) < thresholds["warning_tables"]:
        return
    yield finding_of(samples, most, busy, waiting, thresholds)


def limit_of(row: Row, samples: Samples) -> float | None:
    """Return a table's threshold, None where autovacuum is off or somebody works on it."""
    limits = autovacuum.threshold_of(row, samples.settings, samples.server_version)
    database = samples.database_names.get(row["database_id"], "")
    worked = any(
        (work["datname"], work["relid"]) == (database, row["relid"])
        for work in samples.of("progress")
    )
    return limits.vacuum if limits.enabled and not worked else None


def finding_of(
    samples: Samples,
    most: int,
    busy: float,
    tables: list[tuple[Row, float]],
    thresholds: Thresholds,
) -> Finding:
    """Say how many tables wait, and what makes the work go faster."""
    waiting = len(tables)
    major = (samples.server_version or 0) // 10000
    usual = "reload" if not major or major >= NUMBER_SETTINGS_CHANGE else "restart"
    how = setting.change_needs("autovacuum_max_workers", samples.settings, usual)
    limit_how = setting.change_needs("autovacuum_vacuum_cost_limit", samples.settings, "reload")
    critical = waiting >= thresholds["critical_tables"]
    return Finding(
        advisor="workers_saturated",
        severity=Severity.CRITICAL if critical else Severity.WARNING,
        title=f"All {most} autovacuum workers are busy and {words.count(waiting, 'table')} "
        f"wait{'s' if waiting == 1 else ''} for one.",
        why=(
            "The workers share one cost limit: raise autovacuum_vacuum_cost_limit first "
            f"({limit_how}), so that each is done sooner, then autovacuum_max_workers ({how})."
        ),
        object_name="autovacuum_max_workers",
        hurt=hurt.first(
            hurt.reaches(
                f"{table_name(row)} waits at {LATE} times its threshold",
                row["n_dead_tup"],
                LATE * limit,
                samples.rate("n_dead_tup", row),
                "dead row",
                samples.now,
            )
            for row, limit in tables
        ),
        evidence=(
            ("Workers", most, "count"),
            ("Readings with all of them busy", busy, "pct"),
            ("Readings in 15 minutes", len(samples.workers), "count"),
            ("Tables that wait", waiting, "count"),
        ),
        score=times_of(waiting, thresholds["warning_tables"]),
    )


ADVISOR = Advisor(
    name="workers_saturated",
    subject="vacuum",
    defaults=DEFAULTS,
    advise=advise,
    on_standby=False,
    reads=("tables", "progress"),
    kept=True,
)
