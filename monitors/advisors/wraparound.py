"""Databases whose transaction ids or multixact ids run out, with the date.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

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
)
from monitors.rules import wraparound
from monitors.rules.wraparound import Burn, Forecast, Limits

DEFAULTS = {
    "warning_pct": 50,  # of the age at which no new id is given out
    "critical_pct": 80,
    "notice_days": 7,  # until forced vacuums begin
}
AGES = {"xid": "xid_age", "mxid": "mxid_age"}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge each database by both kinds of id."""
    for kind, column in AGES.items():
        limits = wraparound.limits_of(samples.settings, kind)
        burn = samples.burn.get(kind, wraparound.burn_of([]))
        for row in samples.of("databases"):
            age = row[column]
            if age is None or wraparound.is_invalid(row):
                continue
            share = wraparound.pct(age) or 0.0
            severity = severity_of(share, thresholds, "pct")
            if severity is not None:
                yield stopping(samples, row, kind, limits, burn, severity)
            else:
                yield from forced(samples, row, kind, limits, burn, thresholds["notice_days"])


def stopping(
    samples: Samples, row: Row, kind: str, limits: Limits, burn: Burn, severity: Severity
) -> Finding:
    """Say how much is used up and when the server stops."""
    age, ids = row[AGES[kind]], wraparound.NAMES[kind]
    found = wraparound.forecast(age, limits.stop, burn, (), samples.now)
    when = (
        f"at {words.short((burn.mean or 0) * wraparound.HOUR)} an hour the server stops "
        f"giving them out on {words.day(found.at, samples.now)}"
        if found.at
        else f"when the server stops can't be said ({found.why.rstrip('.').lower()})"
    )
    share = wraparound.pct(age) or 0.0
    return Finding(
        advisor="wraparound",
        severity=severity,
        title=f"{row['datname']} has used {share:.0f} % of its {ids}; {when}.",
        why="From then on nothing can be written until the oldest tables are frozen. Vacuum them "
        "with FREEZE now, and look for what holds the horizon back: it keeps freezing back too.",
        object_name=row["datname"],
        database_id=database_of(samples, row),
        evidence=evidence_of(row, kind, limits, burn),
        score=share / 100,
        part=kind,
        hurt=hurt_of("the server gives out no new ids, and nothing can be written", found),
    )


def forced(
    samples: Samples, row: Row, kind: str, limits: Limits, burn: Burn, days: float
) -> Iterator[Finding]:
    """Say when forced vacuums begin, if that is soon, or that they have."""
    age = row[AGES[kind]]
    found = wraparound.forecast(age, limits.forced, burn, (), samples.now)
    near = found.at is not None and found.at - samples.now <= timedelta(days=days)
    if not (near or found.passed):
        return
    when = f"begin about {words.day(found.at, samples.now)}" if found.at else "are due now"
    ids = "" if kind == "xid" else " for multixact ids"
    yield Finding(
        advisor="wraparound",
        severity=Severity.NOTICE,
        title=f"Forced vacuums of {row['datname']}{ids} {when}.",
        why="They run whatever autovacuum's settings say and don't yield to locks. Freezing the "
        "oldest tables at a quiet hour before spares the busy one.",
        object_name=row["datname"],
        database_id=database_of(samples, row),
        evidence=evidence_of(row, kind, limits, burn),
        score=age / limits.forced,
        part=kind,
        hurt=hurt_of("vacuums to prevent wraparound begin, whatever the settings say", found),
    )


def hurt_of(then: str, found: Forecast) -> Hurt:
    """Return a forecast with what happens then, or why there is none."""
    if found.at is None and not found.passed:
        why = found.why.rstrip(".")
        then = f"{then}; no date: {why[:1].lower()}{why[1:]}"
    return Hurt(then, at=found.at, already=found.passed)


def database_of(samples: Samples, row: Row) -> int | None:
    """Return our own id of a database, None where it isn't watched."""
    ids = {name: database_id for database_id, name in samples.database_names.items()}
    return ids.get(row["datname"])


def evidence_of(row: Row, kind: str, limits: Limits, burn: Burn) -> tuple[Evidence, ...]:
    """Return the age, the limit and the burn."""
    known: list[Evidence] = [
        ("Age", row[AGES[kind]], "count"),
        ("Forced vacuum beyond", limits.forced, "count"),
    ]
    if burn.mean is not None:
        known.append(("Used up an hour", round(burn.mean * wraparound.HOUR), "count"))
    return tuple(known)


ADVISOR = Advisor(
    name="wraparound",
    subject="wraparound",
    plural="{count} limits of ids are near.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("databases",),
)
