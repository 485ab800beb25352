"""Tables and indexes that waste much of their room, by share and by bytes.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from monitors import words
from monitors.advisor import (
    DAY,
    Advisor,
    Evidence,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    table_name,
    times_of,
)
from monitors.rules import hurt
from monitors.rules.bloat import AFTER_REWRITE, APPROX, ESTIMATE, EXACT, is_doubtful
from monitors.rules.wraparound import FAR

DEFAULTS = {
    "notice_pct": 30,  # wasted, of the size; both the share and the bytes must be passed
    "notice_bytes": 100 * 1024**2,
    "warning_pct": 50,
    "warning_bytes": 1024**3,
}
REPACK_MAJOR = 19  # rewrites a table while it is used
OPEN_MEANWHILE = "rt"
"""Kinds of relations that it can do so: ordinary tables and with them their TOAST tables."""
CONFIDENCE = {
    ESTIMATE: "That is an estimate by statistics, good to about 6 points where they are fresh: "
    "measure it before you rewrite anything.",
    APPROX: "Measured by pgstattuple, page by page where rows have changed.",
    EXACT: "Measured exactly by pgstattuple.",
    AFTER_REWRITE: "By the bytes a row that it had after its last rewrite.",
}

DOUBT = (
    "That is an estimate by a number of rows that VACUUM extrapolated after the last ANALYZE, and "
    "may be 16 points off: measure it before you rewrite anything."
)


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge what has a figure; where statistics are missing there is none, and no finding."""
    for row in samples.of("bloat"):
        severity = severity_of(row, thresholds)
        if severity is not None:
            database = samples.database_names.get(row["database_id"], "")
            hurts = hurt_of(row, severity, samples, thresholds)
            remedy = remedy_of(row, samples.server_version or 0)
            yield finding_of(row, database, severity, thresholds, hurts, remedy)


def severity_of(row: Row, thresholds: Thresholds) -> Severity | None:
    """Return how bad an object's waste is, None below either threshold or where nothing is known."""
    waste, share = row["bloat_bytes"], row["bloat_pct"]
    if waste is None or share is None or row["method"] not in CONFIDENCE:
        return None
    for severity in (Severity.WARNING, Severity.NOTICE):
        if severity == Severity.WARNING and is_doubtful(row):
            continue
        name = severity.name.lower()
        if waste >= thresholds[f"{name}_bytes"] and share >= thresholds[f"{name}_pct"]:
            return severity
    return None


def subject_of(row: Row) -> str:
    """Return `public.orders`, `TOAST of public.orders` or `public.orders_pkey`."""
    if row["indexrelname"]:
        return f"{words.quoted(row['schemaname'])}.{words.quoted(row['indexrelname'])}"
    return f"TOAST of {table_name(row)}" if row["relkind"] == "t" else table_name(row)


def hurt_of(row: Row, severity: Severity, samples: Samples, thresholds: Thresholds) -> Hurt:
    """Return when both the share and the bytes of a warning are passed."""
    share, size = thresholds["warning_pct"] / 100, thresholds["warning_bytes"]
    then = f"{words.size(size)} and {thresholds['warning_pct']:g} % are wasted"
    if severity >= Severity.WARNING:
        return Hurt(then, already=True)
    waste, grown = samples.rate("bloat_bytes", row), samples.rate("size_bytes", row)
    why = hurt.none_of(waste, "wasted byte", DAY)
    if why or waste is None or grown is None:
        return Hurt(f"{then}; {why or hurt.NOT_MEASURED}")
    # The size grows too, so the waste has to catch up with its share of more and more.
    lacking = share * row["size_bytes"] - row["bloat_bytes"]
    closing = waste.per_second - share * grown.per_second
    if lacking > 0 and closing <= 0:
        return Hurt(f"{then}; no date: the share of the waste does not grow")
    seconds = max(
        (size - row["bloat_bytes"]) / waste.per_second, lacking / closing if lacking > 0 else 0
    )
    if seconds > FAR.total_seconds():
        return Hurt(f"{then}; {hurt.FAR_AWAY}")
    more = (
        f"{words.size(waste.per_second * DAY)} a day over the last {words.duration(waste.seconds)}"
    )
    return Hurt(f"{then}, at {more}", at=samples.now + timedelta(seconds=max(seconds, 0)))


@dataclass(frozen=True)
class Remedy:
    """What gives the room back: a sentence, and the action that may be offered, '' for none."""

    helps: str
    action: str
    relid: int  # of what it acts on: a TOAST table is rewritten with its table


def remedy_of(row: Row, server_version: int) -> Remedy:
    """Return the remedy that keeps the fewest from working."""
    if row["indexrelname"]:
        return Remedy("REINDEX CONCURRENTLY gives it back.", "reindex", row["relid"])
    if server_version // 10000 >= REPACK_MAJOR and row["relkind"] in OPEN_MEANWHILE:
        helps = "REPACK (CONCURRENTLY) gives it back while the table is used."
        return Remedy(helps, "repack", row["tablerelid"])
    helps = "Only a rewrite gives it back, and VACUUM FULL locks everybody out meanwhile."
    return Remedy(helps, "", row["relid"])


def finding_of(
    row: Row, database: str, severity: Severity, thresholds: Thresholds, hurts: Hurt, remedy: Remedy
) -> Finding:
    """Say what is wasted, how that is known, and what would help or tell more."""
    is_index = bool(row["indexrelname"])
    estimated = row["method"] == ESTIMATE
    rows = "entries" if is_index else "rows"
    sure = DOUBT if is_doubtful(row) else CONFIDENCE[row["method"]]
    why = f"{sure} New {rows} fill it again. {remedy.helps}"
    action, relid = ("measure_bloat", row["relid"]) if estimated else (remedy.action, remedy.relid)
    name = subject_of(row)
    return Finding(
        advisor="bloat",
        severity=severity,
        title=f"{'Index ' if is_index else ''}{name} in {database} wastes {words.size(row['bloat_bytes'])} "
        f"of {words.size(row['size_bytes'])} ({row['bloat_pct']:.0f} %).",
        why=why,
        object_name=name,
        hurt=hurts,
        database_id=row["database_id"],
        relid=row["tablerelid"],
        evidence=evidence_of(row),
        action=action,
        arguments=arguments_of(row, database, relid) if action else {},
        score=times_of(row["bloat_bytes"], thresholds["notice_bytes"]),
    )


def arguments_of(row: Row, database: str, relid: int) -> dict[str, str]:
    """Return the arguments that name the object."""
    if row["indexrelname"]:
        name = f"{words.quoted(row['schemaname'])}.{words.quoted(row['indexrelname'])}"
        return {"database": database, "index": name}
    return {"database": database, "relid": str(relid)}


def evidence_of(row: Row) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding, with their method and age."""
    known: list[Evidence] = [
        ("Wasted", row["bloat_bytes"], "bytes"),
        ("Share", row["bloat_pct"], "pct"),
        ("Size", row["size_bytes"], "bytes"),
        ("Method", row["method"], ""),
    ]
    times = (("Known since", row["measured_at"]), ("Statistics of", row["stats_at"]))
    return (*known, *((label, moment, "at") for label, moment in times if moment is not None))


ADVISOR = Advisor(
    name="bloat",
    subject="bloat",
    plural="{count} tables and indexes waste much of their room.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("bloat",),
)
