"""What Celery calls: each task hands over to the module that does the work."""

from __future__ import annotations

from celery import shared_task
from django.core.cache import cache
from django.utils import timezone

from monitors import heartbeat, maintenance, queue
from monitors.acting import perform, preview as previews, stuck, sweep as sweeps
from monitors.collect import leases
from monitors.collect.rounds import give_up, read_live, take_due
from monitors.findings import keep
from monitors.jobs import run
from monitors.targets import check, remove

KNOCK_SECONDS = 5
"""So often at most it is found out which targets answer at all."""


@shared_task
def tick() -> None:
    """Claim what is due and queue one task for each lease."""
    now = timezone.now()
    heartbeat.beat("tick")
    leases.make_leases()
    for lease in leases.claim_due(now):
        seconds = leases.budget_of(lease.kind)
        args = (lease.target_id, lease.kind, str(lease.claim))
        queue.send("snapshot", *args, queue=f"snapshots.{lease.slot}", expires=seconds)
    if leases.doubted(now) and cache.add("knock", now.isoformat(), KNOCK_SECONDS):
        queue.send("knock", queue="requests", expires=KNOCK_SECONDS)
    for target_id, slot in leases.looked_at():
        queue.send("live", target_id, queue=f"snapshots.{slot}", expires=2)


@shared_task
def knock() -> None:
    """Find out which of the targets in doubt answer at all, and record that the others don't."""
    give_up(timezone.now())


@shared_task
def snapshot(target_id: int, kind: str, claim: str) -> None:
    """Take the due snapshots of one lease, and judge the target by them."""
    read = take_due(target_id, kind, claim)
    keep.keep(target_id, read)
    stuck.look(target_id, read)


@shared_task(name="monitors.tasks.live")
def read_activity(target_id: int) -> None:
    """Read a target's activity for those who look at it now."""
    read_live(target_id)


@shared_task
def maintain_history() -> None:
    """Make partitions ahead, roll up, drop what is too old."""
    maintenance.maintain(timezone.now())


@shared_task
def sweep() -> None:
    """Send again what the broker lost, expire and look for what is lost."""
    sweeps.sweep()
    run.send_due(timezone.now())


@shared_task
def preview(action_id: str) -> None:
    """Look at the target for an action's preview."""
    previews.preview_now(action_id)


@shared_task
def preview_batch(batch_id: str) -> None:
    """Look at the target for the tables of a batch."""
    previews.preview_batch(batch_id)


@shared_task(name="monitors.tasks.perform")
def perform_action(action_id: str) -> None:
    """Carry an action out, once, and judge the target by what was read after it."""
    keep.keep(*perform.perform(action_id))


@shared_task
def check_target(check_id: str) -> None:
    """Test a connection and what its login may do."""
    check.carry_out(check_id)


@shared_task
def delete_target(target_id: int) -> None:
    """Remove a target and its history in batches."""
    remove.delete_target(target_id)


@shared_task
def job(job_id: int) -> None:
    """Take a recurring job one step further."""
    run.look(job_id, timezone.now())
