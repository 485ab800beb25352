"""Standing rules: what is done by itself to backends that are stuck, and what would have been done.

A rule begins in shadow and writes what it would have done. Live it asks as its owner does, through
`ask`: right, guard, audit and outcome are those of any action.

Long, since what people ask of a rule and what it does itself rest on the same questions.
"""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from monitors import words
from monitors.acting import ask
from monitors.action import InvalidArguments, Refused
from monitors.audit import entries
from monitors.findings import stuck as definitions, thresholds
from monitors.history import active_sessions
from monitors.history.active_sessions import Slice
from monitors.history.freshness import interval_of
from monitors.history.window import Window
from monitors.models import HISTORY, Fleet, StandingRule, StandingRuleFiring, Target
from monitors.people import access
from monitors.rows.backends import Backend
from monitors.rows.fleet import usable_connections
from monitors.rows.stuck import PROBE, Seen
from monitors.rules import stuck
from monitors.rules.stuck import Found, fits_glob

LOAD_OVER = timedelta(minutes=1)
"""Over which the load is averaged."""
AN_HOUR = timedelta(hours=1)
NAMES = ("application_name", "usename", "datname")
MATCH = (
    "target_id",
    "environment_id",
    *NAMES,
    "state",
    "seconds",
    "load_per_core",
    "connections_pct",
    "action",
)
"""What a rule matches and does: where one of them changes it begins in shadow again."""
NAMESPACE = uuid.UUID("5e5f7f3c-5b0e-4e57-9a53-3b6d8d3c7a11")
WOULD, ASKED, REFUSED = (
    StandingRuleFiring.Result.WOULD,
    StandingRuleFiring.Result.ASKED,
    StandingRuleFiring.Result.REFUSED,
)


class Unknown(Exception):
    """What a rule asks for is not known, so it holds back; its text says what."""


def save(user: User, rule: StandingRule, *, source: str) -> StandingRule:
    """Keep a new or changed rule as its owner's; what matches otherwise begins in shadow.

    Raises PermissionDenied without the action's permission in its scope, ValidationError for a field.
    """
    require(user, rule, source)
    former = StandingRule.objects.filter(pk=rule.pk).first()
    if former is not None:
        require(user, former, source)
    if rule.action == StandingRule.Does.CANCEL and rule.state == StandingRule.State.IDLE:
        message = (
            "Cancel does nothing to what is idle in transaction: choose cancel, then terminate."
        )
        raise ValidationError({"action": message})
    if former is None or any(getattr(former, name) != getattr(rule, name) for name in MATCH):
        rule.shadow, rule.matched_at, rule.note = True, timezone.now(), ""
    rule.owner, rule.owner_name = user, user.get_username()
    rule.full_clean(exclude=["owner", "noted_at"])
    return keep(user, rule, "rule.edit" if former else "rule.add", source)


def enable(user: User, rule: StandingRule, *, source: str) -> StandingRule:
    """Let a rule act, with the rights of who enables it; raises PermissionDenied."""
    require(user, rule, source)
    rule.enabled, rule.shadow = True, False
    rule.owner, rule.owner_name = user, user.get_username()
    return keep(user, rule, "rule.enable", source)


def rest(user: User, rule: StandingRule, *, shadow: bool, source: str) -> StandingRule:
    """Let a rule rest, or only watch in `shadow`; raises PermissionDenied."""
    require(user, rule, source)
    rule.enabled, rule.shadow = shadow, True
    return keep(user, rule, "rule.shadow" if shadow else "rule.disable", source)


def remove(user: User, rule: StandingRule, *, source: str) -> None:
    """Delete a rule with the record of its firings; raises PermissionDenied."""
    require(user, rule, source)
    with transaction.atomic():
        tell(user, rule, "rule.remove", source)
        rule.delete()


def stop_all(user: User, *, stopped: bool, source: str) -> None:
    """Stop every rule at once, or let them go on.

    Whoever may release a backend anywhere may stop them; raises PermissionDenied.
    """
    may_stop = access.targets_with(user, StandingRule.Does.RELEASE).exists()
    if not (stopped and may_stop):
        access.require(user, "manage_targets", source=source)
    with transaction.atomic():
        thresholds.locked(thresholds.the_fleet())
        Fleet.objects.filter(pk=1).update(rules_off=stopped)
        entries.add("rules.stop" if stopped else "rules.resume", user.get_username(), source)


def require(user: User, rule: StandingRule, source: str) -> None:
    """Raise PermissionDenied unless somebody may do what a rule does everywhere in its scope."""
    targets: Iterable[Target | None] = [rule.target]
    if rule.environment is not None:
        targets = list(Target.objects.filter(environment=rule.environment)) or [None]
    for target in targets:
        access.require(user, rule.action, target, source=source)


def keep(user: User, rule: StandingRule, what: str, source: str) -> StandingRule:
    """Save a rule and write it into the audit."""
    with transaction.atomic():
        rule.save()
        tell(user, rule, what, source)
    return rule


def tell(user: User, rule: StandingRule, what: str, source: str) -> None:
    """Write into the audit what became of a rule."""
    entries.add(
        what,
        user.get_username(),
        source,
        target_name=rule.target.name if rule.target else "",
        object_name=rule.name,
        action=rule.action,
        environment=rule.environment.name if rule.environment else "",
        match={name: getattr(rule, name) for name in (*NAMES, "state", "seconds")},
        load_per_core=rule.load_per_core,
        connections_pct=rule.connections_pct,
        shadow=rule.shadow,
        enabled=rule.enabled,
    )


def of_target(target: Target) -> QuerySet[StandingRule]:
    """Return the rules whose scope a target is in."""
    everywhere = Q(target=None, environment=None)
    here = Q(target=target.pk) | Q(environment=target.environment_id)
    return StandingRule.objects.filter(everywhere | here)


def look(seen: Seen, now: datetime) -> None:
    """Have the rules of a target look at what was just read of it: one query for all of them."""
    rules = list(of_target(seen.target).filter(enabled=True).select_related("owner"))
    if not rules or thresholds.the_fleet().rules_off:
        return
    known = definitions.definitions()
    for rule in rules:
        matching = matches(rule, seen, known)
        if not matching:
            continue
        try:
            while_it_is = condition_of(rule, seen.target, now)
        except Unknown as error:
            note(rule, f"Held back on {seen.target.name}: {error}", now)
            continue
        if while_it_is is not None:
            for found in matching:
                fire(rule, seen.target, found, while_it_is, now)


def matches(
    rule: StandingRule, seen: Seen, known: Sequence[stuck.Definition]
) -> list[Found[Backend]]:
    """Return the backends that a rule means, longest first."""
    named = [
        backend
        for backend in seen.backends
        if all(fits_glob(getattr(rule, name), backend.row.get(name)) for name in NAMES)
    ]
    found = stuck.judge_by(
        named,
        rule.state,
        rule.seconds,
        known,
        environment_id=seen.target.environment_id,
        kept_waiting=seen.kept_waiting,
        maintained=seen.maintained,
    )
    return sorted(found, key=lambda one: -one.seconds)


def condition_of(rule: StandingRule, target: Target, now: datetime) -> str | None:
    """Return what holds while a rule may fire, in words, '' without a condition; None: it doesn't hold.

    Raises Unknown.
    """
    said = []
    if rule.load_per_core is not None:
        load, cores = load_of(target, now), target.cores
        if cores is None:
            message = "how many cores its machine has was not said."
            raise Unknown(message)
        if load / cores <= rule.load_per_core:
            return None
        said.append(f"load {load:.1f} on {words.count(cores, 'core')}")
    if rule.connections_pct is not None:
        used = used_pct(target)
        if used <= rule.connections_pct:
            return None
        said.append(f"{used:.0f} % of the connections in use")
    return ", ".join(said)


def load_of(target: Target, now: datetime) -> float:
    """Return the average active sessions of the last minute; raises Unknown."""
    line = active_sessions.read_line(
        target.pk,
        Window(now - LOAD_OVER, now, is_live=True),
        Slice(),
        "wait_event_type",
        [],
        interval_seconds=interval_of(target, PROBE),
    )
    if not line.per_snapshot:
        message = "its activity was not read in the last minute."
        raise Unknown(message)
    return statistics.fmean(line.per_snapshot)


def used_pct(target: Target) -> float:
    """Return the share of the usable connections that clients have; raises Unknown."""
    usable = usable_connections(target)
    if not usable:
        message = "how many connections it takes is not known."
        raise Unknown(message)
    latest = HISTORY[PROBE].latest._default_manager
    clients = latest.filter(target_id=target.pk, gone_at=None, backend_type="client backend")
    return 100 * clients.count() / usable


def fire(
    rule: StandingRule, target: Target, found: Found[Backend], while_it_is: str, now: datetime
) -> None:
    """Do what a rule does to a backend, or write that it would have; once for a statement."""
    firing = begin(rule, target, found, while_it_is, now)
    if firing is None or firing.result == WOULD:
        return
    try:
        if rule.owner is None:
            message = f"{rule.owner_name} has no account any more."
            raise Refused(message)
        action = ask.ask(
            rule.owner,
            target,
            rule.action,
            found.backend.guard,
            reason=f"Rule {rule.name}",
            idempotency_key=uuid.uuid5(NAMESPACE, f"{rule.pk} {firing.pk}"),
            source=f"rule {rule.name}"[:60],
        )
    except (Refused, InvalidArguments, PermissionDenied) as error:
        text = f"{firing.why} Nothing was sent: {error}"
        StandingRuleFiring.objects.filter(pk=firing.pk).update(result=REFUSED, why=text[:300])
    else:
        StandingRuleFiring.objects.filter(pk=firing.pk).update(action=action)


def begin(
    rule: StandingRule, target: Target, found: Found[Backend], while_it_is: str, now: datetime
) -> StandingRuleFiring | None:
    """Write a firing down, before anything is asked for; None where it is not the time for one.

    The rule's row is locked: firings of one rule come in turn, and one that was stopped fires no more.
    """
    row = found.backend.row
    since = row.get("query_start") if found.backend.is_running else row.get("state_change")
    if since is None:
        return None
    same = {"target": target, "pid": row["pid"], "backend_start": row["backend_start"]}
    result = WOULD if rule.shadow else ASKED
    with transaction.atomic():
        rows = StandingRule.objects.select_for_update(no_key=True)
        if not rows.filter(pk=rule.pk, enabled=True, shadow=rule.shadow).exists():
            return None
        before = StandingRuleFiring.objects.filter(rule=rule)
        results = [WOULD] if rule.shadow else [ASKED, REFUSED]
        if before.filter(**same, since=since, result__in=results).exists():
            return None
        if before.filter(result=result, at__gt=now - AN_HOUR).count() >= rule.at_most:
            note(
                rule,
                f"Held back: it fired {words.count(rule.at_most, 'time')} within the hour.",
                now,
            )
            return None
        return StandingRuleFiring.objects.create(
            rule=rule,
            **same,
            since=since,
            at=now,
            result=result,
            **{name: row.get(name) or "" for name in NAMES},
            query=found.backend.query[:2000],
            why=why_of(found, while_it_is),
        )


def why_of(found: Found[Backend], while_it_is: str) -> str:
    """Return why a rule fires, in a sentence."""
    seconds, limit = words.duration(found.seconds), words.duration(found.limit)
    said = stuck.reason(found.state, seconds, limit, "")
    return f"{said[:-1]}, {while_it_is}." if while_it_is else said


def note(rule: StandingRule, text: str, now: datetime) -> None:
    """Keep why a rule last held back."""
    StandingRule.objects.filter(pk=rule.pk).update(note=text[:300], noted_at=now)
