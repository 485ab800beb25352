"""Where each threshold comes from: the advisor, the fleet, an environment or a target.

The narrower wins: a target's own over its environment's over the fleet's over the default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.core.exceptions import ValidationError
from django.db import transaction

from monitors.advisor import Advisor
from monitors.advisors import ADVISORS
from monitors.audit import entries
from monitors.models import AuditEntry, Environment, Fleet, Target

Scope = Fleet | Environment | Target
Name = tuple[str, str]
"""An advisor's name and its threshold's."""

BY_NAME = {advisor.name: advisor for advisor in ADVISORS}
MODELS: tuple[type[Scope], ...] = (Fleet, Environment, Target)
SET, RESET = CHANGES = ("threshold.set", "threshold.reset")
MOST = 1e15  # beyond it a float no longer counts rows one by one


@dataclass(frozen=True)
class InForce:
    """One threshold as it holds in a scope; `own` is what the scope itself says, if anything."""

    advisor: str
    name: str
    default: float
    value: float
    source: str  # default, fleet, environment NAME or target NAME
    own: float | None

    @property
    def field(self) -> str:
        """Its name in forms."""
        return f"{self.advisor}.{self.name}"


def the_fleet(at: datetime | None = None) -> Fleet:
    """Return what holds for every target, or held then; an empty one where nobody said anything."""
    fleet = Fleet.objects.filter(pk=1).first() or Fleet(pk=1)
    if at is not None:
        take_back([fleet], at)
    return fleet


def take_back(scopes: Sequence[Scope], at: datetime) -> None:
    """Bring the thresholds of some scopes to a past moment, in memory: the audit has each change."""
    by_name = {name_of(scope): scope for scope in scopes}
    later = AuditEntry.objects.filter(what__in=CHANGES, at__gt=at)
    for detail, words in later.order_by("-id").values_list("detail", "object_name"):
        scope = by_name.get(detail.get("scope"))
        if scope is None:
            continue
        advisor, _, name = words.partition(".")
        said = dict(scope.thresholds.get(advisor) or {})
        said.pop(name, None)
        if detail.get("before") is not None:
            said[name] = detail["before"]
        scope.thresholds = {**scope.thresholds, advisor: said}


def of_target(target: Target, advisor: Advisor, fleet: Fleet | None = None) -> dict[str, float]:
    """Return an advisor's thresholds for a target.

    One query, none where `fleet` is given. Names that the advisor doesn't have, and what is
    no number, are passed over.
    """
    found = dict(advisor.defaults)
    for scope in above(target, fleet or the_fleet()):
        found |= own(scope, advisor)
    return found


def above(scope: Scope, fleet: Fleet) -> Sequence[Scope]:
    """Return the scopes whose words hold in a scope, the widest first, itself last."""
    if isinstance(scope, Target):
        return (fleet, scope.environment, scope)
    return (fleet, scope) if isinstance(scope, Environment) else (scope,)


def own(scope: Scope, advisor: Advisor) -> dict[str, float]:
    """Return what a scope itself says of an advisor's thresholds."""
    said = scope.thresholds.get(advisor.name)
    known = said.items() if isinstance(said, Mapping) else ()
    return {
        name: float(value)
        for name, value in known
        if name in advisor.defaults and type(value) in (int, float)
    }


def in_force(scope: Scope) -> Iterator[InForce]:
    """Yield every threshold with the value that holds in a scope and where it comes from."""
    scopes = above(scope, the_fleet())
    for advisor in ADVISORS:
        said = [(name_of(one), own(one, advisor)) for one in scopes]
        mine = said[-1][1]
        for name, default in advisor.defaults.items():
            value, source = float(default), "default"
            for where, numbers in said:
                if name in numbers:
                    value, source = numbers[name], where
            yield InForce(advisor.name, name, float(default), value, source, mine.get(name))


def name_of(scope: Scope) -> str:
    """Return `fleet`, `environment production` or `target shop-1`."""
    if isinstance(scope, Fleet):
        return "fleet"
    kind = "target" if isinstance(scope, Target) else "environment"
    return f"{kind} {scope.name}"


def known_name(advisor: str, name: str) -> Name:
    """Return both as they are; raises ValidationError that names those there are."""
    if advisor not in BY_NAME:
        message = f"There is no advisor {advisor[:60]}. Known: {', '.join(BY_NAME)}."
        raise ValidationError(message)
    if name not in BY_NAME[advisor].defaults:
        known = ", ".join(BY_NAME[advisor].defaults)
        message = f"{advisor} has no threshold {name[:60]}. Known: {known}."
        raise ValidationError(message)
    return advisor, name


def number_of(text: str) -> float:
    """Read a threshold; raises ValidationError for what is no number from 0 to MOST."""
    try:
        value = float(text.strip().replace("_", "x"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not 0 <= value <= MOST:
        message = f"{text[:40]!r} is no number from 0 to {MOST:,.0f}."
        raise ValidationError(message)
    return int(value) if value.is_integer() else value


def change(who: str, source: str, scope: Scope, wanted: Mapping[Name, float | None]) -> int:
    """Set thresholds of a scope, or have it say nothing of one (None); return how many changed.

    Each change is an event in the audit. Raises ValidationError for a name that does not exist.
    """
    for advisor, name in wanted:
        known_name(advisor, name)
    with transaction.atomic():
        row = locked(scope)
        changed = 0
        for (advisor, name), value in wanted.items():
            group = row.thresholds.get(advisor)
            said = dict(group) if isinstance(group, Mapping) else {}
            before = said.pop(name, None)
            if value is not None:
                said[name] = value
            if before == value:
                continue
            row.thresholds = {**row.thresholds, advisor: said}
            if not said:
                del row.thresholds[advisor]
            tell(who, source, scope, (advisor, name), before, value)
            changed += 1
        if changed:
            row.save(update_fields=["thresholds"])
    scope.thresholds = row.thresholds
    return changed


def locked(scope: Scope) -> Scope:
    """Return a scope's row, locked; the fleet's is made at its first change."""
    if isinstance(scope, Fleet):
        Fleet.objects.get_or_create(pk=1)
        return Fleet.objects.select_for_update().get(pk=1)
    if isinstance(scope, Environment):
        return Environment.objects.select_for_update().get(pk=scope.pk)
    return Target.objects.select_for_update(no_key=True).get(pk=scope.pk)


def tell(
    who: str, source: str, scope: Scope, name: Name, before: object, value: float | None
) -> None:
    """Write one change down."""
    entries.add(
        RESET if value is None else SET,
        who,
        source,
        target_name=scope.name if isinstance(scope, Target) else "",
        object_name=".".join(name),
        scope=name_of(scope),
        before=before,
        value=value,
    )
