"""Big tables that only grow and were never vacuumed: all of them is frozen in one go one day.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from monitors import words
from monitors.advisor import (
    HOUR,
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
from monitors.rules import autovacuum, wraparound

DEFAULTS = {
    "min_bytes": 1_000_000_000,  # of the table itself
    "visible_pct": 10,  # of its pages are marked all-visible, or fewer
    "warning_days": 30,  # until a vacuum to prevent wraparound is forced
}
PAGE = 8192
THEN = "a vacuum to prevent wraparound has to read and freeze all of it"


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge tables without any update or delete since the statistics began."""
    for row in samples.of("tables"):
        if row["relkind"] != "r" or not row["n_tup_ins"] or row["n_tup_upd"] or row["n_tup_del"]:
            continue
        if row["last_vacuum"] is not None or row["last_autovacuum"] is not None:
            continue
        size = (row["relpages"] or 0) * PAGE
        visible = visible_pct(row)
        if size >= thresholds["min_bytes"] and visible <= thresholds["visible_pct"]:
            yield finding_of(row, size, visible, samples, thresholds)


def visible_pct(row: Row) -> float:
    """Return the share of pages that a vacuum may skip."""
    return 100 * (row["relallvisible"] or 0) / max(row["relpages"] or 0, 1)


def age_of(row: Row, samples: Samples) -> int | None:
    """Return how many transactions old the table's oldest row may be."""
    return autovacuum.xid_age(samples.next_xid, row["relfrozenxid"])


def forced_at(row: Row, samples: Samples) -> datetime | None:
    """Return when a vacuum to prevent wraparound is forced at the rate of the last day."""
    age, rate = age_of(row, samples), samples.xids_per_second
    if age is None or not rate or rate <= 0:
        return None
    most = wraparound.limits_of(samples.settings, "xid", row["reloptions"]).forced
    seconds = max(most - age, 0) / rate
    if seconds > wraparound.FAR.total_seconds():
        return None
    return samples.now + timedelta(seconds=seconds)


def hurt_of(row: Row, forced: datetime | None, samples: Samples) -> Hurt:
    """Return when a vacuum is forced, or why that can't be told."""
    age, rate = age_of(row, samples), samples.xids_per_second
    if age is None:
        return Hurt(f"{THEN}; no date: its age is not known")
    if age > wraparound.limits_of(samples.settings, "xid", row["reloptions"]).forced:
        return Hurt(THEN, already=True)
    if forced is not None and rate:
        return Hurt(f"{THEN}, at {words.short(rate * HOUR)} ids an hour", at=forced)
    if rate is None:
        return Hurt(f"{THEN}; no date so far: needs ten minutes of history")
    if rate <= 0:
        return Hurt(f"{THEN}; no date: no transaction id was used in the last day")
    return Hurt(f"{THEN}; no date: not within 10 years at the present rate")


def finding_of(
    row: Row, size: int, visible: float, samples: Samples, thresholds: Thresholds
) -> Finding:
    """Say that it was never vacuumed, and when it will have to be."""
    name, forced = table_name(row), forced_at(row, samples)
    database = samples.database_names.get(row["database_id"], "")
    soon = forced is not None and forced - samples.now < timedelta(days=thresholds["warning_days"])
    when = f" It is forced {day_of(forced)} at the present rate." if forced else ""
    return Finding(
        advisor="insert_only_unfrozen",
        severity=Severity.WARNING if soon else Severity.NOTICE,
        title=f"{name} in {database} only grows and was never vacuumed.",
        why=(
            "A vacuum to prevent wraparound will have to read and freeze all of it at once, and "
            f"index-only scans visit the table until then: vacuum it in a quiet hour.{when}"
        ),
        object_name=name,
        database_id=row["database_id"],
        relid=row["relid"],
        hurt=hurt_of(row, forced, samples),
        evidence=evidence_of(row, size, visible, samples),
        action="vacuum",
        arguments={"database": database, "table": name, "freeze": "true"},
        score=size / max(thresholds["min_bytes"], 1),
    )


def day_of(moment: datetime) -> str:
    """Return `on 3 March 2027`."""
    return f"on {moment.day} {moment:%B %Y}"


def evidence_of(row: Row, size: int, visible: float, samples: Samples) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding."""
    known: list[Evidence] = [
        ("Size of the table", size, "bytes"),
        ("Rows", max(row["reltuples"] or 0, row["n_live_tup"] or 0), "rows"),
        ("Pages that are all-visible", visible, "pct"),
    ]
    age = age_of(row, samples)
    if age is not None:
        known.append(("Age in transactions", age, "count"))
    if samples.xids_per_second is not None:
        known.append(("Transactions a day", samples.xids_per_second * 86400, "count"))
    return tuple(known)


ADVISOR = Advisor(
    name="insert_only_unfrozen",
    subject="vacuum",
    plural="{count} big tables only grow and were never vacuumed.",
    defaults=DEFAULTS,
    advise=advise,
    beside=("databases",),
    on_standby=False,
    kept=True,
)
