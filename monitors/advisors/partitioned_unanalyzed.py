"""Partitioned tables without statistics of the whole: autovacuum analyzes partitions alone.

Source: https://www.postgresql.org/docs/current/sql-analyze.html#SQL-ANALYZE-NOTES
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
    table_name,
)

DEFAULTS = {
    "min_rows": 10_000,  # in all partitions; of fewer every plan is a good one
    "notice_ratio": 2,  # rows now / rows when it was analyzed
    "warning_rows": 1_000_000,  # in the partitions of one that was never analyzed
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge partitioned tables by the rows of their partitions."""
    for row in samples.partitioned:
        if row["rows"] <= thresholds["min_rows"]:
            continue
        if row["last_analyze"] is None or (row["reltuples"] or 0) < 0:
            bad = row["rows"] > thresholds["warning_rows"]
            severity = Severity.WARNING if bad else Severity.NOTICE
            yield finding_of(row, severity, samples, thresholds, "was never analyzed as a whole")
        elif row["rows"] > thresholds["notice_ratio"] * row["reltuples"]:
            text = f"had {row['reltuples']:,.0f} when it was last analyzed as a whole"
            yield finding_of(row, Severity.NOTICE, samples, thresholds, text)


def finding_of(
    row: Row, severity: Severity, samples: Samples, thresholds: Thresholds, text: str
) -> Finding:
    """Say how many rows the planner knows nothing of."""
    name = table_name(row)
    database = samples.database_names.get(row["database_id"], "")
    return Finding(
        advisor="partitioned_unanalyzed",
        severity=severity,
        title=f"{name} in {database} has {words.count(row['rows'], 'row')} in "
        f"{words.count(row['partitions'], 'partition')} and {text}.",
        why=(
            "Autovacuum analyzes each partition and never the whole, so a query that reads several "
            "of them is planned without its distinct values and correlations. ANALYZE the table, "
            "and again after much has changed: a job can do it."
        ),
        object_name=name,
        hurt=Hurt("queries over several partitions are planned by guesses", already=True),
        database_id=row["database_id"],
        relid=row["relid"],
        evidence=evidence_of(row),
        action="analyze",
        arguments={"database": database, "table": name},
        score=row["rows"] / max(thresholds["min_rows"], 1),
    )


def evidence_of(row: Row) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding; what never happened is left out."""
    known: list[Evidence] = [
        ("Rows of its partitions", row["rows"], "rows"),
        ("Partitions", row["partitions"], "count"),
    ]
    if row["last_analyze"] is not None:
        known.append(("Last analyze", row["last_analyze"], "at"))
    return tuple(known)


ADVISOR = Advisor(
    name="partitioned_unanalyzed",
    subject="vacuum",
    plural="{count} partitioned tables have no statistics of the whole.",
    defaults=DEFAULTS,
    advise=advise,
    on_standby=False,
    kept=True,
)
