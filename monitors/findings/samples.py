"""What the advisors judge: the rows of the probes as last read, or as they stood at a moment.

Long, since each probe whose rows are not taken whole has its way of being picked from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Func, Q, TextField, Value
from django.db.models.lookups import Contains
from django.utils import timezone

from monitors.advisor import (
    Advisor,
    Rates,
    Row,
    Samples,
    marked,
)
from monitors.advisors import ADVISORS, bloat, dead_tuples, horizon_held, stale_statistics
from monitors.findings import recent, stuck, thresholds
from monitors.findings.behind import behind_of
from monitors.findings.records import LIVE
from monitors.history import xids
from monitors.history.freshness import clocks
from monitors.history.latest import read_as_of
from monitors.kinds import PGBOUNCER
from monitors.models import (
    HISTORY,
    Database,
    Fleet,
    ProbeState,
    Target,
)
from monitors.rules import horizon, wraparound

COUNTING = "databases"  # the probe after which what databases count is judged, each minute
CLOCK = "activity"  # the probe whose moment is "now" for the advisors
AGES = ("target_id", "datname", "datconnlimit", "xid_age", "mxid_age", "next_xid")
FACTS = frozenset({"settings"})
"""Probes of which the target itself keeps what advisors ask for (`Samples.settings`)."""
WITH_CONDITIONS = frozenset({"tables"})
"""Probes whose rows are chosen by those of others."""
COUNTERS = {"tables": ("n_tup_ins", "n_tup_upd", "n_tup_del")}
"""Counters by which advisors judge, by probe."""
OLD_XIDS = 1_000_000  # so many transactions are not made in the blink of a statement
Rows = dict[int, list[Row]]
"""Rows of one probe by target."""
SWITCHED = Q(
    Contains(
        Func(F("reloptions"), Value(" "), function="array_to_string", output_field=TextField()),
        Value("autovacuum_enabled"),
    )
)
"""Tables for which autovacuum was turned on or off."""


def samples_of(
    targets: Sequence[Target], fleet: Fleet, advisors: Sequence[Advisor] = LIVE
) -> dict[int, Samples]:
    """Return what some advisors judge of each target, as last read: the probes that they name."""
    ids = [target.pk for target in targets]
    names = database_names(ids)
    clocks = ProbeState.objects.filter(target_id__in=ids, probe=CLOCK, target_at__isnull=False)
    moments = dict(clocks.values_list("target_id", "target_at"))
    kinds = {target.kind for target in targets}
    advisors = [one for one in advisors if one.kind in kinds]
    probes = probes_of(advisors)
    read = {probe: latest_of(probe, targets, names, fleet) for probe in probes - WITH_CONDITIONS}
    if "tables" in probes:
        read["tables"] = tables_of(targets, names, fleet, advisors, read.get("progress", {}))
    burns = xids.burns(ids, timezone.now()) if "databases" in probes else {}
    rows = {
        target.pk: {probe: found.get(target.pk, ()) for probe, found in read.items()}
        for target in targets
    }
    return {
        target.pk: Samples(
            now=moments.get(target.pk) or timezone.now(),
            **facts_of(target, names),
            rows=rows[target.pk],
            behind=behind_of(target, rows[target.pk]),
            burn=burns.get(target.pk, {}),
            next_xid=next_xid(read.get("databases", {}).get(target.pk, ())),
        )
        for target in targets
    }


def probes_of(advisors: Iterable[Advisor]) -> set[str]:
    """Return the probes whose rows some advisors ask for."""
    return {probe for one in advisors for probe in (*one.reads, *one.beside)}


def latest_of(
    probe: str, targets: Sequence[Target], names: Mapping[int, Mapping[int, str]], fleet: Fleet
) -> Rows:
    """Return the latest rows of a probe that an advisor may say something of."""
    ids, now = [target.pk for target in targets], timezone.now()
    if probe in FACTS:
        return {}
    if probe == "activity":
        return limited_in(targets, marked_in(targets, activity_of(ids)))
    if probe == "horizon":
        long_ago = old_enough(now, shortest(targets, fleet)) | Q(kind=horizon.PREPARED)
        return marked_in(targets, held(latest(probe, ids, long_ago), now))
    if probe == "bloat":
        return bloat_of(targets, names, fleet)
    if probe == "databases":
        return latest(probe, ids, fields=AGES)
    conditions = [watched_in(names)] if HISTORY[probe].probe.per_database else []
    return latest(probe, ids, *conditions)


def marked_in(targets: Sequence[Target], rows: Rows) -> Rows:
    """Return rows with `ours`: whether they are of Howdah's own sessions."""
    return {target.pk: [*marked(rows.get(target.pk, ()), target.logins)] for target in targets}


def limited_in(targets: Sequence[Target], rows: Rows) -> Rows:
    """Return backends with the limits of the team's definitions that name them."""
    known = stuck.definitions()
    return {
        target.pk: stuck.with_limits(rows[target.pk], known, target.environment_id)
        for target in targets
    }


def watched_in(names: Mapping[int, Mapping[int, str]]) -> Q:
    """Return the condition for rows of databases that are watched."""
    return Q(database_id__in=[pk for databases in names.values() for pk in databases])


def samples_for(target: Target, advisors: Sequence[Advisor], fleet: Fleet) -> Samples:
    """Return what some advisors judge of one target, with the history that they need."""
    samples = samples_of([target], fleet, advisors)[target.pk]
    if target.kind == PGBOUNCER:
        return samples
    kept = [advisor for advisor in advisors if advisor.kept]
    if any(advisor.reads[0] == COUNTING for advisor in kept):
        samples = replace(samples, **recent.counted(target, timezone.now()))
    if any(advisor.reads[0] != COUNTING for advisor in kept):
        samples = with_history(target, samples, fleet)
    return replace(samples, rates=rates_for(target, samples, advisors))


def rates_for(target: Target, samples: Samples, advisors: Sequence[Advisor]) -> Rates:
    """Return the rates that some advisors need: of all tables only after those were read."""
    if not any(advisor.reads[0] == "tables" for advisor in advisors):
        worked = {row["relid"] for row in samples.rows.get("progress", ())}
        tables = [row for row in samples.rows.get("tables", ()) if row["relid"] in worked]
        samples = samples.having(tables=tables)
    return recent.rates(target, samples, timezone.now())


def with_history(target: Target, samples: Samples, fleet: Fleet) -> Samples:
    """Return the samples with what the `kept` advisors judge beside them."""
    limits = {one.name: thresholds.of_target(target, one, fleet) for one in ADVISORS if one.kept}
    names = samples.database_names
    tables = samples.rows.get("tables", ())
    known = {(row["database_id"], row["relid"]) for row in tables}
    also = recent.wanted_tables(target, limits, timezone.now())
    more = latest("tables", [target.pk], watched_in({target.pk: names}), also).get(target.pk, ())
    added = [row for row in more if (row["database_id"], row["relid"]) not in known]
    return replace(
        samples.having(tables=[*tables, *added]),
        **recent.facts(target, names, limits, timezone.now()),
    )


def samples_at(target: Target, at: datetime) -> Samples:
    """Return what the advisors would have judged at a past moment of our clock."""
    names = database_names([target.pk], at)
    clock = clocks(target, CLOCK, at).get(0)
    mine = [one for one in LIVE if one.kind == target.kind]
    rows = {probe: rows_at(probe, target, names[target.pk], at) for probe in probes_of(mine)}
    samples = Samples(
        now=clock[1] if clock else at,
        **facts_of(target, names),
        rows=rows,
        behind=behind_of(target, rows, at),
        burn=burn_at(target, at),
        next_xid=next_xid(rows.get("databases", ())),
    )
    if target.kind == PGBOUNCER:
        return samples
    return replace(samples, rates=recent.rates(target, samples, at))


def rows_at(probe: str, target: Target, names: Mapping[int, str], at: datetime) -> Sequence[Row]:
    """Return the rows of a probe as they stood at a past moment."""
    if probe in FACTS:
        return ()
    rows = read_as_of(probe, target.pk, at, counters=COUNTERS.get(probe, ()))
    if HISTORY[probe].probe.per_database:
        return [row for row in rows if row["database_id"] in names]
    if probe == "horizon":
        return held({target.pk: marked(rows, target.logins)}, at)[target.pk]
    if probe != "activity":
        return rows
    known = stuck.definitions(at)
    return stuck.with_limits(marked(rows, target.logins), known, target.environment_id)


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
    advisors: Iterable[Advisor],
    progress: Rows,
) -> Rows:
    """Return the tables that an advisor may say something of, with TOAST tables' main tables.

    A fleet has millions of tables; most have few dead rows and never heard of autovacuum. Those
    that something works on are among them, and alone where no advisor judges tables themselves.
    """
    ids, watched = [target.pk for target in targets], watched_in(names)
    chosen_ones = Q(relid__in={row["relid"] for rows in progress.values() for row in rows})
    if any("tables" in advisor.reads for advisor in advisors):
        dead, changed = (
            min((thresholds.of_target(one, judge, fleet)["min_rows"] for one in targets), default=0)
            for judge in (dead_tuples.ADVISOR, stale_statistics.ADVISOR)
        )
        chosen_ones |= Q(n_dead_tup__gt=dead) | Q(n_mod_since_analyze__gt=changed) | SWITCHED
    chosen = latest("tables", ids, watched, chosen_ones)
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
    least = min(
        (
            min(limits["notice_bytes"], limits["warning_bytes"])
            for limits in (thresholds.of_target(one, bloat.ADVISOR, fleet) for one in targets)
        ),
        default=0,
    )
    return latest(
        "bloat", [target.pk for target in targets], watched_in(names), Q(bloat_bytes__gte=least)
    )


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
