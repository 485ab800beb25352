"""Runs the advisors over what was read last, ranks their findings, and says the verdict."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.db.models import F, Func, Q, TextField, Value, prefetch_related_objects
from django.db.models.lookups import Contains
from django.utils import timezone

from monitors.actions import ACTIONS
from monitors.advisor import (
    Advisor,
    Finding,
    Hurt,
    Quiet,
    Rates,
    Row,
    Samples,
    Severity,
    counted,
    marked,
)
from monitors.advisors import ADVISORS, bloat, dead_tuples, horizon_held, stale_statistics
from monitors.findings import past, recent, thresholds, unknowns
from monitors.findings.standing import Apart, Standing, ago, standing_of
from monitors.history import xids
from monitors.history.freshness import STALE_INTERVALS, clocks, interval_of
from monitors.history.latest import read_as_of
from monitors.models import (
    HISTORY,
    Database,
    FindingRecord,
    FindingVersion,
    Fleet,
    ProbeState,
    Snapshot,
    Target,
)
from monitors.rules import wraparound

CLOCK = "activity"  # the probe whose moment is "now" for the advisors
ORDER = {advisor.name: position for position, advisor in enumerate(ADVISORS)}
LIVE = tuple(advisor for advisor in ADVISORS if not advisor.kept)
KEPT = frozenset(advisor.name for advisor in ADVISORS if advisor.kept)
READS = {
    "overview": ("activity", "sessions", "tables"),
    "activity": ("activity", "sessions"),
    "vacuum": ("tables",),
    "wraparound": ("databases",),
    "bloat": ("bloat",),
    "settings": ("settings",),
}
AGES = ("target_id", "datname", "datconnlimit", "xid_age", "mxid_age", "next_xid")
DATED = {"databases", "tables", "horizon"}  # judged by when a vacuum is forced
UNKNOWN = "no date so far: a worker reckons it after the next reading"
OLD_XIDS = 1_000_000  # so many transactions are not made in the blink of a statement
SENTENCES = 2  # of different advisors in a verdict
GOOD: dict[str, tuple[tuple[str, str], ...]] = {
    "overview": (
        ("nobody is blocked", ""),
        ("no transaction was left open", unknowns.STATEMENTS),
        ("connections are within their limit", ""),
        ("no table is due for vacuum", unknowns.COUNTS),
    ),
    "activity": (
        ("nobody is blocked", ""),
        ("no statement or transaction has been open for long", unknowns.STATEMENTS),
    ),
    "vacuum": (
        ("no table is due for vacuum", unknowns.COUNTS),
        ("autovacuum is on for all that are written to", unknowns.COUNTS),
    ),
    "wraparound": (
        ("no database has used up half of its ids", ""),
        ("no forced vacuum is known to be near", unknowns.FORCED),
    ),
    "bloat": (("no table or index wastes so much that a rewrite would pay", ""),),
    "settings": (
        ("no setting awaits a restart", unknowns.SETTINGS),
        ("fsync is on", unknowns.SETTINGS),  # a name: no sentence begins with it
    ),
}
"""What each page says where nothing was found, and what must be known of the server to say it
('' where the page's own probes are enough)."""
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
    `apart` stands beside it: the databases that it does not speak of, since they are not read.
    """

    level: str
    text: str
    foot: str
    finding: Finding | None
    apart: Apart | None = None


def findings(target: Target, at: datetime | None = None) -> list[Finding]:
    """Return a target's findings, worst first; with `at`, those of a past moment.

    The past is judged by the settings, options and thresholds of then.
    """
    if at is None:
        return findings_of([target])[target.pk]
    past.as_of(target, at)
    records = records_at(target, at)
    live = judge(target, samples_at(target, at), fleet=thresholds.the_fleet(at))
    kept = [finding_of(row) for row in records.values() if row.advisor in KEPT]
    return ranked(noted_then(one, records, at) for one in (*live, *kept))


def findings_of(targets: Iterable[Target]) -> dict[int, list[Finding]]:
    """Return {target id: findings, worst first}, with a handful of queries for all targets.

    What only workers judge comes from what they kept.
    """
    wanted, now = list(targets), timezone.now()
    prefetch_related_objects(wanted, "environment")
    fleet = thresholds.the_fleet()
    samples = samples_of(wanted, fleet)
    records = records_of([target.pk for target in wanted])
    found = {}
    for target in wanted:
        known = records.get(target.pk, {})
        kept = [finding_of(row) for row in known.values() if row.advisor in KEPT and row.opened_at]
        live = judge(target, samples[target.pk], fleet=fleet)
        found[target.pk] = ranked(noted(one, known, now) for one in (*live, *kept))
    return found


Records = dict[tuple[str, str], FindingRecord]
"""What is kept of a target's unresolved findings, by advisor and object."""


def records_of(ids: Sequence[int]) -> dict[int, Records]:
    """Return what is kept of the unresolved findings of some targets."""
    found: dict[int, Records] = {}
    rows = FindingRecord.objects.filter(target_id__in=ids, resolved_at=None, advisor__in=ORDER)
    for row in rows:
        found.setdefault(row.target_id, {})[row.advisor, row.object_key] = row
    return found


def records_at(target: Target, at: datetime) -> Records:
    """Return what was kept of the findings that were open at a past moment."""
    rows = FindingRecord.objects.filter(target=target, opened_at__lte=at, advisor__in=ORDER)
    found = {(row.advisor, row.object_key): row for row in rows.exclude(resolved_at__lte=at)}
    by_id = {row.pk: row for row in found.values() if row.advisor in KEPT}
    later = FindingVersion.objects.filter(finding__in=by_id, at__gt=at)
    for version in later.order_by("finding", "-at"):  # the first after the moment comes last
        version.take_back(by_id[version.finding_id])
    return found


def finding_of(row: FindingRecord) -> Finding:
    """Return what an advisor said when it judged last."""
    return Finding(
        advisor=row.advisor,
        severity=Severity(row.severity),
        title=row.title,
        why=row.why,
        object_name=row.object_name,
        database_id=row.database_id,
        relid=row.relid,
        pid=row.pid,
        evidence=tuple(
            (label, datetime.fromisoformat(value) if unit == "at" else value, unit)
            for label, value, unit in row.evidence
        ),
        action=row.action,
        arguments=row.arguments,
        score=row.score,
        backend_start=row.backend_start,
        part=row.part,
        hurt=hurt_of(row),
        record_id=row.pk,
    )


def hurt_of(row: FindingRecord) -> Hurt:
    """Return when a finding hurts, as a worker reckoned it last."""
    return Hurt(row.hurts or UNKNOWN, at=row.hurts_at, already=row.hurts_already)


def noted(one: Finding, records: Records, now: datetime) -> Finding:
    """Return a finding with its row's id, and why it is quiet if it is.

    When it hurts takes hours of history, which workers alone read.
    """
    row = records.get((one.advisor, one.object_key))
    if row is None:
        return one
    if row.hurts:
        one = replace(one, hurt=hurt_of(row))
    if row.opened_at is None:
        return one
    return replace(one, record_id=row.pk, quiet=quiet_of(row, one.severity, now))


def noted_then(one: Finding, records: Records, at: datetime) -> Finding:
    """Return a finding of a past moment with its row's id, and why it was quiet if it was."""
    row = records.get((one.advisor, one.object_key))
    if row is None:
        return one
    return replace(one, record_id=row.pk, quiet=quiet_of(row, one.severity, at))


def quiet_of(row: FindingRecord, severity: int, now: datetime) -> Quiet | None:
    """Return why a finding doesn't count, None where it does: also what became worse since."""
    if row.quiet_severity is None or severity > row.quiet_severity:
        return None
    if (row.acknowledged_at or row.snoozed_at or now) > now:
        return None
    if row.acknowledged_at is not None:
        by, why = row.acknowledged_by, row.acknowledged_reason
        return Quiet(state="acknowledged", by=by, at=row.acknowledged_at, reason=why)
    if row.snoozed_at is None or row.snoozed_until is None or row.snoozed_until <= now:
        return None
    by, why, until = row.snoozed_by, row.snoozed_reason, row.snoozed_until
    return Quiet(state="snoozed", by=by, at=row.snoozed_at, reason=why, until=until)


def judge(
    target: Target,
    samples: Samples,
    advisors: Iterable[Advisor] = LIVE,
    fleet: Fleet | None = None,
) -> Iterator[Finding]:
    """Yield what advisors say of a target's samples."""
    fleet = fleet or thresholds.the_fleet()
    for advisor in advisors:
        if samples.in_recovery and not advisor.on_standby:
            continue
        for one in advisor.advise(samples, thresholds.of_target(target, advisor, fleet)):
            # An advisor may offer what this version has no action for.
            known = not one.action or one.action in ACTIONS
            yield one if known else replace(one, action="", arguments={})


def ranked(found: Iterable[Finding]) -> list[Finding]:
    """Return findings worst first: by severity, then in the advisors' order, then by score.

    Those that are acknowledged or snoozed come last. Equals stand in the order of their keys,
    so that the same moment shows the same order whenever it is asked for.
    """
    return sorted(
        found,
        key=lambda one: (
            one.quiet is not None,
            -one.severity,
            ORDER[one.advisor],
            -one.score,
            one.object_key,
        ),
    )


def samples_of(
    targets: Sequence[Target], fleet: Fleet, probes: Collection[str] = HISTORY
) -> dict[int, Samples]:
    """Return what the advisors judge of each target, as last read.

    `probes` leaves out what nobody judges now; progress is always there.
    """
    ids = [target.pk for target in targets]
    names = database_names(ids)
    clocks = ProbeState.objects.filter(target_id__in=ids, probe=CLOCK, target_at__isnull=False)
    moments = dict(clocks.values_list("target_id", "target_at"))
    activity = activity_of(ids) if "activity" in probes else {}
    sessions = latest("sessions", ids) if "sessions" in probes else {}
    progress = latest("progress", ids)
    tables = tables_of(targets, names, fleet, worked_on(progress, probes))
    now = timezone.now()
    ages = bool(progress) or not DATED.isdisjoint(probes)
    databases = latest("databases", ids, fields=AGES) if ages else {}
    burns = xids.burns(ids, now) if ages else {}
    long_ago = old_enough(now, shortest(targets, fleet))
    holders = held(latest("horizon", ids, long_ago), now) if "horizon" in probes else {}
    bloated = bloat_of(targets, names, fleet) if "bloat" in probes else {}
    logins = latest("logins", ids) if "logins" in probes else {}
    return {
        target.pk: Samples(
            now=moments.get(target.pk) or timezone.now(),
            **facts_of(target, names),
            tables=tables.get(target.pk, ()),
            activity=marked(activity.get(target.pk, ()), target.logins),
            sessions=sessions.get(target.pk, ()),
            progress=progress.get(target.pk, ()),
            horizon=marked(holders.get(target.pk, ()), target.logins),
            databases=databases.get(target.pk, ()),
            burn=burns.get(target.pk, {}),
            next_xid=next_xid(databases.get(target.pk, ())),
            bloat=bloated.get(target.pk, ()),
            logins=logins.get(target.pk, ()),
        )
        for target in targets
    }


def worked_on(progress: Rows, probes: Collection[str]) -> Q | None:
    """Return the condition for tables that a page or advisor looks at beside those that are due.

    None where tables are not judged at all.
    """
    relids = {row["relid"] for rows in progress.values() for row in rows}
    if "tables" in probes or ("progress" in probes and relids):
        return Q(relid__in=relids)
    return None


def samples_for(target: Target, advisors: Sequence[Advisor], fleet: Fleet) -> Samples:
    """Return what some advisors judge of one target, with the history that they need."""
    probes = {probe for advisor in advisors for probe in advisor.reads}
    samples = samples_of([target], fleet, probes)[target.pk]
    if any(advisor.kept for advisor in advisors):
        samples = with_history(target, samples, fleet)
    return replace(samples, rates=rates_for(target, samples, advisors))


def rates_for(target: Target, samples: Samples, advisors: Sequence[Advisor]) -> Rates:
    """Return the rates that some advisors need: of all tables only after those were read."""
    if not any(advisor.reads[0] == "tables" for advisor in advisors):
        worked = {row["relid"] for row in samples.progress}
        tables = [row for row in samples.tables if row["relid"] in worked]
        samples = replace(samples, tables=tables)
    return recent.rates(target, samples, timezone.now())


def with_history(target: Target, samples: Samples, fleet: Fleet) -> Samples:
    """Return the samples with what the `kept` advisors judge beside them."""
    limits = {one.name: thresholds.of_target(target, one, fleet) for one in ADVISORS if one.kept}
    names = samples.database_names
    watched = Q(database_id__in=list(names))
    known = {(row["database_id"], row["relid"]) for row in samples.tables}
    also = recent.wanted_tables(target, limits, timezone.now())
    more = latest("tables", [target.pk], watched, also).get(target.pk, ())
    added = [row for row in more if (row["database_id"], row["relid"]) not in known]
    return replace(
        samples,
        tables=[*samples.tables, *added],
        **recent.facts(target, names, limits, timezone.now()),
    )


def samples_at(target: Target, at: datetime) -> Samples:
    """Return what the advisors would have judged at a past moment of our clock."""
    names = database_names([target.pk], at)
    clock = clocks(target, CLOCK, at).get(0)
    tables = read_as_of("tables", target.pk, at)
    databases = read_as_of("databases", target.pk, at)
    samples = Samples(
        now=clock[1] if clock else at,
        **facts_of(target, names),
        tables=[row for row in tables if row["database_id"] in names[target.pk]],
        activity=marked(read_as_of("activity", target.pk, at), target.logins),
        sessions=read_as_of("sessions", target.pk, at),
        progress=read_as_of("progress", target.pk, at),
        horizon=held({target.pk: marked(read_as_of("horizon", target.pk, at), target.logins)}, at)[
            target.pk
        ],
        databases=databases,
        burn=burn_at(target, at),
        next_xid=next_xid(databases),
        logins=read_as_of("logins", target.pk, at),
        bloat=[
            row
            for row in read_as_of("bloat", target.pk, at)
            if row["database_id"] in names[target.pk]
        ],
    )
    return replace(samples, rates=recent.rates(target, samples, at))


def next_xid(databases: Iterable[Row]) -> int | None:
    """Return the server's next transaction id (64 bit) by the rows of its databases."""
    known = [row["next_xid"] for row in databases if row.get("next_xid") is not None]
    return max(known, default=None)


def facts_of(target: Target, names: Mapping[int, Mapping[int, str]]) -> dict[str, Any]:
    """Return what a target's server said of itself, as arguments of Samples."""
    return {
        "server_version": target.server_version,
        "settings": target.settings,
        "max_connections": target.max_connections,
        "reserved_connections": target.reserved_connections,
        "in_recovery": target.in_recovery,
        "database_names": names.get(target.pk, {}),
        "roles": {
            use: role
            for use, role in (("collector", target.user), ("operator", target.operator_user))
            if role
        },
    }


def database_names(ids: Sequence[int], at: datetime | None = None) -> dict[int, dict[int, str]]:
    """Return {target id: {database id: datname}} of the databases that are watched.

    With `at`, of those that were not dropped then: what was watched, its rows tell. Of two
    that have borne one name the older one comes last, and so wins where names are looked up.
    """
    found: dict[int, dict[int, str]] = {target_id: {} for target_id in ids}
    there = Q(included=True, gone_at=None) if at is None else Q(gone_at=None) | Q(gone_at__gt=at)
    rows = Database.objects.filter(there, target_id__in=ids).order_by("-pk")
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


def tables_of(
    targets: Sequence[Target],
    names: Mapping[int, Mapping[int, str]],
    fleet: Fleet,
    also: Q | None,
) -> Rows:
    """Return the tables that an advisor may say something of, with TOAST tables' main tables.

    A fleet has millions of tables; most have few dead rows and never heard of autovacuum.
    `also` takes in others; None: none at all is judged.
    """
    if also is None:
        return {}
    ids = [target.pk for target in targets]
    watched = Q(database_id__in=[pk for databases in names.values() for pk in databases])
    dead, changed = (
        min((thresholds.of_target(one, judge, fleet)["min_rows"] for one in targets), default=0)
        for judge in (dead_tuples.ADVISOR, stale_statistics.ADVISOR)
    )
    due = Q(n_dead_tup__gt=dead) | Q(n_mod_since_analyze__gt=changed)
    chosen = latest("tables", ids, watched, due | SWITCHED | also)
    toast = {row["relid"] for found in chosen.values() for row in found if row["relkind"] == "t"}
    for target_id, mains in latest("tables", ids, watched, Q(toastrelid__in=toast)).items():
        known = {(row["database_id"], row["relid"]) for row in chosen.get(target_id, ())}
        missing = [row for row in mains if (row["database_id"], row["relid"]) not in known]
        chosen.setdefault(target_id, []).extend(missing)
    return chosen


def bloat_of(
    targets: Sequence[Target], names: Mapping[int, Mapping[int, str]], fleet: Fleet
) -> Rows:
    """Return the tables and indexes that waste enough bytes for a finding: few of a fleet's."""
    watched = Q(database_id__in=[pk for databases in names.values() for pk in databases])
    least = min(
        (
            min(limits["notice_bytes"], limits["warning_bytes"])
            for limits in (thresholds.of_target(one, bloat.ADVISOR, fleet) for one in targets)
        ),
        default=0,
    )
    return latest("bloat", [target.pk for target in targets], watched, Q(bloat_bytes__gte=least))


def shortest(targets: Sequence[Target], fleet: Fleet) -> float:
    """Return the least time for which a horizon must have been held to be a finding."""
    return min(
        (
            thresholds.of_target(one, horizon_held.ADVISOR, fleet)["notice_seconds"]
            for one in targets
        ),
        default=0,
    )


def old_enough(now: datetime, seconds: float) -> Q:
    """Return the condition of holders that may have held the horizon for so many seconds.

    A transaction that began later can do so only with another one's old snapshot.
    """
    begun = Q(since__isnull=True) | Q(since__lte=now - timedelta(seconds=seconds))
    return Q(xmin_age__gt=0) & (begun | Q(xmin_age__gt=OLD_XIDS))


def held(holders: Mapping[int, Sequence[Row]], until: datetime) -> Rows:
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
    database_id: int | None = None,
) -> Verdict:
    """Return the sentences over one of a target's pages.

    Says first what keeps the page from showing the present, if anything, then the worst
    findings of the page's subject; `overview` speaks of all. With `at`, of a past moment;
    with `database_id`, over a page about that database alone.
    """
    here = [one for one in findings if page == "overview" or SUBJECTS[one.advisor] == page]
    mine = [one for one in here if not one.quiet]
    now = timezone.now()
    if at is not None:
        return past_verdict(target, mine, page, at)
    standing = standing_of(target, READS.get(page, READS["overview"]), now, database_id)
    worst = mine[0] if mine else None
    found = said(mine)
    if standing.text and found:
        found = f"When it was last read: {found}"
    level = max(standing.level or "good", worst.level if worst else "good", key=LEVELS.index)
    unknown = unknowns.unknowns_of(target)
    missing = missing_for(page, unknown)
    foot = foot_of(mine, standing, now)
    if standing.text or found:
        told = " ".join(filter(None, (standing.text, found)))
        foot = " ".join(filter(None, (foot, *missing)))
        return Verdict(level, told, foot, worst, standing.apart)
    known = aside(len(here) - len(mine)) if len(here) > len(mine) else all_well(page, unknown)
    text = " ".join(filter(None, (known, *missing)))
    at_fault = is_at_fault(page, missing) or standing.apart
    return Verdict("unknown" if at_fault else level, text, foot, None, standing.apart)


def is_at_fault(page: str, missing: Sequence[str]) -> bool:
    """Tell whether what is missing keeps a page from calling its target well.

    That a standby has no counts is no fault of it: its overview is well without them.
    """
    return any(page != "overview" or reason != unknowns.STANDBY for reason in missing)


def missing_for(page: str, unknown: Mapping[str, str]) -> list[str]:
    """Return why a page can't say all that it says where nothing was found; [] where it can."""
    needs = dict.fromkeys(need for _, need in GOOD[page])
    return [unknown[need] for need in needs if need in unknown]


def all_well(page: str, unknown: Mapping[str, str]) -> str:
    """Return what is known to be well, as one sentence; '' where nothing is."""
    claims = [claim for claim, need in GOOD[page] if need not in unknown]
    if not claims:
        return ""
    *first, last = claims
    text = f"{', '.join(first)} and {last}" if first else last
    return f"{text[0].upper()}{text[1:]}."


def aside(count: int) -> str:
    """Return that nothing counts, since all there is was put aside."""
    verb = "is" if count == 1 else "are"
    return f"Nothing new to report: {counted(count, 'finding')} {verb} acknowledged or snoozed."


def past_verdict(target: Target, mine: Sequence[Finding], page: str, at: datetime) -> Verdict:
    """Return the verdict of a past moment: what was found then, or that nothing was read."""
    foot = "Judged by the settings and thresholds of then."
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
        missing = missing_for(page, unknowns.unknowns_of(target, at))
        text = " ".join(("Nothing was to report at that moment.", *missing))
        return Verdict("unknown" if is_at_fault(page, missing) else "good", text, foot, None)
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
