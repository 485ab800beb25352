"""Dead rows that no vacuum can remove, because somebody may still see them.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY
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
    Thresholds,
    severity_of,
    table_name,
)
from monitors.rules import horizon, hurt, wraparound

DEFAULTS = {
    "min_rows": 1000,  # dead rows of a table; fewer are nobody's trouble
    "notice_seconds": 3600,  # for which the horizon has been held
    "warning_seconds": 21600,
    "critical_seconds": 86400,
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Name the oldest holder of each database that has dead rows, once each.

    What it does not know the date of it says nothing about: the history may begin later.
    """
    holders = horizon.oldest_first(row for row in samples.of("horizon") if row.get("held"))
    mains = {(row["database_id"], row["toastrelid"]): row for row in samples.of("tables")}
    kept: dict[tuple[str, str], list[tuple[Row, str]]] = {}
    for table in samples.of("tables"):
        datname = samples.database_names.get(table["database_id"], "")
        if (table["n_dead_tup"] or 0) <= thresholds["min_rows"]:
            continue
        holder = next((row for row in holders if horizon.blocks(row, datname)), None)
        if holder is not None:
            main = mains.get((table["database_id"], table["relid"]))
            name = table_name(main if main and table["relkind"] == "t" else table)
            kept.setdefault((holder["kind"], holder["holder"]), []).append((table, name))
    for holder in holders:
        tables = kept.get((holder["kind"], holder["holder"]))
        if tables:
            yield from finding_of(samples, holder, tables, thresholds)


def finding_of(
    samples: Samples, holder: Row, tables: list[tuple[Row, str]], thresholds: Thresholds
) -> Iterator[Finding]:
    """Say which tables a holder keeps from being cleaned, where it has done so for long."""
    seconds = holder["held"].seconds(samples.now)
    severity = severity_of(seconds, thresholds, "seconds")
    if severity is None:
        return
    ranked = sorted(tables, key=lambda pair: -pair[0]["n_dead_tup"])
    worst = ranked[0][0]
    remedy = horizon.remedy(holder, backend_of(samples, holder), samples.server_version)
    dead = sum(table["n_dead_tup"] for table, _ in tables)
    names = list(dict.fromkeys(name for _, name in ranked))
    yield Finding(
        advisor="horizon_held",
        severity=severity,
        title=f"{horizon.table_words(names)} can't be cleaned: "
        f"{horizon.name_of(holder, samples.now)} holds the horizon.",
        why=f"Rows that died after it began to hold stay in {horizon.scope_of(holder)}, "
        f"whatever vacuum does. {remedy.text}",
        object_name=f"pid {holder['holder']}" if remedy.action else holder["holder"],
        hurt=hurt_of(samples, holder),
        database_id=worst["database_id"],
        pid=int(holder["holder"]) if holder["kind"] == horizon.SESSION else None,
        evidence=evidence_of(samples, holder, dead),
        action=remedy.action,
        arguments=remedy.arguments,
        score=seconds / max(thresholds["notice_seconds"], 1),
    )


def hurt_of(samples: Samples, holder: Row) -> Hurt:
    """Return since when it hurts at least, and from when on freezing is of no use either."""
    then = "vacuums to prevent wraparound free nothing"
    forced = hurt.ids_reach(
        then,
        holder["xmin_age"],
        wraparound.limits_of(samples.settings).forced,
        samples.burn.get("xid"),
        samples.now,
    )
    more = ""
    if forced.already:
        more = f"; {then}"
    elif forced.at is not None:
        more = f"; about {words.day(forced.at, samples.now)} also {then}"
    text = f"no vacuum removes what died since{more}"
    return Hurt(text, at=holder["held"].latest, already=True)


def backend_of(samples: Samples, holder: Row) -> Row | None:
    """Return a session's activity row, None where it has ended since or is none."""
    if holder["kind"] != horizon.SESSION:
        return None
    backends = {(row["pid"], row["backend_start"]): row for row in samples.of("activity")}
    return backends.get(horizon.key_of(holder))


def evidence_of(samples: Samples, holder: Row, dead: int) -> tuple[Evidence, ...]:
    """Return for how long, how far back and how many rows."""
    return (
        ("Held for at least", holder["held"].seconds(samples.now), "seconds"),
        ("Transactions since", holder["xmin_age"], "count"),
        ("Dead rows in its scope", dead, "rows"),
    )


ADVISOR = Advisor(
    name="horizon_held",
    subject="vacuum",
    plural="{count} holders keep dead rows from being removed.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("horizon", "tables"),
    beside=("activity", "databases"),
)
