"""Running autovacuums whose speed is that of the cost limit, not of the storage.

Source: https://www.postgresql.org/docs/current/runtime-config-vacuum.html#RUNTIME-CONFIG-RESOURCE-VACUUM-COST
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    seconds_since,
    table_name,
)
from monitors.rules import autovacuum, hurt, setting

DEFAULTS = {
    "min_seconds": 600,  # a vacuum that is younger is nobody's trouble
    "warning_seconds": 7200,  # still to go at this speed
    "near_pct": 80,  # of the speed that the limit allows; measured sleep: of the time
    "over_pct": 130,  # faster than so, its pages are not dirtied and the limit is another
}
DIRTIED = 22  # cost of a page that is read (2) and dirtied (20)
PAGE = 8192


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge autovacuums in their first scan of the heap: later phases tell no speed."""
    running = [row for row in samples.of("progress") if is_scan(row)]
    workers = sum(
        row["autovacuum"] and row["command"] == "VACUUM" for row in samples.of("progress")
    )
    for row in running:
        seconds = seconds_since(row["started_at"], samples.now)
        if seconds < max(thresholds["min_seconds"], 1) or not row["done"]:
            continue
        table = table_of(row, samples)
        limit = limit_of(table, workers, samples.settings)
        pct = slept_pct(row, seconds)
        if pct is None and limit:
            pct = 100 * row["done"] / seconds / limit
        if pct is None or not thresholds["near_pct"] <= pct <= thresholds["over_pct"]:
            continue
        yield finding_of(row, table, samples, thresholds, limit)


def is_scan(row: Row) -> bool:
    """Tell whether a row is an autovacuum's first scan; to prevent wraparound counts too."""
    return bool(
        row["autovacuum"]
        and row["command"] == "VACUUM"
        and row["phase"] == "scanning heap"
        and not row["index_vacuum_count"]
    )


def table_of(row: Row, samples: Samples) -> Row | None:
    """Return the table that a vacuum works on, None where it wasn't read so far."""
    names = samples.database_names
    for table in samples.of("tables"):
        place = (names.get(table["database_id"]), table["relid"])
        if place == (row["datname"], row["relid"]):
            return table
    return None


def limit_of(table: Row | None, workers: int, settings: Mapping[str, str]) -> float | None:
    """Return how many pages a second the cost limit lets one worker dirty; None: as many as it can.

    Workers share the limit, except one whose table has its own.
    """
    options = autovacuum.parse_options(table["reloptions"] if table else None)
    own = "autovacuum_vacuum_cost_limit" in options or "autovacuum_vacuum_cost_delay" in options
    delay = float(
        options.get(
            "autovacuum_vacuum_cost_delay", settings.get("autovacuum_vacuum_cost_delay", "2")
        )
    )
    limit = float(
        options.get(
            "autovacuum_vacuum_cost_limit", settings.get("autovacuum_vacuum_cost_limit", "-1")
        )
    )
    if limit < 0:
        limit = float(settings.get("vacuum_cost_limit", "200"))
    if delay <= 0:
        return None
    return 1000 / delay * limit / DIRTIED / (1 if own else max(workers, 1))


def slept_pct(row: Row, seconds: float) -> float | None:
    """Return the measured share of the time that it slept, None where the server doesn't say."""
    slept = row.get("delay_time")  # ms
    return 100 * slept / 1000 / seconds if slept else None


def finding_of(
    row: Row, table: Row | None, samples: Samples, thresholds: Thresholds, limit: float | None
) -> Finding:
    """Say how fast it goes, when it would be done, and what makes it go faster."""
    seconds = seconds_since(row["started_at"], samples.now)
    speed = row["done"] / seconds
    left = max((row["total"] or 0) - row["done"], 0) / speed
    name = table_name(table) if table else f"relation {row['relid']}"
    ids = {datname: database_id for database_id, datname in samples.database_names.items()}
    late = left > thresholds["warning_seconds"]
    knobs = ("autovacuum_vacuum_cost_limit", "autovacuum_vacuum_cost_delay")
    needs = [setting.change_needs(knob, samples.settings, "reload") for knob in knobs]
    return Finding(
        advisor="vacuum_slow",
        severity=Severity.WARNING if late else Severity.NOTICE,
        title=f"Autovacuum of {name} in {row['datname']} goes as slowly as the cost limit has it: "
        f"{words.duration(left)} to go for its first scan.",
        why=(
            "It sleeps most of the time while dead rows gather; raise autovacuum_vacuum_cost_limit "
            f"({needs[0]}) or lower autovacuum_vacuum_cost_delay ({needs[1]}): "
            "from 16 on a reload counts at once."
        ),
        object_name=name,
        database_id=ids.get(row["datname"]),
        relid=row["relid"],
        hurt=hurt_of(row, table, samples, seconds, left),
        evidence=evidence_of(row, seconds, speed, limit, samples),
        score=left / max(thresholds["warning_seconds"], 1),
    )


def hurt_of(row: Row, table: Row | None, samples: Samples, seconds: float, left: float) -> Hurt:
    """Return whether the table is due again, or a vacuum of it is forced, before this one is done."""
    if table is None:
        return Hurt("no date so far: its table was not read yet")
    done_at = samples.now + timedelta(seconds=left)
    limit = autovacuum.threshold_of(table, samples.settings, samples.server_version).vacuum
    rate = samples.rate("n_dead_tup", table)
    died = max(rate.per_second, 0) * seconds if rate is not None else 0
    then = "as many rows have died since it began as make the table due again"
    found = hurt.reaches(then, died, limit, rate, "dead row", samples.now)
    if not row["wraparound"]:
        burn = samples.burn.get("xid")
        forced = hurt.forced(table, samples.settings, samples.next_xid, burn, samples.now)
        found = hurt.first([found, forced])
    if found.at is not None and found.at > done_at:
        when = words.day(done_at, samples.now)
        return Hurt(f"no date: its first scan is done about {when}, before the table is due again")
    return found


def evidence_of(
    row: Row, seconds: float, speed: float, limit: float | None, samples: Samples
) -> tuple[Evidence, ...]:
    """Return the numbers behind the finding."""
    known: list[Evidence] = [
        ("Running for", seconds, "seconds"),
        ("Scanned", row["done"] * PAGE, "bytes"),
        ("Of", (row["total"] or 0) * PAGE, "bytes"),
        ("Pages a second", speed, "count"),
    ]
    if limit is not None:
        known.append(("The limit lets it dirty, pages a second", limit, "count"))
    slept = slept_pct(row, seconds)
    if slept is not None:
        known.append(("Slept", slept, "pct"))
    left = max((row["total"] or 0) - row["done"], 0) / speed
    return (*known, ("First scan done", samples.now + timedelta(seconds=left), "at"))


ADVISOR = Advisor(
    name="vacuum_slow",
    subject="vacuum",
    plural="{count} autovacuums go as slowly as the cost limit has it.",
    defaults=DEFAULTS,
    advise=advise,
    on_standby=False,
    reads=("progress",),
    beside=("tables", "databases"),
    opens_after=60,
)
