"""Which tables autovacuum takes next and why: the server's own score, on every version.

From 19 on the server sorts its list by this score and shows it in
`pg_stat_autovacuum_scores`; up to 18 it takes tables as they stand in `pg_class`.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#AUTOVACUUM
and `relation_needs_vacanalyze()`, `do_autovacuum()` and `do_start_worker()` in
src/backend/postmaster/autovacuum.c of 14 to 19.

Long, since the scores of all triggers, and the order that comes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from monitors.rules import autovacuum

SCORE_MAJOR = 19  # sorts by score
FREEZE_DEFAULTS = {
    "autovacuum_freeze_max_age": 200_000_000,
    "autovacuum_multixact_freeze_max_age": 400_000_000,
}
FAILSAFE_DEFAULTS = {
    "vacuum_failsafe_age": 1_600_000_000,
    "vacuum_multixact_failsafe_age": 1_600_000_000,
}
FAILSAFE_FACTOR = 1.05  # the failsafe never begins before so many times the freeze age
FAILSAFE_STEP = 100_000_000  # past the failsafe age a score is raised to age / step
WEIGHTS = {  # 19+; 1 on every older version
    "xid": "autovacuum_freeze_score_weight",
    "mxid": "autovacuum_multixact_freeze_score_weight",
    "vacuum": "autovacuum_vacuum_score_weight",
    "vacuum_insert": "autovacuum_vacuum_insert_score_weight",
    "analyze": "autovacuum_analyze_score_weight",
}
REASONS = {
    "xid": "transaction ids",
    "mxid": "multixact ids",
    "vacuum": "dead rows",
    "vacuum_insert": "inserted rows",
    "analyze": "changed rows",
}
OWN_ANALYZE = 2619  # pg_statistic is never analyzed
LAST = (2**40, 0)  # behind every place in pg_class
CTID = re.compile(r"\((\d+),(\d+)\)")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """What each count of a table must exceed before autovacuum acts; None: it never does for that."""

    vacuum: float
    vacuum_insert: float | None
    analyze: float | None
    xid: int
    mxid: int
    enabled: bool  # else only a vacuum to prevent wraparound comes


@dataclass(frozen=True)
class Scores:
    """How far a table is on its way to each threshold: count / threshold * weight.

    A component is None where it does not count: autovacuum is off, inserts alone
    never trigger, or an age is not known.
    """

    xid: float | None
    mxid: float | None
    vacuum: float | None
    vacuum_insert: float | None
    analyze: float | None
    do_vacuum: bool
    do_analyze: bool
    for_wraparound: bool

    @property
    def parts(self) -> dict[str, float]:
        """The components that count, by name."""
        return {name: part for name in REASONS if (part := getattr(self, name)) is not None}

    @property
    def score(self) -> float:
        """The greatest component, 0 where none counts."""
        return max(self.parts.values(), default=0.0)

    @property
    def is_due(self) -> bool:
        """Whether autovacuum would act on the table now."""
        return self.do_vacuum or self.do_analyze

    @property
    def reason(self) -> str:
        """The name of the greatest component, '' where none counts."""
        parts = self.parts
        return max(parts, key=lambda name: parts[name]) if parts else ""


def options_of(row: Row, main: Row | None) -> list[str] | None:
    """Return the storage options that hold for a table: a TOAST table without any has its main's."""
    own: list[str] | None = row["reloptions"]
    return own or (main["reloptions"] if main is not None else None)


def freeze_age(name: str, settings: Mapping[str, str], options: Mapping[str, str]) -> int:
    """Return the lesser of a table's and the server's freeze age: an option can only lower it."""
    age = int(settings.get(name, FREEZE_DEFAULTS[name]))
    return min(age, int(options[name])) if name in options else age


def limits_of(
    row: Row, main: Row | None, settings: Mapping[str, str], server_version: int | None
) -> Limits:
    """Return the limits of a `tables` row; `main` is a TOAST table's main table."""
    texts = options_of(row, main)
    counts = autovacuum.threshold_of(row, settings, server_version, texts)
    options = autovacuum.parse_options(texts)
    return Limits(
        vacuum=counts.vacuum,
        vacuum_insert=counts.insert,
        analyze=counts.analyze if row["relid"] != OWN_ANALYZE else None,
        xid=freeze_age("autovacuum_freeze_max_age", settings, options),
        mxid=freeze_age("autovacuum_multixact_freeze_max_age", settings, options),
        enabled=counts.enabled,
    )


def mxid_age(next_mxid: int | None, relminmxid: int | None) -> int | None:
    """Return how many multixact ids ago one was assigned, None where either is unknown."""
    if next_mxid is None or not relminmxid:
        return None
    difference = (next_mxid - relminmxid) % autovacuum.XIDS
    return difference if difference < autovacuum.XIDS // 2 else 0


def scores_of(
    row: Row,
    limits: Limits,
    settings: Mapping[str, str],
    *,
    next_xid: int | None,
    next_mxid: int | None = None,
) -> Scores:
    """Return a table's scores from its `tables` row and the server's next ids."""
    relfrozenxid = row["relfrozenxid"] or 0
    age = (
        autovacuum.xid_age(next_xid, relfrozenxid)
        if relfrozenxid >= autovacuum.FIRST_NORMAL_XID
        else None
    )
    multi = mxid_age(next_mxid, row["relminmxid"])
    forced = (age or 0) > limits.xid or (multi or 0) > limits.mxid

    def of(name: str, count: float | None, limit: float | None) -> float | None:
        if not limits.enabled or count is None or limit is None:
            return None
        return weight_of(name, settings) * count / max(limit, 1)

    def passed(count: float | None, limit: float | None) -> bool:
        return limits.enabled and limit is not None and (count or 0) > limit

    dead, inserted = counted_dead(row), row["n_ins_since_vacuum"]
    changed = row["n_mod_since_analyze"]
    return Scores(
        xid=age_score("xid", "vacuum_failsafe_age", age, limits.xid, settings),
        mxid=age_score("mxid", "vacuum_multixact_failsafe_age", multi, limits.mxid, settings),
        vacuum=of("vacuum", dead, limits.vacuum),
        vacuum_insert=of("vacuum_insert", inserted, limits.vacuum_insert),
        analyze=of("analyze", changed, limits.analyze),
        do_vacuum=forced or passed(dead, limits.vacuum) or passed(inserted, limits.vacuum_insert),
        do_analyze=passed(changed, limits.analyze),
        for_wraparound=forced,
    )


def is_counted(row: Row) -> bool:
    """Tell whether a table's rows are counted: else its greatest score is not known."""
    return counted_dead(row) is not None


def counted_dead(row: Row) -> int | None:
    """Return the dead rows as the server counts them, those that a rewrite took away too."""
    parts = [row["n_dead_tup"], row.get("rewritten_dead_tup")]
    return None if parts == [None, None] else sum(part or 0 for part in parts)


def weight_of(name: str, settings: Mapping[str, str]) -> float:
    """Return the weight of a component."""
    return float(settings.get(WEIGHTS[name], 1))


def age_score(
    name: str, failsafe: str, age: int | None, limit: int, settings: Mapping[str, str]
) -> float | None:
    """Return the component of an age; past the failsafe age it outweighs all others."""
    if age is None:
        return None
    score = age / max(limit, 1)
    begins = int(settings.get(failsafe, FAILSAFE_DEFAULTS[failsafe]))
    if age >= max(begins, FAILSAFE_FACTOR * limit):
        score **= max(1.0, age / FAILSAFE_STEP)
    return score * weight_of(name, settings)


@dataclass(frozen=True)
class Due:
    """A table that autovacuum would act on now."""

    row: Row
    limits: Limits
    scores: Scores


def due_of(
    rows: Iterable[Row],
    settings: Mapping[str, str],
    server_version: int | None,
    *,
    next_xid: int | None,
    next_mxid: int | None = None,
) -> list[Due]:
    """Return the tables that are due, of `tables` rows of one server; TOAST tables too."""
    known = list(rows)
    mains = mains_of(known)
    found = []
    for row in known:
        main = mains.get((row["database_id"], row["relid"]))
        limits = limits_of(row, main, settings, server_version)
        scores = scores_of(row, limits, settings, next_xid=next_xid, next_mxid=next_mxid)
        if scores.is_due:
            found.append(Due(row, limits, scores))
    return found


def left_of(
    rows: Iterable[Row], settings: Mapping[str, str], server_version: int | None
) -> list[Row]:
    """Return the tables past a threshold that autovacuum leaves alone since it is off for them."""
    known = list(rows)
    mains = mains_of(known)
    found = []
    for row in known:
        limits = limits_of(
            row, mains.get((row["database_id"], row["relid"])), settings, server_version
        )
        counts = (
            (counted_dead(row), limits.vacuum),
            (row["n_ins_since_vacuum"], limits.vacuum_insert),
            (row["n_mod_since_analyze"], limits.analyze),
        )
        passed = any(limit is not None and (count or 0) > limit for count, limit in counts)
        if passed and not limits.enabled:
            found.append(row)
    return found


def mains_of(rows: Iterable[Row]) -> dict[tuple[int, int], Row]:
    """Return main tables by database and the oid of their TOAST table."""
    return {(row["database_id"], row["toastrelid"]): row for row in rows if row["toastrelid"]}


def class_place(row: Row) -> tuple[int, int]:
    """Return where a table stands in pg_class: (block, item); behind all where it is not known."""
    found = CTID.fullmatch(row.get("pg_class_ctid") or "")
    return (int(found[1]), int(found[2])) if found else LAST


def sorts_by_score(settings: Mapping[str, str], server_version: int | None) -> bool:
    """Tell whether the server orders its list by score: from 19 on, unless all weights are 0."""
    if server_version is None or server_version // 10000 < SCORE_MAJOR:
        return False
    return any(weight_of(name, settings) for name in WEIGHTS)


def in_order(due: Iterable[Due], *, by_score: bool) -> list[Due]:
    """Return the tables of one database as a worker would take them.

    By score the greatest first; else as they stand in pg_class, TOAST tables after all others.
    """
    if by_score:
        return sorted(due, key=lambda one: -one.scores.score)
    return sorted(due, key=lambda one: (one.row["relkind"] == "t", class_place(one.row)))


@dataclass(frozen=True)
class Visited:
    """A database as the launcher sees it."""

    database_id: int
    datname: str
    xid_age: int | None
    mxid_age: int | None
    last_at: datetime | None  # when autovacuum was last seen to work there, the target's clock


def wraparound_of(databases: Iterable[Visited], settings: Mapping[str, str]) -> list[Visited]:
    """Return the databases past a freeze age, the oldest first: the launcher takes no other."""
    names = tuple(FREEZE_DEFAULTS)
    xid_limit, mxid_limit = (freeze_age(name, settings, {}) for name in names)
    by_xid = [one for one in databases if (one.xid_age or 0) > xid_limit]
    by_mxid = [one for one in databases if (one.mxid_age or 0) > mxid_limit]
    by_xid.sort(key=lambda one: -(one.xid_age or 0))
    by_mxid.sort(key=lambda one: -(one.mxid_age or 0))
    return by_xid + [one for one in by_mxid if one not in by_xid]


def visits(databases: Sequence[Visited], settings: Mapping[str, str]) -> list[Visited]:
    """Return databases in the order of their next turn.

    Those near wraparound first, then the one that was visited longest ago.
    """
    urgent = wraparound_of(databases, settings)
    rest = [one for one in databases if one not in urgent]
    rest.sort(key=lambda one: one.last_at.timestamp() if one.last_at else 0.0)
    return urgent + rest


def visited_by(
    last_at: datetime | None, now: datetime, naptime_seconds: float, *, free_at: datetime | None
) -> datetime | None:
    """Return when a database has been visited at the latest, None where no worker gets free.

    With N databases the launcher starts a worker each naptime / N, so each database
    has its turn once a naptime. `free_at` is when a worker is free (now, if one is).
    """
    if free_at is None:
        return None
    turn = now + timedelta(seconds=naptime_seconds)
    if last_at is not None and last_at + timedelta(seconds=naptime_seconds) > now:
        turn = min(turn, last_at + timedelta(seconds=naptime_seconds))
    return max(turn, free_at)


def starts(first: datetime | None, seconds: Sequence[float | None]) -> list[datetime | None]:
    """Return when each table of a database is begun if one worker does them one after the other.

    None from the first table on before which one has an unknown duration.
    """
    found: list[datetime | None] = []
    at = first
    for length in seconds:
        found.append(at)
        at = at + timedelta(seconds=length) if at is not None and length is not None else None
    return found


@dataclass(frozen=True)
class InForce:
    """One setting as it holds for a table, and where its value comes from."""

    name: str
    value: str | None
    unit: str
    origin: str  # table, main table, or the setting's source as pg_settings says it
    note: str = ""


def in_force(
    row: Row,
    main: Row | None,
    settings: Mapping[str, str],
    sources: Mapping[str, Row],
    server_version: int | None,
) -> list[InForce]:
    """Return autovacuum's settings for a table, each with where its value comes from.

    `sources` are the rows of the probe `settings` by name: source, unit.
    """
    own = autovacuum.parse_options(options_of(row, main))
    owner = "table" if row["reloptions"] or main is None else "main table"
    names = [name for name in autovacuum.DEFAULTS if name.startswith("autovacuum_")]
    if server_version is not None and server_version // 10000 < autovacuum.CAP_MAJOR:
        names.remove("autovacuum_vacuum_max_threshold")
    if row["relkind"] == "t":
        names = [name for name in names if "analyze" not in name]
    costs = ["autovacuum_vacuum_cost_delay", "autovacuum_vacuum_cost_limit"]
    return [
        one_in_force(name, own, owner, settings, sources)
        for name in ("autovacuum_enabled", *names, *FREEZE_DEFAULTS, *costs)
        if name in own or name in settings or name in sources
    ] + [
        InForce(name, own[name], "", owner)
        for name in own
        if name not in {"autovacuum_enabled", *names, *FREEZE_DEFAULTS, *costs}
    ]


def one_in_force(
    name: str,
    own: Mapping[str, str],
    owner: str,
    settings: Mapping[str, str],
    sources: Mapping[str, Row],
) -> InForce:
    """Return one setting with its origin."""
    row = sources.get(name, {})
    server = settings.get(name, row.get("setting"))
    unit, source = row.get("unit") or "", row.get("source") or "server"
    if name not in own:
        return InForce(name, server, unit, source)
    if name in FREEZE_DEFAULTS and server is not None and int(own[name]) > int(server):
        note = f"The {owner} says {int(own[name]):,}, but an option can only lower it."
        return InForce(name, server, unit, source, note)
    return InForce(name, own[name], unit, owner)
