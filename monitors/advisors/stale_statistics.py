"""Tables whose planner statistics were gathered before most of their rows changed, or never.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-STATISTICS
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors import words
from monitors.advisor import (
    Advisor,
    Evidence,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    severity_of,
    table_name,
)
from monitors.rules import autovacuum, hurt

DEFAULTS = {
    "min_rows": 10_000,  # changed since the last analyze; fewer mislead no plan for long
    "notice_ratio": 3,  # changed rows / autovacuum's analyze threshold
    "warning_ratio": 10,
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the tables that autovacuum looks after, but those that are analyzed now.

    Of others `autovacuum_disabled` speaks; TOAST tables have no statistics.
    """
    worked = {
        (row["datname"], row["relid"])
        for row in samples.of("progress")
        if row["command"] == "ANALYZE"
    }
    for row in samples.of("tables"):
        changed = row["n_mod_since_analyze"] or 0
        limit = limit_of(row, samples)
        if limit is None or changed <= thresholds["min_rows"]:
            continue
        severity = severity_of(changed / max(limit, 1), thresholds, "ratio")
        database = samples.database_names.get(row["database_id"], "")
        if severity is not None and (database, row["relid"]) not in worked:
            hurts = hurt_of(row, limit, severity, samples, thresholds)
            yield finding_of(row, changed, limit, database, severity, hurts)


def limit_of(row: Row, samples: Samples) -> float | None:
    """Return how many changed rows have autovacuum analyze a table, None where it never does."""
    limits = autovacuum.threshold_of(row, samples.settings, samples.server_version)
    return limits.analyze if limits.enabled else None


def hurt_of(
    row: Row, limit: float, severity: Severity, samples: Samples, thresholds: Thresholds
) -> Hurt:
    """Return when as many rows changed as there are, or it is a warning: what comes first."""
    changed, ratio = row["n_mod_since_analyze"], thresholds["warning_ratio"]
    then = f"past {ratio:g} times autovacuum's threshold"
    if severity >= Severity.WARNING:
        return Hurt(then, already=True)
    marks = [
        ("as many changed rows as it has rows", row["n_live_tup"] or 0),
        (then, ratio * max(limit, 1)),
    ]
    rate = samples.rate("n_mod_since_analyze", row)
    return hurt.first(
        hurt.reaches(text, changed, mark, rate, "changed row", samples.now) for text, mark in marks
    )


def finding_of(
    row: Row, changed: int, limit: float, database: str, severity: Severity, hurts: Hurt
) -> Finding:
    """Say how much has changed since, or that nothing was ever gathered."""
    name = table_name(row)
    never = row["last_analyze"] is None and row["last_autoanalyze"] is None
    since = "and was never analyzed" if never else "since it was last analyzed"
    return Finding(
        advisor="stale_statistics",
        severity=severity,
        title=f"{name} in {database} has {words.count(changed, 'changed row')} {since}; "
        f"autovacuum analyzes beyond {limit:,.0f}.",
        why=(
            "The planner believes what it was told then and may choose a plan for another table; "
            "ANALYZE reads a sample and blocks neither readers nor writers."
        ),
        object_name=name,
        hurt=hurts,
        database_id=row["database_id"],
        relid=row["relid"],
        evidence=evidence_of(row, changed, limit),
        action="analyze",
        arguments={"database": database, "table": name},
        score=changed / max(limit, 1),
    )


def evidence_of(row: Row, changed: int, limit: float) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding; what never happened is left out."""
    known: list[Evidence] = [
        ("Changed rows", changed, "rows"),
        ("Rows", row["n_live_tup"] or 0, "rows"),
        ("Autovacuum analyzes beyond", limit, "rows"),
    ]
    times = (("Last autoanalyze", row["last_autoanalyze"]), ("Last analyze", row["last_analyze"]))
    return (*known, *((label, moment, "at") for label, moment in times if moment is not None))


ADVISOR = Advisor(
    name="stale_statistics",
    subject="vacuum",
    plural="The planner's statistics of {count} tables are stale.",
    defaults=DEFAULTS,
    advise=advise,
    beside=("progress",),
    on_standby=False,
    opens_after=300,  # autovacuum analyzes a freshly filled table within a minute or two
)
