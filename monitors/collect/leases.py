"""Which reads are due, and who takes them: each lease is claimed once."""

from __future__ import annotations

import random
import uuid
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from monitors import probes
from monitors.collect import live
from monitors.history.freshness import interval_of
from monitors.models import Lease, Target, WorkerBeat
from monitors.probe import Probe

GRACE = timedelta(seconds=5)
ALIVE = timedelta(seconds=15)
FAILURES_TO_OPEN = 3
BACK_OFF_MINUTES = (1, 2, 4, 8, 15)
DENIED_AGAIN = timedelta(hours=1)
AT_ONCE = 200
FAILING_A_SLOT = 4
"""So many leases of targets that did not answer, or never yet, are tried at once by a worker of 16 threads."""
LATE = timedelta(seconds=2)
GIVING_UP = timedelta(minutes=1)
"""How long it may take to record of hundreds of targets that they do not answer."""
MANY_LATE = 8
"""Fast reads that all take longer than LATE: half the threads of a worker wait, or more."""


def budget_of(kind: str) -> float:
    """Return how many seconds a read of a lease may take."""
    fast = kind == Lease.Kind.FAST
    return float(settings.FAST_BUDGET_SECONDS if fast else settings.SLOW_BUDGET_SECONDS)


def probes_of(target: Target, kind: str) -> list[Probe]:
    """Return the probes that a kind of lease reads of a target, in their order."""
    fast = kind == Lease.Kind.FAST
    return [probe for probe in probes.probes_of(target.kind) if probe.fast == fast]


def make_leases() -> None:
    """Give every target that has none its two leases."""
    bare = Target.objects.filter(lease__isnull=True, deleting_at__isnull=True)
    leases = [Lease(target=target, kind=kind) for target in bare for kind in Lease.Kind]
    Lease.objects.bulk_create(leases, ignore_conflicts=True)


def live_slots(now: datetime) -> list[int]:
    """Return the slots of the snapshot workers that give signs of life, lowest first."""
    beats = WorkerBeat.objects.filter(
        role="snapshots", slot__isnull=False, beat_at__gte=now - ALIVE
    )
    return sorted({slot for slot in beats.values_list("slot", flat=True) if slot is not None})


def claim_due(now: datetime) -> list[Lease]:
    """Claim the leases that are due, at most AT_ONCE; the caller queues a task for each.

    A lease that another worker holds is due again only when its claim has
    expired. One stays with the worker that has its connections; where that
    worker is gone another takes it over. Of targets whose last read failed, or
    that were never reached, only a few are tried at a time: each may take a thread for seconds.
    Half of these once answered, so that one that is back does not wait for those that never
    did; and who failed least often, or has just come due, is first.
    """
    slots = live_slots(now)
    if not slots:
        return []
    with transaction.atomic():
        due = (
            Lease.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(
                Q(claim__isnull=True) | Q(expires_at__lt=now),
                due_at__lte=now,
                target__enabled=True,
                target__deleting_at__isnull=True,
            )
            .select_related("target")
            .order_by("due_at")
        )
        tried = Lease.objects.filter(failing(), claim__isnull=False, expires_at__gte=now).count()
        room = max(FAILING_A_SLOT * len(slots) - tried, 0)
        known, newest = Q(target__server_version__isnull=False), ("failures", "-due_at")
        failed = due.filter(failing(), known).order_by(*newest)[:room]
        unreached = due.filter(failing(), ~known).order_by(*newest)[:room]
        leases = [
            *due.exclude(failing())[:AT_ONCE],
            *[lease for pair in zip_longest(failed, unreached) for lease in pair if lease][:room],
        ]
        for lease in leases:
            lease.claim = uuid.uuid4()
            lease.expires_at = now + timedelta(seconds=budget_of(lease.kind)) + GRACE
            if lease.slot not in slots:
                lease.slot = slots[lease.target_id % len(slots)]
        Lease.objects.bulk_update(leases, ["claim", "expires_at", "slot"])
    return leases


def failing() -> Q:
    """Return the condition of leases whose target failed its last read, or was never reached."""
    failed = Lease.objects.filter(failures__gt=0).values("target_id")
    return Q(target__in=failed) | Q(target__server_version__isnull=True)


def doubted(now: datetime) -> list[Target]:
    """Return the targets of which to find out together who answers at all.

    These are the failing ones that have to wait for their turn, and all others too while many
    reads are late: when a network goes, its targets fall silent all at once.
    """
    watched = Target.objects.filter(enabled=True, deleting_at__isnull=True)
    begun = now + timedelta(seconds=budget_of(Lease.Kind.FAST)) + GRACE - LATE
    late = Lease.objects.filter(
        kind=Lease.Kind.FAST, claim__isnull=False, expires_at__gte=now, expires_at__lte=begun
    )
    if late.exclude(failing()).count() >= MANY_LATE:
        return list(watched)
    waiting = Lease.objects.filter(failing(), claim__isnull=True, due_at__lte=now - LATE)
    return list(watched.filter(pk__in=waiting.values("target_id")))


def take_over(targets: Sequence[Target], now: datetime) -> list[Lease]:
    """Claim what is due of targets that do not answer, whoever waits for them; all count as failing.

    Whoever had one of these leases finds its claim gone, and stores nothing.
    """
    with transaction.atomic():
        leases = list(
            Lease.objects.select_for_update(of=("self",))
            .filter(target__in=targets)
            .select_related("target")
        )
        taken = [lease for lease in leases if lease.claim is not None or lease.due_at <= now]
        for lease in leases:
            if lease in taken:
                lease.claim, lease.expires_at = uuid.uuid4(), now + GIVING_UP
            else:
                lease.failures = max(lease.failures, 1)
        Lease.objects.bulk_update(leases, ["claim", "expires_at", "failures"])
    return taken


def looked_at() -> list[tuple[int, int]]:
    """Return (target id, slot of the worker with its fast lease) of what somebody looks at."""
    leases = Lease.objects.filter(kind=Lease.Kind.FAST, target__enabled=True)
    slots = dict(leases.values_list("target_id", "slot"))
    return [(target_id, slots[target_id]) for target_id in live.watched(slots)]


def hold(target_id: int, kind: str, claim: str) -> Lease | None:
    """Return the lease if the claim still holds, None if it was given to another."""
    return (
        Lease.objects.select_related("target__environment")
        .filter(target_id=target_id, kind=kind, claim=claim)
        .first()
    )


def still_holds(target_id: int, kind: str, claim: str) -> bool:
    """Return whether a claim was not given to another since: its worker may have stood still.

    Of a target that is being removed none holds.
    """
    held = Lease.objects.filter(target_id=target_id, kind=kind, claim=claim)
    return held.filter(target__deleting_at__isnull=True).exists()


def release(lease: Lease, now: datetime, *, reached: bool, due_at: datetime | None = None) -> None:
    """Give a lease back; `due_at` is when the first of its probes is next due, None if unknown.

    After three failures in a row it is tried ever more rarely, up to every 15
    minutes, so that a target that is down is not hammered.
    """
    failures = 0 if reached else lease.failures + 1
    turn = next_turn(lease.target, lease.kind, now)
    due_at = min(turn, max(due_at, now)) if due_at else turn
    if failures >= FAILURES_TO_OPEN:
        step = min(failures - FAILURES_TO_OPEN, len(BACK_OFF_MINUTES) - 1)
        wait = BACK_OFF_MINUTES[step] * 60 * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        due_at = max(due_at, now + timedelta(seconds=wait))
    Lease.objects.filter(pk=lease.pk, claim=lease.claim).update(
        claim=None, expires_at=None, due_at=due_at, failures=failures
    )


def wake(target_id: int, now: datetime) -> None:
    """Try the leases at once that a target which answers again had failed."""
    waiting = Lease.objects.filter(target_id=target_id, failures__gt=0, due_at__gt=now)
    waiting.update(due_at=now, failures=0)


def next_turn(target: Target, kind: str, now: datetime) -> datetime:
    """Return the next turn of a lease's most frequent probe."""
    shortest = min(interval_of(target, probe.name) for probe in probes_of(target, kind))
    return next_slot(target.pk, shortest, now)


def next_slot(target_id: int, interval: float, now: datetime) -> datetime:
    """Return the next moment of a target's rhythm after now.

    Each target has an offset of its own inside the interval, the same after
    every restart, so that a thousand targets do not come due at once.
    """
    offset = zlib.crc32(str(target_id).encode()) % 1000 / 1000 * interval
    turns = (now.timestamp() - offset) // interval + 1
    return datetime.fromtimestamp(turns * interval + offset, tz=UTC)
