"""Every read is claimed once, in its target's own rhythm."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from monitors.collect import leases
from monitors.models import Environment, Lease, Target, WorkerBeat

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def make_targets(count: int, **fields: object) -> list[Target]:
    environment, _ = Environment.objects.get_or_create(name="development")
    return [
        Target.objects.create(
            **{
                "name": f"t-{number}",
                "host": "127.0.0.1",
                "user": "c",
                "environment": environment,
                "server_version": 180004,
                **fields,
            }
        )
        for number in range(count)
    ]


def alive(slot: int = 0, at: datetime = NOW) -> None:
    WorkerBeat.objects.create(name=f"w{slot}", role="snapshots", slot=slot, beat_at=at)


def ready(count: int = 1, **fields: object) -> list[Target]:
    targets = make_targets(count, **fields)
    leases.make_leases()
    Lease.objects.update(due_at=NOW)
    return targets


@pytest.mark.django_db
def test_a_due_lease_is_claimed_once() -> None:
    alive()
    ready()

    assert {lease.kind for lease in leases.claim_due(NOW)} == {"fast", "slow"}
    assert leases.claim_due(NOW) == []


@pytest.mark.django_db
def test_an_expired_claim_is_given_to_another() -> None:
    alive()
    [target] = ready()
    first = leases.claim_due(NOW)[0]

    later = NOW + timedelta(seconds=60)
    WorkerBeat.objects.update(beat_at=later)
    second = leases.claim_due(later)

    assert len(second) == 2
    assert leases.hold(target.pk, first.kind, str(first.claim)) is None


@pytest.mark.django_db
def test_without_a_living_worker_nothing_is_claimed() -> None:
    ready()
    alive(at=NOW - timedelta(minutes=1))

    assert leases.claim_due(NOW) == []


@pytest.mark.django_db
def test_a_lease_stays_with_its_worker_and_moves_when_that_is_gone() -> None:
    alive(1)
    alive(2)
    ready(4)
    slots = {(lease.target_id, lease.kind): lease.slot for lease in leases.claim_due(NOW)}
    assert set(slots.values()) == {1, 2}

    Lease.objects.update(claim=None)
    again = {(lease.target_id, lease.kind): lease.slot for lease in leases.claim_due(NOW)}
    assert again == slots

    WorkerBeat.objects.filter(slot=1).delete()
    Lease.objects.update(claim=None)
    assert {lease.slot for lease in leases.claim_due(NOW)} == {2}


@pytest.mark.django_db
def test_a_disabled_or_leaving_target_is_not_read() -> None:
    alive()
    disabled, leaving = ready(2)
    Target.objects.filter(pk=disabled.pk).update(enabled=False)
    Target.objects.filter(pk=leaving.pk).update(deleting_at=NOW)

    assert leases.claim_due(NOW) == []


@pytest.mark.django_db(transaction=True)
def test_two_beats_at_once_claim_each_lease_once() -> None:
    alive(at=timezone.now())
    ready(10)
    Lease.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    claimed: list[int] = []

    def claim() -> None:
        try:
            claimed.extend(lease.pk for lease in leases.claim_due(timezone.now()))
        finally:
            connection.close()

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(Lease.objects.values_list("pk", flat=True))


@pytest.mark.django_db
def test_targets_that_do_not_answer_leave_the_threads_to_the_others() -> None:
    alive()
    targets = ready(30)
    dead = {target.pk for target in targets[:20]}
    # One lease has failed, the other one of the same target would too; or nobody ever answered.
    Lease.objects.filter(target_id__in=[*dead][:10], kind="fast").update(failures=1)
    Target.objects.filter(pk__in=[*dead][10:]).update(server_version=None)
    Lease.objects.filter(target_id__in=dead).update(due_at=NOW - timedelta(seconds=5))

    first = leases.claim_due(NOW)
    again = leases.claim_due(NOW)

    assert len([lease for lease in first if lease.target_id not in dead]) == 20
    tried = [lease for lease in first if lease.target_id in dead]
    assert len(tried) == leases.FAILING_A_SLOT
    assert again == []
    leases.release(tried[0], NOW, reached=False)
    assert [lease.target_id in dead for lease in leases.claim_due(NOW)] == [True]


@pytest.mark.django_db
def test_who_is_back_or_new_does_not_wait_for_hundreds_that_never_answered() -> None:
    alive()
    dead = ready(300, server_version=None)
    back, new = (
        Target.objects.create(
            name=name,
            host="127.0.0.1",
            user="c",
            environment=dead[0].environment,
            server_version=version,
        )
        for name, version in (("back", 180004), ("new", None))
    )
    leases.make_leases()
    Lease.objects.filter(target__in=[target.pk for target in dead]).update(
        due_at=NOW - timedelta(minutes=5), failures=1
    )
    Lease.objects.filter(target=back).update(due_at=NOW, failures=2)
    Lease.objects.filter(target=new).update(due_at=NOW)

    claimed = leases.claim_due(NOW)

    assert len(claimed) == leases.FAILING_A_SLOT
    assert {lease.target_id for lease in claimed} == {back.pk, new.pk}


@pytest.mark.django_db
def test_while_many_reads_are_late_all_targets_are_doubted() -> None:
    alive()
    targets = ready(20)
    claimed = leases.claim_due(NOW)
    late = NOW + leases.LATE

    assert {lease.target_id for lease in claimed} == {target.pk for target in targets}
    assert leases.doubted(NOW + timedelta(seconds=1)) == []
    assert set(leases.doubted(late)) == set(targets)
    fast = [lease for lease in claimed if lease.kind == "fast"]
    for lease in fast[leases.MANY_LATE - 1 :]:
        leases.release(lease, late, reached=True)
    assert leases.doubted(late) == []


@pytest.mark.django_db
def test_failing_targets_are_doubted_when_their_turn_does_not_come() -> None:
    alive()
    targets = ready(10)
    Lease.objects.filter(target__in=targets[:6], kind="fast").update(failures=1)
    tried = {lease.target_id for lease in leases.claim_due(NOW)} & {one.pk for one in targets[:6]}

    assert leases.doubted(NOW) == []
    doubted = leases.doubted(NOW + leases.LATE)

    assert len(tried) < 6
    assert {one.pk for one in targets[:6]} - tried <= {one.pk for one in doubted}
    assert {one.pk for one in doubted} <= {one.pk for one in targets[:6]}


@pytest.mark.django_db
def test_what_does_not_answer_is_taken_from_whoever_waits_for_it() -> None:
    alive()
    silent, sound = ready(2)
    [fast] = [lease for lease in leases.claim_due(NOW) if lease.target == silent][:1]
    other = "slow" if fast.kind == "fast" else "fast"
    Lease.objects.filter(target=silent, kind=other).update(
        claim=None, due_at=NOW + timedelta(minutes=1)
    )

    [taken] = leases.take_over([silent], NOW)

    assert (taken.kind, taken.target) == (fast.kind, silent)
    assert not leases.still_holds(silent.pk, fast.kind, str(fast.claim))
    assert leases.still_holds(silent.pk, fast.kind, str(taken.claim))
    assert Lease.objects.get(target=silent, kind=other).failures == 1
    assert set(Lease.objects.filter(target=sound).values_list("failures", flat=True)) == {0}


@pytest.mark.django_db
def test_a_target_that_is_down_is_tried_ever_more_rarely_and_at_once_when_it_is_back() -> None:
    alive()
    ready(intervals={"activity": 10, "sessions": 10, "progress": 10})
    waits = []
    now = NOW
    for _ in range(9):
        WorkerBeat.objects.update(beat_at=now)
        [lease] = [lease for lease in leases.claim_due(now) if lease.kind == "fast"]
        leases.release(lease, now, reached=False)
        lease.refresh_from_db()
        waits.append((lease.due_at - now).total_seconds())
        now = lease.due_at

    assert max(waits[:2]) <= 10
    for wait, minutes in zip(waits[2:7], (1, 2, 4, 8, 15), strict=True):
        assert minutes * 54 <= wait <= minutes * 66
    assert waits[8] <= 15 * 66

    WorkerBeat.objects.update(beat_at=now)
    [lease] = [lease for lease in leases.claim_due(now) if lease.kind == "fast"]
    leases.release(lease, now, reached=True)
    lease.refresh_from_db()
    assert lease.failures == 0
    assert lease.due_at - now <= timedelta(seconds=10)


def test_a_thousand_targets_are_spread_over_the_interval() -> None:
    moments = [leases.next_slot(number, 60, NOW) for number in range(1000)]

    tenths = [0] * 10
    for moment in moments:
        assert NOW < moment <= NOW + timedelta(seconds=60)
        tenths[min(int((moment - NOW).total_seconds() / 6), 9)] += 1
    assert max(tenths) < 200


def test_the_rhythm_is_the_same_after_a_restart() -> None:
    first = leases.next_slot(7, 10, NOW)

    assert leases.next_slot(7, 10, first) - first == timedelta(seconds=10)
    assert leases.next_slot(7, 10, NOW + timedelta(milliseconds=1)) in {
        first,
        first + timedelta(seconds=10),
    }
