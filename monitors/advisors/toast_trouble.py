"""TOAST tables full of dead chunks that autovacuum does not find worth a visit so far.

Source: https://www.postgresql.org/docs/current/storage-toast.html
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
    table_name,
)
from monitors.rules import autovacuum, hurt

DEFAULTS = {
    "min_bytes": 100_000_000,  # of the TOAST table
    "notice_pct": 10,  # of its chunks are dead
    "warning_pct": 30,
    "times_of_table": 3,  # its dead share / that of its table
}
PAGE = 8192


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge TOAST tables below autovacuum's threshold: of those past it `dead_tuples` speaks."""
    mains = {
        (row["database_id"], row["toastrelid"]): row
        for row in samples.of("tables")
        if row["toastrelid"]
    }
    for row in samples.of("tables"):
        main = mains.get((row["database_id"], row["relid"]))
        if row["relkind"] != "t" or main is None or size_of(row) < thresholds["min_bytes"]:
            continue
        pct = dead_pct(row)
        severity = severity_of(pct, thresholds, "pct")
        if severity is None or pct < thresholds["times_of_table"] * dead_pct(main):
            continue
        limit = limit_of(row, main, samples)
        if (row["n_dead_tup"] or 0) <= limit:
            hurts = hurt_of(row, limit, severity, samples, thresholds)
            yield finding_of(row, main, limit, severity, samples, hurts)


def size_of(row: Row) -> int:
    """Return a table's own size in bytes, without its index."""
    return int(row["relpages"] or 0) * PAGE


def dead_pct(row: Row) -> float:
    """Return the share of a table's rows that are dead, 0 where it has none."""
    dead, live = row["n_dead_tup"] or 0, row["n_live_tup"] or 0
    return 100 * dead / (dead + live) if dead else 0.0


def limit_of(row: Row, main: Row, samples: Samples) -> float:
    """Return how many dead chunks autovacuum waits for; infinite where it is off."""
    limits = autovacuum.threshold_of(
        row, samples.settings, samples.server_version, row["reloptions"] or main["reloptions"]
    )
    return limits.vacuum if limits.enabled else float("inf")


def hurt_of(
    row: Row, limit: float, severity: Severity, samples: Samples, thresholds: Thresholds
) -> Hurt:
    """Return when so much of it is dead as makes a warning, unless autovacuum comes before."""
    pct, dead = thresholds["warning_pct"], row["n_dead_tup"]
    then = f"{pct:g} % of its chunks are dead"
    if severity >= Severity.WARNING:
        return Hurt(then, already=True)
    worse = pct / max(100 - pct, 1) * (row["n_live_tup"] or 0)
    rate, now = samples.rate("n_dead_tup", row), samples.now
    if worse <= limit:
        return hurt.reaches(then, dead, worse, rate, "dead chunk", now)
    comes = hurt.reaches("autovacuum comes before", dead, limit, rate, "dead chunk", now)
    if comes.at is None:
        return Hurt(comes.text)
    return Hurt(f"no date: autovacuum comes before, about {words.day(comes.at, now)}")


def finding_of(
    row: Row, main: Row, limit: float, severity: Severity, samples: Samples, hurts: Hurt
) -> Finding:
    """Say how much of it is dead while its table looks well."""
    name, pct = table_name(main), dead_pct(row)
    database = samples.database_names.get(row["database_id"], "")
    waits = (
        "autovacuum is off for it"
        if limit == float("inf")
        else (f"autovacuum comes beyond {limit:,.0f}")
    )
    return Finding(
        advisor="toast_trouble",
        severity=severity,
        title=f"{pct:.0f} % of the TOAST table of {name} in {database} is dead: "
        f"{row['n_dead_tup']:,} chunks, and {waits}.",
        why=(
            "The table itself looks well, yet most of its bytes are here; vacuum it, and lower "
            "toast.autovacuum_vacuum_scale_factor so that autovacuum comes earlier."
        ),
        object_name=name,
        hurt=hurts,
        database_id=row["database_id"],
        relid=main["relid"],
        part="toast",
        evidence=(
            ("Dead chunks", row["n_dead_tup"], "rows"),
            ("Dead share", pct, "pct"),
            ("Dead share of the table", dead_pct(main), "pct"),
            ("TOAST table", size_of(row), "bytes"),
        ),
        action="vacuum",
        arguments={"database": database, "table": name},
        score=pct / DEFAULTS["notice_pct"],
    )


ADVISOR = Advisor(
    name="toast_trouble",
    subject="vacuum",
    plural="The TOAST tables of {count} tables are full of dead chunks.",
    defaults=DEFAULTS,
    advise=advise,
    on_standby=False,
)
