"""Standing rules with what they did or would have done, and their firings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from django.contrib.auth.models import User
from django.db.models import Count, Q, QuerySet

from monitors import words
from monitors.models import StandingRule, StandingRuleFiring
from monitors.people import access

COLUMNS = (
    "name",
    "mode",
    "scope",
    "who",
    "what",
    "condition",
    "action",
    "at_most",
    "owner",
    "would_24h",
    "asked_24h",
    "refused_24h",
    "note",
    "noted_at",
)
FIRING_COLUMNS = (
    "at",
    "rule",
    "target",
    "result",
    "pid",
    "application_name",
    "usename",
    "datname",
    "query",
    "why",
    "action_id",
    "action_state",
    "outcome",
)
A_DAY = timedelta(hours=24)


class RuleRow(TypedDict):
    """One rule; counts are of the last 24 hours, since it matches as it does."""

    rule: StandingRule
    name: str
    mode: str  # shadow, live or off
    scope: str  # fleet, environment production or target shop-1
    who: str  # '' for every client
    what: str
    condition: str  # '' for always
    action: str
    at_most: int
    owner: str
    would_24h: int
    asked_24h: int
    refused_24h: int
    note: str  # why it last held back, '' where it never did
    noted_at: datetime | None


class FiringRow(TypedDict):
    """One firing; what was asked for has its action, with its state and outcome."""

    at: datetime
    rule: str
    target: str
    result: str  # would, asked or refused
    pid: int
    application_name: str
    usename: str
    datname: str
    query: str
    why: str
    action_id: str | None
    action_state: str
    outcome: str


def rules_of(user: User | None, now: datetime) -> list[RuleRow]:
    """Return the rules that may fire on what somebody sees; None: all."""
    found = StandingRule.objects.select_related("target", "environment", "owner")
    if user is not None:
        seen = access.visible_targets(user)
        everywhere = Q(target=None, environment=None)
        if not seen.exists() and not access.may(user, "manage_targets"):
            return []
        here = Q(target__in=seen) | Q(environment__in=seen.values("environment"))
        found = found if access.may(user, "manage_targets") else found.filter(everywhere | here)
    counts = counted(found, now)
    return [row_of(rule, counts.get(rule.pk, {})) for rule in found]


def counted(rules: QuerySet[StandingRule], now: datetime) -> dict[int, dict[str, int]]:
    """Return {rule: {result: firings}} of the last 24 hours, of what matches as it does now."""
    since = {rule.pk: max(rule.matched_at, now - A_DAY) for rule in rules}
    wanted = Q(pk__in=[])
    for pk, moment in since.items():
        wanted |= Q(rule=pk, at__gte=moment)
    rows = StandingRuleFiring.objects.filter(wanted).order_by().values_list("rule", "result")
    found: dict[int, dict[str, int]] = {}
    for pk, result, count in rows.annotate(count=Count("pk")):
        found.setdefault(pk, {})[result] = count
    return found


def row_of(rule: StandingRule, counts: dict[str, int]) -> RuleRow:
    """Return a rule as page, export and command show it."""
    return {
        "rule": rule,
        "name": rule.name,
        "mode": mode_of(rule),
        "scope": scope_words(rule),
        "who": who_words(rule),
        "what": f"{rule.get_state_display()} for over {words.duration(rule.seconds)}",
        "condition": condition_words(rule),
        "action": rule.get_action_display(),
        "at_most": rule.at_most,
        "owner": rule.owner_name,
        "would_24h": counts.get("would", 0),
        "asked_24h": counts.get("asked", 0),
        "refused_24h": counts.get("refused", 0),
        "note": rule.note,
        "noted_at": rule.noted_at,
    }


def mode_of(rule: StandingRule) -> str:
    """Return `shadow`, `live` or `off`."""
    if not rule.enabled:
        return "off"
    return "shadow" if rule.shadow else "live"


def scope_words(rule: StandingRule) -> str:
    """Return where a rule fires."""
    if rule.target is not None:
        return f"target {rule.target.name}"
    return f"environment {rule.environment.name}" if rule.environment is not None else "fleet"


def who_words(rule: StandingRule) -> str:
    """Return whom a rule means, '' for every client."""
    named = (
        ("application", rule.application_name),
        ("user", rule.usename),
        ("database", rule.datname),
    )
    return ", ".join(f"{title} {glob}" for title, glob in named if glob)


def condition_words(rule: StandingRule) -> str:
    """Return while what a rule fires, '' for always."""
    parts = []
    if rule.load_per_core is not None:
        parts.append(f"over {rule.load_per_core:g} active sessions a core")
    if rule.connections_pct is not None:
        parts.append(f"over {rule.connections_pct:g} % of the connections in use")
    return " and ".join(parts)


def firings_of(user: User | None, *, rule: str = "", last: int = 50) -> list[FiringRow]:
    """Return the last firings on what somebody sees, newest first; user None: all."""
    found = StandingRuleFiring.objects.select_related("rule", "target", "action")
    if user is not None:
        found = found.filter(target__in=access.visible_targets(user))
    if rule:
        found = found.filter(rule__name=rule)
    return described(found[:last])


def described(
    firings: Sequence[StandingRuleFiring] | QuerySet[StandingRuleFiring],
) -> list[FiringRow]:
    """Return firings as they are shown."""
    return [
        {
            "at": one.at,
            "rule": one.rule.name,
            "target": one.target.name,
            "result": one.result,
            "pid": one.pid,
            "application_name": one.application_name,
            "usename": one.usename,
            "datname": one.datname,
            "query": one.query,
            "why": one.why,
            "action_id": str(one.action_id) if one.action_id else None,
            "action_state": one.action.state if one.action else "",
            "outcome": one.action.outcome if one.action else "",
        }
        for one in firings
    ]
