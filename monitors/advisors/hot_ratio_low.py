"""Tables with many updates of which few are HOT: each other one writes to every index.

Source: https://www.postgresql.org/docs/current/storage-hot.html
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
from monitors.rules import autovacuum

DEFAULTS = {
    "min_updates": 10_000,  # in the last day
    "notice_pct": 50,  # of the updates are HOT, or fewer
    "warning_pct": 10,
    "warning_updates": 1_000_000,  # in the last day; with fewer, no share is a warning
    "newpage_pct": 50,  # of the updates that are not HOT: from here on full pages are the cause
}
NEWPAGE_MAJOR = 16  # n_tup_newpage_upd
LEAST_FILLFACTOR = 70
STEPS = (90, 80, LEAST_FILLFACTOR)
SHOWN = 8  # names of indexes


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge what each table's counters grew by in the last day."""
    for row in samples.updated:
        updates, hot = row["n_tup_upd"] or 0, row["n_tup_hot_upd"] or 0
        if updates <= thresholds["min_updates"] or not row["indexes"]:
            continue  # without an index every update that fits its page is HOT
        pct = 100 * hot / updates
        if pct < thresholds["notice_pct"]:
            yield finding_of(row, pct, samples, thresholds)


def finding_of(row: Row, pct: float, samples: Samples, thresholds: Thresholds) -> Finding:
    """Say how few are HOT, and why as far as the server tells."""
    name, updates = table_name(row), row["n_tup_upd"]
    bad = pct < thresholds["warning_pct"] and updates > thresholds["warning_updates"]
    database = samples.database_names.get(row["database_id"], "")
    return Finding(
        advisor="hot_ratio_low",
        severity=Severity.WARNING if bad else Severity.NOTICE,
        title=f"Of {words.count(updates, 'update')} of {name} in {database} in the last day "
        f"{pct:.0f} % were HOT.",
        why=cause_of(row, samples, thresholds),
        object_name=name,
        hurt=hurt_of(row),
        database_id=row["database_id"],
        relid=row["relid"],
        evidence=evidence_of(row, pct, samples),
        score=updates / max(thresholds["min_updates"], 1),
    )


def hurt_of(row: Row) -> Hurt:
    """Return what it costs already: each update that is not HOT writes to every index."""
    cold, indexes = row["n_tup_upd"] - (row["n_tup_hot_upd"] or 0), len(row["indexes"])
    places = f"its {indexes} indexes" if indexes > 1 else "its index"
    text = f"{words.count(cold, 'update')} in the last day wrote to {places} too"
    return Hurt(text, already=True)


def newpage_pct(row: Row, samples: Samples) -> float | None:
    """Return the share of the updates not HOT whose page was full, None before 16."""
    cold = row["n_tup_upd"] - (row["n_tup_hot_upd"] or 0)
    if (samples.server_version or 0) // 10000 < NEWPAGE_MAJOR or cold <= 0:
        return None
    return min(100.0, float(100 * (row["n_tup_newpage_upd"] or 0) / cold))


def cause_of(row: Row, samples: Samples, thresholds: Thresholds) -> str:
    """Return a sentence on the cause, and what to do about it."""
    share = newpage_pct(row, samples)
    room, columns = roomier(row), f"an update changes a column of an index ({names_of(row)})"
    if share is None:
        return f"Either pages are full ({room}) or {columns}: the server tells which from 16 on."
    if share >= thresholds["newpage_pct"]:
        return f"Pages were full, so {share:.0f} % of the others went to another page: {room}."
    return (
        f"Pages had room, so {columns}: drop what no query needs, or leave the column alone "
        "where its value stays the same."
    )


def roomier(row: Row) -> str:
    """Return the next lower fillfactor as advice; it counts for pages written from then on."""
    now = int(autovacuum.parse_options(row["reloptions"]).get("fillfactor", "100"))
    step = next((one for one in STEPS if one < now), None)
    if step is None:
        return f"its fillfactor is {now}, lower is no use; vacuum it more often"
    return (
        f"ALTER TABLE {table_name(row)} SET (fillfactor = {step}), for pages written from then on"
    )


def names_of(row: Row) -> str:
    """Return the names of a table's indexes, at most SHOWN."""
    shown = ", ".join(row["indexes"][:SHOWN])
    left = len(row["indexes"]) - SHOWN
    return f"{shown} and {left} more" if left > 0 else shown


def evidence_of(row: Row, pct: float, samples: Samples) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding."""
    known: list[Evidence] = [
        ("Updates in the last day", row["n_tup_upd"], "rows"),
        ("HOT", pct, "pct"),
    ]
    share = newpage_pct(row, samples)
    if share is not None:
        known.append(("Of the others to another page", share, "pct"))
    return (*known, ("Indexes", len(row["indexes"]), "count"))


ADVISOR = Advisor(
    name="hot_ratio_low",
    subject="vacuum",
    plural="Few updates of {count} tables are HOT.",
    defaults=DEFAULTS,
    advise=advise,
    on_standby=False,
    kept=True,
)
