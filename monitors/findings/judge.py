"""Runs the advisors over what was read, now or by a past moment, and ranks what they find."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from django.db.models import prefetch_related_objects
from django.utils import timezone

from monitors.actions import ACTIONS
from monitors.advisor import (
    Advisor,
    Finding,
    Samples,
)
from monitors.findings import past, thresholds
from monitors.findings.records import (
    KEPT,
    LIVE,
    ORDER,
    finding_of,
    noted,
    noted_then,
    records_at,
    records_of,
)
from monitors.findings.samples import samples_at, samples_of
from monitors.models import (
    Fleet,
    Target,
)


def find(target: Target, at: datetime | None = None) -> list[Finding]:
    """Return a target's findings, worst first; with `at`, those of a past moment.

    The past is judged by the settings, options and thresholds of then.
    """
    if at is None:
        return find_all([target])[target.pk]
    past.as_of(target, at)
    records = records_at(target, at)
    live = judge(target, samples_at(target, at), fleet=thresholds.the_fleet(at))
    kept = [finding_of(row) for row in records.values() if row.advisor in KEPT]
    return ranked(noted_then(one, records, at) for one in (*live, *kept))


def find_all(targets: Iterable[Target]) -> dict[int, list[Finding]]:
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


def judge(
    target: Target,
    samples: Samples,
    advisors: Iterable[Advisor] = LIVE,
    fleet: Fleet | None = None,
) -> Iterator[Finding]:
    """Yield what advisors say of a target's samples."""
    fleet = fleet or thresholds.the_fleet()
    for advisor in advisors:
        if advisor.kind != target.kind or (samples.in_recovery and not advisor.on_standby):
            continue
        limits = thresholds.of_target(target, advisor, fleet)
        for one in advisor.advise(samples.for_advisor(advisor), limits):
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
