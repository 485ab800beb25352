"""Vacuums that had to read all indexes of a table more than once, for want of memory.

Source: https://www.postgresql.org/docs/current/runtime-config-resource.html#GUC-AUTOVACUUM-WORK-MEM
"""

from __future__ import annotations

from collections.abc import Iterator

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
from monitors.rules import autovacuum, hurt

DEFAULTS = {
    "notice_passes": 2,  # of the indexes, in one vacuum
    "warning_passes": 4,
}
COMPACT_MAJOR = 17  # dead row ids are stored compactly, and without a limit of 1 GB
OLD_LIMIT_KB = 1024 * 1024
BYTES_A_ROW = 6  # before 17


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the worst vacuum of the last day of each table."""
    worst: dict[tuple[str, int], Row] = {}
    for row in samples.passes:
        place = (row["datname"], row["relid"])
        if place not in worst or row["passes"] >= worst[place]["passes"]:
            worst[place] = row
    for row in worst.values():
        if row["passes"] >= thresholds["notice_passes"]:
            yield finding_of(row, samples, thresholds)


def finding_of(row: Row, samples: Samples, thresholds: Thresholds) -> Finding:
    """Say how often the indexes were read, and how much memory would have been enough."""
    ids = {datname: database_id for database_id, datname in samples.database_names.items()}
    database_id = ids.get(row["datname"])
    table = next(
        (
            one
            for one in samples.of("tables")
            if (one["database_id"], one["relid"]) == (database_id, row["relid"])
        ),
        None,
    )
    name = table_name(table) if table else f"Relation {row['relid']}"
    passes = row["passes"]
    return Finding(
        advisor="multi_pass_vacuum",
        severity=Severity.WARNING if passes >= thresholds["warning_passes"] else Severity.NOTICE,
        title=f"A vacuum of {name} in {row['datname']} went over all its indexes {passes} times.",
        why=advice(row, samples),
        object_name=name,
        hurt=hurt_of(table, samples),
        database_id=database_id,
        relid=row["relid"],
        evidence=evidence_of(row, samples),
        score=passes / max(thresholds["notice_passes"], 1),
    )


def hurt_of(table: Row | None, samples: Samples) -> Hurt:
    """Return when autovacuum comes next, unless so many dead rows fit into its memory."""
    if table is None:
        return Hurt("no date so far: its table was not read yet")
    limits = autovacuum.threshold_of(table, samples.settings, samples.server_version)
    if not limits.enabled:
        return Hurt("no date: autovacuum is off for it, so the next vacuum is up to you")
    dead = table["n_dead_tup"] or 0
    rows = rows_that_fit(memory_of({"autovacuum": True}, samples)[1], samples)
    if rows is not None and max(dead, limits.vacuum) < rows:
        return Hurt(
            f"no date: autovacuum comes beyond {limits.vacuum:,.0f} dead rows, and {rows:,} fit "
            "into its memory"
        )
    rate = samples.rate("n_dead_tup", table)
    then = "the next vacuum is due, and may read all indexes as often"
    return hurt.reaches(then, dead, limits.vacuum, rate, "dead row", samples.now)


def rows_that_fit(size: int | None, samples: Samples) -> int | None:
    """Return how many dead rows fit into so many kB; None from 17 on, and where it wasn't read."""
    if size is None or (samples.server_version or 0) // 10000 >= COMPACT_MAJOR:
        return None
    return min(size, OLD_LIMIT_KB) * 1024 // BYTES_A_ROW


def memory_of(row: Row, samples: Samples) -> tuple[str, int | None]:
    """Return the setting that bounds a vacuum's memory, and its kB; None where it wasn't read."""
    own = int(samples.settings.get("autovacuum_work_mem", -1))
    if row["autovacuum"] and own >= 0:
        return "autovacuum_work_mem", own
    shared = samples.settings.get("maintenance_work_mem")
    return "maintenance_work_mem", int(shared) if shared is not None else None


def advice(row: Row, samples: Samples) -> str:
    """Return what to raise: before 17 there is no use in more than 1 GB."""
    setting, size = memory_of(row, samples)
    knob = "autovacuum_work_mem" if row["autovacuum"] else setting
    before = "Each pass reads every index whole because the dead rows' ids didn't fit at once; "
    if (samples.server_version or 0) // 10000 >= COMPACT_MAJOR:
        return f"{before}raise {knob}, which has no limit of its own since 17."
    if size is not None and size >= OLD_LIMIT_KB:
        return (
            f"{before}{setting} is at the 1 GB that counts before 17: vacuum the table earlier "
            "with a lower autovacuum_vacuum_scale_factor, or upgrade."
        )
    return f"{before}raise {knob}, up to the 1 GB that counts before 17."


def evidence_of(row: Row, samples: Samples) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding."""
    setting, size = memory_of(row, samples)
    known: list[Evidence] = [("Index passes", row["passes"], "count")]
    if size is not None:
        known.append((setting, size * 1024, "bytes"))
        rows = rows_that_fit(size, samples)
        if rows is not None:
            known.append(("Dead rows that fit", rows, "rows"))
    known.append(("Began", row["started_at"], "at"))
    return (*known, ("By", "autovacuum" if row["autovacuum"] else "a session", ""))


ADVISOR = Advisor(
    name="multi_pass_vacuum",
    subject="vacuum",
    plural="Vacuums of {count} tables went over their indexes more than once.",
    defaults=DEFAULTS,
    advise=advise,
    on_standby=False,
    reads=("tables", "progress"),
    kept=True,
)
