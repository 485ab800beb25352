"""Runs the advisors over what was read last, ranks their findings, and says the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.db.models import F, Func, Q, TextField, Value, prefetch_related_objects
from django.db.models.lookups import Contains
from django.utils import timezone

from monitors import wraparound
from monitors.actions import ACTIONS
from monitors.advisor import Advisor, Finding, Row, Samples, Severity, counted
from monitors.advisors import ADVISORS, bloat, dead_tuples, horizon_held
from monitors.history import series, xids
from monitors.history.freshness import STALE_INTERVALS, interval_of
from monitors.models import HISTORY, Database, ProbeState, Snapshot, Target
from monitors.standing import Standing, ago, standing_of

CLOCK = "activity"  # the probe whose moment is "now" for the advisors
ORDER = {advisor.name: position for position, advisor in enumerate(ADVISORS)}
READS = {
    "overview": ("activity", "sessions", "tables"),
    "activity": ("activity", "sessions"),
    "vacuum": ("tables",),
    "wraparound": ("databases",),
    "bloat": ("bloat",),
    "settings": ("settings",),
}
AGES = ("target_id", "datname", "xid_age", "mxid_age")
OLD_XIDS = 1_000_000  # so many transactions are not made in the blink of a statement
SENTENCES = 2  # of different advisors in a verdict
GOOD = {
    "overview": (
        "Nothing to report: nobody is blocked, no transaction was left open, "
        "connections are within their limit and no table is due for vacuum."
    ),
    "activity": "Nobody is blocked, and no statement or transaction has been open for long.",
    "vacuum": "No table is due for vacuum, and autovacuum is on for all that are written to.",
    "wraparound": "No database has used up half of its ids, and no forced vacuum is known to be near.",
    "bloat": "No table or index wastes so much that a rewrite would pay.",
    "settings": "fsync is on, and no setting awaits a restart.",
}
NOUNS = {
    Severity.CRITICAL: "critical finding",
    Severity.WARNING: "warning",
    Severity.NOTICE: "notice",
}
LEVELS = ("good", "unknown", "notice", "warning", "critical")
"""From best to worst."""

Rows = dict[int, list[Row]]
"""Rows of one probe by target."""
SWITCHED = Q(
    Contains(
        Func(F("reloptions"), Value(" "), function="array_to_string", output_field=TextField()),
        Value("autovacuum_enabled"),
    )
)
"""Tables for which autovacuum was turned on or off."""


@dataclass(frozen=True)
class Verdict:
    """One or two sentences over a page: how bad, what, and what that rests on.

    `level` is one of LEVELS. `finding` is the worst one, None where there is none.
    """

    level: str
    text: str
    foot: str
    finding: Finding | None


def findings(target: Target, at: datetime | None = None) -> list[Finding]:
    """Return a target's findings, worst first; with `at`, those of a past moment.

    The past is judged by the settings and thresholds of today.
    """
    if at is None:
        return findings_of([target])[target.pk]
    return ranked(judge(target, samples_at(target, at)))


def findings_of(targets: Iterable[Target]) -> dict[int, list[Finding]]:
    """Return {target id: findings, worst first}, with a handful of queries for all targets."""
    wanted = list(targets)
    prefetch_related_objects(wanted, "environment")
    samples = samples_of(wanted)
    return {target.pk: ranked(judge(target, samples[target.pk])) for target in wanted}


def judge(target: Target, samples: Samples) -> Iterator[Finding]:
    """Yield what every advisor says of a target's samples."""
    for advisor in ADVISORS:
        for one in advisor.advise(samples, thresholds_of(target, advisor)):
            # An advisor may offer what this version has no action for.
            known = not one.action or one.action in ACTIONS
            yield one if known else replace(one, action="", arguments={})


def thresholds_of(target: Target, advisor: Advisor) -> dict[str, float]:
    """Return an advisor's thresholds with those that the target's environment overrides.

    Names that the advisor doesn't have, and what is no number, are passed over.
    """
    own = target.environment.thresholds.get(advisor.name)
    known = own.items() if isinstance(own, Mapping) else ()
    numbers = {
        name: float(value)
        for name, value in known
        if name in advisor.defaults and type(value) in (int, float)
    }
    return {**advisor.defaults, **numbers}


def ranked(found: Iterable[Finding]) -> list[Finding]:
    """Return findings worst first: by severity, then in the advisors' order, then by score."""
    return sorted(found, key=lambda one: (-one.severity, ORDER[one.advisor], -one.score))


def samples_of(targets: Sequence[Target]) -> dict[int, Samples]:
    """Return what the advisors judge of each target, as last read."""
    ids = [target.pk for target in targets]
    names = database_names(ids)
    clocks = ProbeState.objects.filter(target_id__in=ids, probe=CLOCK, target_at__isnull=False)
    moments = dict(clocks.values_list("target_id", "target_at"))
    activity, sessions = activity_of(ids), latest("sessions", ids)
    tables, progress = tables_of(targets, names), latest("progress", ids)
    now = timezone.now()
    databases, burns = latest("databases", ids, fields=AGES), xids.burns(ids, now)
    holders = held(latest("horizon", ids, old_enough(now, shortest(targets))), now)
    bloated = bloat_of(targets, names)
    return {
        target.pk: Samples(
            now=moments.get(target.pk) or timezone.now(),
            **facts_of(target, names),
            tables=tables.get(target.pk, ()),
            activity=activity.get(target.pk, ()),
            sessions=sessions.get(target.pk, ()),
            progress=progress.get(target.pk, ()),
            horizon=holders.get(target.pk, ()),
            databases=databases.get(target.pk, ()),
            burn=burns.get(target.pk, {}),
            bloat=bloated.get(target.pk, ()),
        )
        for target in targets
    }


def samples_at(target: Target, at: datetime) -> Samples:
    """Return what the advisors would have judged at a past moment of our clock."""
    names = database_names([target.pk])
    state = ProbeState.objects.filter(target=target, probe=CLOCK).first()
    skew = timedelta()
    if state is not None and state.taken_at and state.target_at:
        skew = state.target_at - state.taken_at
    tables = series.at("tables", target.pk, at)
    return Samples(
        now=at + skew,
        **facts_of(target, names),
        tables=[row for row in tables if row["database_id"] in names[target.pk]],
        activity=series.at("activity", target.pk, at),
        sessions=series.at("sessions", target.pk, at),
        progress=series.at("progress", target.pk, at),
        horizon=held({target.pk: [*series.at("horizon", target.pk, at)]}, at)[target.pk],
        databases=series.at("databases", target.pk, at),
        burn=burn_at(target, at),
        bloat=[
            row
            for row in series.at("bloat", target.pk, at)
            if row["database_id"] in names[target.pk]
        ],
    )


def facts_of(target: Target, names: Mapping[int, Mapping[int, str]]) -> dict[str, Any]:
    """Return what a target's server said of itself, as arguments of Samples."""
    return {
        "server_version": target.server_version,
        "settings": target.settings,
        "max_connections": target.max_connections,
        "reserved_connections": target.reserved_connections,
        "database_names": names.get(target.pk, {}),
    }


def database_names(ids: Sequence[int]) -> dict[int, dict[int, str]]:
    """Return {target id: {database id: datname}} of the databases that are watched."""
    found: dict[int, dict[int, str]] = {target_id: {} for target_id in ids}
    rows = Database.objects.filter(target_id__in=ids, included=True, gone_at__isnull=True)
    for target_id, database_id, datname in rows.values_list("target_id", "pk", "datname"):
        found[target_id][database_id] = datname
    return found


def latest(probe_name: str, ids: Sequence[int], *conditions: Q, fields: Sequence[str] = ()) -> Rows:
    """Return the latest rows of a probe that fit the conditions, all columns or some fields."""
    rows = HISTORY[probe_name].latest._default_manager.filter(
        *conditions, target_id__in=ids, gone_at__isnull=True
    )
    found: Rows = {}
    for row in rows.values(*fields):
        found.setdefault(row["target_id"], []).append(row)
    return found


def tables_of(targets: Sequence[Target], names: Mapping[int, Mapping[int, str]]) -> Rows:
    """Return the tables that an advisor may say something of, with TOAST tables' main tables.

    A fleet has millions of tables; most have few dead rows and never heard of autovacuum.
    """
    ids = [target.pk for target in targets]
    watched = Q(database_id__in=[pk for databases in names.values() for pk in databases])
    rows = min(
        (thresholds_of(target, dead_tuples.ADVISOR)["min_rows"] for target in targets), default=0
    )
    chosen = latest("tables", ids, watched, Q(n_dead_tup__gt=rows) | SWITCHED)
    toast = {row["relid"] for found in chosen.values() for row in found if row["relkind"] == "t"}
    for target_id, mains in latest("tables", ids, watched, Q(toastrelid__in=toast)).items():
        known = {(row["database_id"], row["relid"]) for row in chosen.get(target_id, ())}
        missing = [row for row in mains if (row["database_id"], row["relid"]) not in known]
        chosen.setdefault(target_id, []).extend(missing)
    return chosen


def bloat_of(targets: Sequence[Target], names: Mapping[int, Mapping[int, str]]) -> Rows:
    """Return the tables and indexes that waste enough bytes for a finding: few of a fleet's."""
    watched = Q(database_id__in=[pk for databases in names.values() for pk in databases])
    least = min(
        (
            min(limits["notice_bytes"], limits["warning_bytes"])
            for limits in (thresholds_of(target, bloat.ADVISOR) for target in targets)
        ),
        default=0,
    )
    return latest("bloat", [target.pk for target in targets], watched, Q(bloat_bytes__gte=least))


def shortest(targets: Sequence[Target]) -> float:
    """Return the least time for which a horizon must have been held to be a finding."""
    return min(
        (thresholds_of(target, horizon_held.ADVISOR)["notice_seconds"] for target in targets),
        default=0,
    )


def old_enough(now: datetime, seconds: float) -> Q:
    """Return the condition of holders that may have held the horizon for so many seconds.

    A transaction that began later can do so only with another one's old snapshot.
    """
    begun = Q(since__isnull=True) | Q(since__lte=now - timedelta(seconds=seconds))
    return Q(xmin_age__gt=0) & (begun | Q(xmin_age__gt=OLD_XIDS))


def held(holders: Rows, until: datetime) -> Rows:
    """Return holders of the horizon with `held`: since when, None where that is not known."""
    wanted = [
        (target_id, row["horizon_xid"]) for target_id, rows in holders.items() for row in rows
    ]
    known = xids.dated(wanted, until)
    return {
        target_id: [{**row, "held": known.get((target_id, row["horizon_xid"]))} for row in rows]
        for target_id, rows in holders.items()
    }


def burn_at(target: Target, at: datetime) -> dict[str, Any]:
    """Return the burn of both kinds of id on the day before a moment."""
    since = at - timedelta(seconds=wraparound.BURN_SECONDS)
    return {
        kind: wraparound.burn_of(xids.points(target.pk, column, since, at))
        for kind, column in xids.FIELDS.items()
    }


def activity_of(ids: Sequence[int]) -> Rows:
    """Return the backends that do something, and idle ones that others wait for.

    Most of a server's backends are idle clients, which no advisor looks at one by one.
    """
    found = latest("activity", ids, ~Q(state="idle") | Q(state__isnull=True))
    seen = {(row["target_id"], row["pid"]) for rows in found.values() for row in rows}
    blocking = {
        (row["target_id"], pid)
        for rows in found.values()
        for row in rows
        for pid in row["blocked_by"] or ()
    }
    missing = blocking - seen
    idle = latest("activity", ids, Q(state="idle", pid__in={pid for _, pid in missing}))
    for target_id, rows in idle.items():
        found[target_id] += [row for row in rows if (target_id, row["pid"]) in missing]
    return found


def verdict(
    target: Target,
    findings: Sequence[Finding],
    page: str = "overview",
    at: datetime | None = None,
) -> Verdict:
    """Return the sentences over one of a target's pages.

    Says first what keeps the page from showing the present, if anything, then the worst
    findings of the page's subject; `overview` speaks of all. With `at`, of a past moment.
    """
    mine = [one for one in findings if page == "overview" or SUBJECTS[one.advisor] == page]
    now = timezone.now()
    if at is not None:
        return past_verdict(target, mine, page, at)
    standing = standing_of(target, READS.get(page, READS["overview"]), now)
    worst = mine[0] if mine else None
    found = said(mine)
    if standing.text and found:
        found = f"When it was last read: {found}"
    level = max(standing.level or "good", worst.level if worst else "good", key=LEVELS.index)
    text = " ".join(part for part in (standing.text, found) if part)
    return Verdict(level, text or GOOD[page], foot_of(mine, standing, now), worst)


def past_verdict(target: Target, mine: Sequence[Finding], page: str, at: datetime) -> Verdict:
    """Return the verdict of a past moment: what was found then, or that nothing was read."""
    foot = "Judged by the settings and thresholds of today."
    if mine:
        return Verdict(mine[0].level, said(mine), foot, mine[0])
    names = READS.get(page, READS["overview"])
    reach = max(STALE_INTERVALS * interval_of(target, name) for name in names)
    read = Snapshot.objects.filter(
        target_id=target.pk,
        probe__in=names,
        state=Snapshot.State.OK,
        taken_at__lte=at,
        taken_at__gt=at - timedelta(seconds=reach),
    )
    if read.exists():
        return Verdict("good", "Nothing was to report at that moment.", foot, None)
    return Verdict("unknown", "Nothing was read at that moment.", "", None)


SUBJECTS = {advisor.name: advisor.subject for advisor in ADVISORS}
PLURALS = {advisor.name: advisor.plural for advisor in ADVISORS}


def said(found: Sequence[Finding]) -> str:
    """Return the worst findings in words: one sentence an advisor, with a count where many.

    A backend at the root of a lock queue is named once, though it is idle in transaction too.
    """
    roots = {one.pid for one in found if one.advisor == "blocked"}
    told = [one for one in found if one.advisor == "blocked" or one.pid not in roots or not one.pid]
    sentences: list[str] = []
    names = list(dict.fromkeys(one.advisor for one in told))[:SENTENCES]
    for name in names:
        group = [one for one in told if one.advisor == name]
        if len(group) > 1:
            sentences.append(f"{PLURALS[name].format(count=f'{len(group):,}')}")
        sentences.append(group[0].title)
    return " ".join(sentences)


def foot_of(found: Sequence[Finding], standing: Standing, now: datetime) -> str:
    """Return how many findings of which severity there are, and how old their figures."""
    counts = [
        counted(len(list(group)), NOUNS[severity])
        for severity, group in groupby(found, key=lambda one: one.severity)
    ]
    *first, last = counts or [""]
    parts = [f"From {', '.join(first)} and {last}." if first else f"From {last}."] if last else []
    if standing.read_at is not None:
        parts.append(f"Read {ago(standing.read_at, now)} ago.")
    return " ".join(parts)
