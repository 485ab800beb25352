"""A target's end: its history goes in batches, and nothing of it stays."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import IntegrityError, connection, models

from monitors.models import (
    HISTORY,
    Snapshot,
    Target,
    VacuumRun,
)

log = logging.getLogger(__name__)
DELETE_SECONDS = 600
DELETE_LOCK = 4_867_330_018


def delete_target(target_id: int) -> None:
    """Delete a target that is marked for it, its history in batches, itself last.

    Two workers with the same task do no harm: the second leaves at once.
    """
    with connection.cursor() as cursor:
        cursor.callproc("pg_try_advisory_lock", [DELETE_LOCK + target_id])
        if not cursor.fetchall()[0][0]:
            return
    try:
        target = Target.objects.filter(pk=target_id).exclude(deleting_at=None).first()
        if target is not None:
            delete_history(target_id)
            target.delete()
    except IntegrityError:
        # A read that was under way kept something at the last moment.
        log.info("%s is not removed yet: the sweep goes on with it", target_id)
    finally:
        with connection.cursor() as cursor:
            cursor.callproc("pg_advisory_unlock", [DELETE_LOCK + target_id])


def delete_history(target_id: int) -> None:
    """Delete all samples, latest rows, rollups and snapshots of a target."""
    hour, month = timedelta(hours=1), timedelta(days=31)
    for history in HISTORY.values():
        delete_by_time(history.samples, "taken_at", target_id, hour)
        history.latest._default_manager.filter(target_id=target_id).delete()
        if history.hours is not None:
            delete_by_time(history.hours, "start_at", target_id, timedelta(days=1))
        if history.days is not None:
            delete_by_time(history.days, "start_at", target_id, month)
    delete_by_time(Snapshot, "taken_at", target_id, hour)
    delete_by_time(VacuumRun, "seen_at", target_id, timedelta(days=31))


def delete_by_time(model: type[models.Model], field: str, target_id: int, step: timedelta) -> None:
    """Delete a target's rows of one table oldest first, a stretch of time a transaction."""
    rows = model._default_manager.filter(target_id=target_id)
    bounds = rows.aggregate(first=models.Min(field), last=models.Max(field))
    if bounds["first"] is None:
        return
    end = bounds["first"]
    while end <= bounds["last"]:
        end += step
        rows.filter(**{f"{field}__lt": end}).delete()
