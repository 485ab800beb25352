"""The verdict over a page: one or two sentences, how bad, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from django.utils import timezone

from monitors import words
from monitors.advisor import Finding, Severity
from monitors.advisors import ADVISORS
from monitors.findings import unknowns
from monitors.findings.standing import Apart, Standing, ago, standing_of
from monitors.history.freshness import STALE_INTERVALS, interval_of
from monitors.models import (
    Snapshot,
    Target,
)

READS = {
    "overview": ("activity", "sessions", "tables"),
    "activity": ("activity", "sessions"),
    "connections": ("sessions", "connections"),
    "locks": ("activity", "locks"),
    "vacuum": ("tables",),
    "wraparound": ("databases",),
    "bloat": ("bloat",),
    "settings": ("settings",),
    "pooler": ("pooler_pools", "pooler_databases"),
}
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
    "connections": (
        ("connections are within their limit", ""),
        ("no database is known to get a new session for each request", ""),
        ("few idle for long", unknowns.STATEMENTS),
    ),
    "locks": (("nobody is blocked", ""),),
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
    "pooler": (("no pool is full", ""), ("no database is paused", "")),
}
"""What each page says where nothing was found, and what must be known of the server to say it
('' where the page's own probes are enough)."""
ALSO = {"locks": ("blocked",)}
"""Findings of another page's subject that a page speaks of."""
NOTHING = (("no finding is open", ""),)
"""What a page says that has no line in GOOD."""
NOUNS = {
    Severity.CRITICAL: "critical finding",
    Severity.WARNING: "warning",
    Severity.NOTICE: "notice",
}
LEVELS = ("good", "unknown", "notice", "warning", "critical")
"""From best to worst."""


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


def tell_verdict(
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
    also = ALSO.get(page, ())
    here = [
        one
        for one in findings
        if page == "overview" or SUBJECTS[one.advisor] == page or one.advisor in also
    ]
    mine = [one for one in here if not one.quiet]
    now = timezone.now()
    if at is not None:
        return past_verdict(target, mine, page, at)
    standing = standing_of(target, reads_of(page), now, database_id)
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


def reads_of(page: str) -> tuple[str, ...]:
    """Return the probes that a page shows: of one without a line in READS, what is judged for it."""
    judged = (probe for one in ADVISORS if one.subject == page for probe in one.reads)
    return READS.get(page) or tuple(dict.fromkeys(judged)) or READS["overview"]


def is_at_fault(page: str, missing: Sequence[str]) -> bool:
    """Tell whether what is missing keeps a page from calling its target well.

    That a standby has no counts is no fault of it: its overview is well without them.
    """
    return any(page != "overview" or reason != unknowns.STANDBY for reason in missing)


def missing_for(page: str, unknown: Mapping[str, str]) -> list[str]:
    """Return why a page can't say all that it says where nothing was found; [] where it can."""
    needs = dict.fromkeys(need for _, need in GOOD.get(page, NOTHING))
    return [unknown[need] for need in needs if need in unknown]


def all_well(page: str, unknown: Mapping[str, str]) -> str:
    """Return what is known to be well, as one sentence; '' where nothing is."""
    claims = [claim for claim, need in GOOD.get(page, NOTHING) if need not in unknown]
    if not claims:
        return ""
    *first, last = claims
    text = f"{', '.join(first)} and {last}" if first else last
    return f"{text[0].upper()}{text[1:]}."


def aside(count: int) -> str:
    """Return that nothing counts, since all there is was put aside."""
    verb = "is" if count == 1 else "are"
    return f"Nothing new to report: {words.count(count, 'finding')} {verb} acknowledged or snoozed."


def past_verdict(target: Target, mine: Sequence[Finding], page: str, at: datetime) -> Verdict:
    """Return the verdict of a past moment: what was found then, or that nothing was read."""
    foot = "Judged by the settings and thresholds of then."
    if mine:
        return Verdict(mine[0].level, said(mine), foot, mine[0])
    names = reads_of(page)
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
        words.count(len(list(group)), NOUNS[severity])
        for severity, group in groupby(found, key=lambda one: one.severity)
    ]
    *first, last = counts or [""]
    parts = [f"From {', '.join(first)} and {last}." if first else f"From {last}."] if last else []
    if standing.read_at is not None:
        parts.append(f"Read {ago(standing.read_at, now)} ago.")
    return " ".join(parts)
