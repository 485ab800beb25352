"""Which limits make a backend stuck: a target's by its thresholds, an application's or user's by definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from monitors.advisor import Row
from monitors.advisors import blocked, idle_in_transaction, long_running
from monitors.audit import entries
from monitors.findings import thresholds
from monitors.models import Fleet, StuckDefinition, Target
from monitors.people import access
from monitors.rules import stuck
from monitors.rules.stuck import Definition, Limits

THRESHOLDS = {
    stuck.RUNNING: (long_running.ADVISOR, "warning_seconds"),
    stuck.BLOCKED: (blocked.ADVISOR, "stuck_blocked_seconds"),
    stuck.BLOCKING: (blocked.ADVISOR, "stuck_blocking_seconds"),
    stuck.IDLE: (idle_in_transaction.ADVISOR, "warning_seconds"),
}
"""{state: advisor and threshold that say when a target's backends are stuck in it}."""
NAMES = ("application_name", "usename", "datname")
ADDED, REMOVED = "stuck.define", "stuck.forget"


def limits_of(target: Target, fleet: Fleet) -> Limits:
    """Return a target's limits: for backends that no definition names."""
    return Limits(
        **{
            state: thresholds.of_target(target, advisor, fleet)[name]
            for state, (advisor, name) in THRESHOLDS.items()
        }
    )


def definitions(at: datetime | None = None) -> list[Definition]:
    """Return the team's definitions, as they are or as they were at a moment."""
    rows = StuckDefinition.objects.filter(ended_at=None)
    if at is not None:
        ended = Q(ended_at=None) | Q(ended_at__gt=at)
        rows = StuckDefinition.objects.filter(ended, made_at__lte=at)
    return [definition_of(row) for row in rows]


def definition_of(row: StuckDefinition) -> Definition:
    """Return a row as it judges."""
    return Definition(
        limits=Limits(**{state: getattr(row, state) for state in stuck.STATES}),
        **{name: getattr(row, name) for name in NAMES},
        environment_id=row.environment_id,
        row_id=row.pk,
    )


def with_limits(
    rows: Iterable[Row], known: Sequence[Definition], environment_id: int | None
) -> list[Row]:
    """Return backends with the `limits` of the team's definition that names them, else as they are."""
    found = []
    for row in rows:
        definition = stuck.definition_of(row, known, environment_id)
        if definition is None or definition.is_built_in:
            found.append(row)
            continue
        limits: Mapping[str, float | None] = {
            state: definition.limits.of(state) for state in stuck.STATES
        }
        found.append({**row, "limits": limits})
    return found


def define(user: User, row: StuckDefinition, *, source: str) -> StuckDefinition:
    """Keep a definition in the place of the one for the same names, if there is one.

    Raises PermissionDenied, ValidationError for a limit, or where it names nothing.
    """
    access.require(user, "manage_targets", source=source)
    if not any(getattr(row, name) for name in NAMES):
        message = "Name an application, a user or a database: for all others there are thresholds."
        raise ValidationError(message)
    row.made_by = user.get_username()
    row.full_clean(exclude=["ended_at"], validate_constraints=False)
    with transaction.atomic():
        names = {name: getattr(row, name) for name in NAMES}
        former = StuckDefinition.objects.select_for_update().filter(
            **names, environment=row.environment, ended_at=None
        )
        former.update(ended_at=row.made_at)
        row.save(force_insert=True)
        tell(ADDED, user, source, row)
    return row


def forget(user: User, row: StuckDefinition, *, source: str) -> None:
    """End a definition; raises PermissionDenied."""
    access.require(user, "manage_targets", source=source)
    with transaction.atomic():
        ended = StuckDefinition.objects.filter(pk=row.pk, ended_at=None)
        if ended.update(ended_at=timezone.now()):
            tell(REMOVED, user, source, row)


def tell(what: str, user: User, source: str, row: StuckDefinition) -> None:
    """Write into the audit what was defined or forgotten."""
    entries.add(
        what,
        user.get_username(),
        source,
        object_name=definition_of(row).words[:300],
        environment=row.environment.name if row.environment else "",
        **{state: getattr(row, state) for state in stuck.STATES},
    )
