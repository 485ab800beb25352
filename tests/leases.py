"""Take a lease as a worker does."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from monitors.collect import leases
from monitors.collect.rounds import take_due
from monitors.models import Lease, ProbeState, Target, WorkerBeat


def take_lease(target: Target, kind: str) -> None:
    """Let all that a lease reads be due, claim it and take it."""
    now = timezone.now()
    WorkerBeat.objects.update_or_create(
        name="w", defaults={"role": "snapshots", "slot": 0, "beat_at": now}
    )
    leases.make_leases()
    others = Lease.objects.exclude(target=target, kind=kind)
    put_off = list(others.values_list("pk", "due_at"))
    others.update(due_at=now + timedelta(hours=1))
    Lease.objects.filter(target=target, kind=kind).update(due_at=now - timedelta(seconds=1))
    ProbeState.objects.filter(target=target).update(due_at=now - timedelta(seconds=1))
    [lease] = leases.claim_due(now)
    for pk, due_at in put_off:
        Lease.objects.filter(pk=pk).update(due_at=due_at)
    take_due(target.pk, kind, str(lease.claim))
