"""Tables whose dead rows have passed the number at which autovacuum starts.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#AUTOVACUUM
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
    "min_rows": 1000,  # dead rows; fewer are nobody's trouble
    "notice_ratio": 1,  # dead rows / autovacuum's threshold
    "warning_ratio": 2,  # autovacuum should have come by now
    "critical_ratio": 10,
    "critical_rows": 1_000_000,  # dead rows; with fewer, no ratio is critical
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the tables that autovacuum looks after; of others `autovacuum_disabled` speaks."""
    mains = {(row["database_id"], row["toastrelid"]): row for row in samples.of("tables")}
    running = {(row["datname"], row["relid"]): row for row in samples.of("progress")}
    for row in samples.of("tables"):
        main = mains.get((row["database_id"], row["relid"])) if row["relkind"] == "t" else row
        limits = limits_of(row, main, samples)
        severity = severity_at(row["n_dead_tup"] or 0, limits, thresholds)
        if severity is not None:
            database = samples.database_names.get(row["database_id"], "")
            work = running.get((database, row["relid"]))
            hurts = hurt_of(row, limits.vacuum, severity, work, samples, thresholds)
            yield finding_of(row, main or row, limits.vacuum, database, severity, work, hurts=hurts)


def severity_at(
    dead: int, limits: autovacuum.Thresholds, thresholds: Thresholds
) -> Severity | None:
    """Return how bad a number of dead rows is, None where autovacuum need not come yet."""
    if not limits.enabled or dead <= max(limits.vacuum, thresholds["min_rows"]):
        return None
    severity = severity_of(dead / max(limits.vacuum, 1), thresholds, "ratio")
    if severity == Severity.CRITICAL and dead <= thresholds["critical_rows"]:
        return Severity.WARNING
    return severity


def limits_of(row: Row, main: Row | None, samples: Samples) -> autovacuum.Thresholds:
    """Return a table's thresholds; a TOAST table without options follows its main table."""
    options = row["reloptions"] or (main["reloptions"] if main else None)
    return autovacuum.threshold_of(row, samples.settings, samples.server_version, options)


def finding_of(  # noqa: PLR0913 - all that is said of it
    row: Row,
    main: Row,
    limit: float,
    database: str,
    severity: Severity,
    work: Row | None,
    *,
    hurts: Hurt,
) -> Finding:
    """Say how far past its threshold a table is, and whether it is being worked on."""
    dead, name = row["n_dead_tup"], table_name(main)
    subject = name if main is row else f"The TOAST table of {name}"
    return Finding(
        advisor="dead_tuples",
        severity=severity if work is None else Severity.NOTICE,
        title=f"{subject} in {database} has {words.count(dead, 'dead row')}; "
        f"autovacuum starts beyond {limit:,.0f}.",
        why=why_of(dead / max(limit, 1), severity, work),
        object_name=name,
        hurt=hurts,
        database_id=row["database_id"],
        relid=main["relid"],
        part="" if main is row else "toast",
        evidence=evidence_of(row, limit),
        action="vacuum" if work is None else "",
        arguments=vacuum_arguments(name, database) if work is None else {},
        score=dead / max(limit, 1),
    )


def hurt_of(
    row: Row,
    limit: float,
    severity: Severity,
    work: Row | None,
    samples: Samples,
    thresholds: Thresholds,
) -> Hurt:
    """Return when it is one severity worse, or half of its rows are dead: what comes first."""
    dead = row["n_dead_tup"]
    if work is not None:
        return Hurt(f"no date while {work['command']} works on it")
    if severity == Severity.CRITICAL:
        return Hurt(f"{dead / max(limit, 1):,.1f} times autovacuum's threshold", already=True)
    worse = max(limit, 1) * thresholds[f"{Severity(severity + 1).name.lower()}_ratio"]
    if severity == Severity.WARNING:
        worse = max(worse, thresholds["critical_rows"])
    marks = [
        ("as many dead rows as live ones", row["n_live_tup"] or 0),
        (f"past {worse / max(limit, 1):,.1f} times autovacuum's threshold", worse),
    ]
    rate = samples.rate("n_dead_tup", row)
    return hurt.first(
        hurt.reaches(then, dead, mark, rate, "dead row", samples.now) for then, mark in marks
    )


def why_of(ratio: float, severity: Severity, work: Row | None) -> str:
    """Return why it matters, or that it is being taken care of."""
    if work is not None:
        return f"{work['command']} works on it now ({work['phase']})."
    if severity > Severity.NOTICE:
        return (
            f"That is {ratio:,.1f} times the threshold: autovacuum hasn't come, "
            "can't keep up, or can't remove rows that an old transaction may still see."
        )
    return "Dead rows take room in the table and its indexes until a vacuum frees it for new ones."


def vacuum_arguments(name: str, database: str) -> Mapping[str, str]:
    """Return the arguments of a vacuum that also renews the planner's statistics."""
    return {"database": database, "table": name, "analyze": "true"}


def evidence_of(row: Row, limit: float) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding; what the server didn't say is left out."""
    dead, live = row["n_dead_tup"], row["n_live_tup"] or 0
    known: list[Evidence] = [
        ("Dead rows", dead, "rows"),
        ("Share of all rows", 100 * dead / (dead + live), "pct"),
        ("Autovacuum starts beyond", limit, "rows"),
    ]
    times = (("Last autovacuum", row["last_autovacuum"]), ("Last vacuum", row["last_vacuum"]))
    return (*known, *((label, moment, "at") for label, moment in times if moment is not None))


ADVISOR = Advisor(
    name="dead_tuples",
    subject="vacuum",
    plural="{count} tables are due for vacuum.",
    defaults=DEFAULTS,
    advise=advise,
    beside=("progress",),
    on_standby=False,
)
