"""Tables that are written to while autovacuum is off, for them or for the whole server.

Source: https://www.postgresql.org/docs/current/runtime-config-autovacuum.html
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
from monitors.rules import autovacuum, hurt, setting, wraparound

DEFAULTS = {
    "min_writes": 1,  # rows inserted, updated or deleted since the statistics began
    "min_rows": 1000,  # dead rows; with more, and past the threshold, it is a warning
    "critical_ratio": 50,  # dead rows / the threshold that autovacuum would have
    "critical_rows": 1_000_000,  # dead rows; with fewer, no ratio is critical
}
WRITES = ("n_tup_ins", "n_tup_upd", "n_tup_del")


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the server's switch first: with that off, single tables say nothing new."""
    if not autovacuum.server_enabled(samples.settings):
        yield server_finding(samples, thresholds)
        return
    for row in samples.of("tables"):
        options = autovacuum.parse_options(row["reloptions"])
        if autovacuum.is_on(options.get("autovacuum_enabled", "on")) or row["relkind"] == "t":
            continue
        counts = [row[name] for name in WRITES if row[name] is not None]
        # The past has no counters where they began anew since: a table with rows was written to.
        writes = sum(counts) if counts else (row["n_live_tup"] or 0) + (row["n_dead_tup"] or 0)
        if writes >= thresholds["min_writes"]:
            yield table_finding(row, samples, thresholds)


def server_finding(samples: Samples, thresholds: Thresholds) -> Finding:
    """Say that no table of the server is vacuumed."""
    off = "autovacuum"
    if autovacuum.is_on(samples.settings.get("autovacuum", "on")):
        off = "track_counts"
    return Finding(
        advisor="autovacuum_disabled",
        severity=Severity.CRITICAL,
        title=f"Autovacuum is off on the whole server: {off} is off.",
        why=(
            "No table is vacuumed or analyzed, except to prevent wraparound, and then all at once. "
            f"{setting.remedy_words(off, 'on', samples.settings)}"
        ),
        object_name=off,
        hurt=server_hurt(samples, thresholds),
        evidence=((off, "off", ""),),
        score=1.0,
    )


def server_hurt(samples: Samples, thresholds: Thresholds) -> Hurt:
    """Return that tables are due already, or when the first database's vacuums are forced."""
    due = sum(
        (row["n_dead_tup"] or 0) > max(limit_of(row, samples), thresholds["min_rows"])
        for row in samples.of("tables")
    )
    if due:
        return Hurt(f"{words.count(due, 'table')} would be due for vacuum", already=True)
    forced = wraparound.limits_of(samples.settings).forced
    burn, then = samples.burn.get("xid"), "vacuums to prevent wraparound are forced, all at once"
    dates = [
        hurt.ids_reach(then, row["xid_age"], forced, burn, samples.now)
        for row in samples.of("databases")
    ]
    return hurt.first(dates or [Hurt(f"{then}; no date so far: no age was read")])


def limit_of(row: Row, samples: Samples) -> float:
    """Return the dead rows that autovacuum would come beyond."""
    return autovacuum.threshold_of(row, samples.settings, samples.server_version).vacuum


def table_finding(row: Row, samples: Samples, thresholds: Thresholds) -> Finding:
    """Say what a table has gathered since autovacuum was turned off for it."""
    limit = limit_of(row, samples)
    dead, ratio = row["n_dead_tup"] or 0, (row["n_dead_tup"] or 0) / max(limit, 1)
    past = dead > max(limit, thresholds["min_rows"])
    severity = Severity.WARNING if past else Severity.NOTICE
    if ratio > thresholds["critical_ratio"] and dead > thresholds["critical_rows"]:
        severity = Severity.CRITICAL
    name = table_name(row)
    database = samples.database_names.get(row["database_id"], "")
    place = {"database": database, "table": name}
    gathered = f", which has {words.count(dead, 'dead row')}" if dead else ""
    return Finding(
        advisor="autovacuum_disabled",
        severity=severity,
        title=f"Autovacuum is off for {name} in {database}{gathered}.",
        why=(
            "Nothing vacuums or analyzes it, so it bloats and its plans age: turn it on again (ALTER "
            f"TABLE {name} RESET (autovacuum_enabled)), then vacuum it; tune its thresholds instead."
            if past
            else "Nothing vacuums or analyzes it, so it will bloat and its plans age: turn it on "
            "again, and tune its thresholds instead."
        ),
        object_name=name,
        database_id=row["database_id"],
        relid=row["relid"],
        hurt=table_hurt(row, max(limit, thresholds["min_rows"]), samples),
        evidence=evidence_of(row, limit),
        action="set_autovacuum",
        arguments=place | {"autovacuum_enabled": "reset"},
        score=ratio,
    )


def table_hurt(row: Row, limit: float, samples: Samples) -> Hurt:
    """Return when autovacuum would have come, or a vacuum is forced: what comes first."""
    then = f"past {limit:,.0f} dead rows autovacuum would have come"
    rate = samples.rate("n_dead_tup", row)
    dead = row["n_dead_tup"] or 0
    due = hurt.reaches(then, dead, limit, rate, "dead row", samples.now)
    burn = samples.burn.get("xid")
    return hurt.first(
        [due, hurt.forced(row, samples.settings, samples.next_xid, burn, samples.now)]
    )


def evidence_of(row: Row, limit: float) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding; what never happened is left out."""
    known: list[Evidence] = [
        ("Dead rows", row["n_dead_tup"] or 0, "rows"),
        ("Autovacuum would start beyond", limit, "rows"),
        ("Live rows", row["n_live_tup"] or 0, "rows"),
    ]
    if row["last_vacuum"] is not None:
        known.append(("Last vacuum", row["last_vacuum"], "at"))
    return tuple(known)


ADVISOR = Advisor(
    name="autovacuum_disabled",
    subject="vacuum",
    plural="Autovacuum is off for {count} tables that are written to.",
    defaults=DEFAULTS,
    advise=advise,
    beside=("databases",),
    on_standby=False,
)
