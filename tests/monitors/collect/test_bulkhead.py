"""FT-01: targets that hang cost themselves, nobody else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster, embedded_programs
from monitors.collect import leases, rounds, sessions
from monitors.history import partitions
from monitors.models import Lease, Snapshot, Target, TargetSecret, WorkerBeat
from monitors.pg.errors import NO_ANSWER
from monitors.targets import secrets
from tests import peers, servers
from tests.servers import Server

Watch = Callable[..., Target]

HEALTHY = 45
INTERVAL = 4
ROUNDS = 10
BUDGET = 2.0
THREADS = 16
SILENT = 200
LATER = timedelta(hours=1)
TO_FIND_OUT = 20
"""Seconds that may pass until it is known who is silent; sixteen threads would need 38."""


@contextmanager
def cluster_of(name: str, settings: dict[str, str]) -> Any:
    """A server of this test's own."""
    with servers.home() as folder:
        cluster = Cluster(
            name,
            folder / name,
            embedded_programs(),
            "secret-of-own",
            {**servers.SETTINGS, **settings},
        )
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        cluster.wait()
        servers.create_roles(cluster, 18)
        try:
            yield cluster, Server(18, cluster.port, cluster.password, str(cluster.log))
        finally:
            cluster.stop()


def family(pid: int) -> list[int]:
    """Return a server's process and its backends."""
    found = [pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(entry.name))
    return found


def thaw(pid: int) -> None:
    """Let a frozen server go on."""
    for member in family(pid):
        os.kill(member, signal.SIGCONT)


class Worker:
    """A pool of threads that takes what each tick claims, and notes how long each took."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS)
        self.other = ThreadPoolExecutor(1)  # of the worker that answers requests
        self.knocking = self.other.submit(connection.close)
        self.seconds: dict[int, list[float]] = defaultdict(list)
        self.futures: list[Future[None]] = []

    def take(self, lease: Lease) -> None:
        began = time.monotonic()
        try:
            rounds.take_due(lease.target_id, lease.kind, str(lease.claim))
        finally:
            self.seconds[lease.target_id].append(time.monotonic() - began)
            connection.close()

    def tick(self) -> None:
        now = timezone.now()
        WorkerBeat.objects.update(beat_at=now)
        for lease in leases.claim_due(now):
            self.futures.append(self.pool.submit(self.take, lease))
        if leases.doubted(now) and self.knocking.done():
            self.knocking = self.other.submit(self.give_up)

    def give_up(self) -> None:
        rounds.give_up(timezone.now())
        connection.close()

    def run(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.tick()
            time.sleep(0.25)

    def close(self) -> None:
        self.pool.shutdown(wait=True)
        self.other.shutdown(wait=True)
        self.knocking.result()
        for future in self.futures:
            future.result()


def sockets() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_five_targets_that_hang_cost_the_other_forty_five_nothing(
    watch: Watch, settings: Any
) -> None:
    settings.FAST_BUDGET_SECONDS = BUDGET
    with ExitStack() as stack:
        _, server = stack.enter_context(
            cluster_of("many", {"max_connections": "200", "log_statement": "none"})
        )
        frozen, stopped = stack.enter_context(cluster_of("frozen", {"log_statement": "none"}))
        silent = peers.Peer()
        middle = peers.Proxy(server.port, after=3000)
        resetting = peers.Resetting()
        for peer in (silent, middle, resetting):
            stack.callback(peer.close)
        ports = {
            "dropped": stack.enter_context(peers.dropping()),
            "silent": silent.port,
            "middle": middle.port,
            "resetting": resetting.port,
            "stopped": stopped.port,
        }
        rhythm = dict.fromkeys(("activity", "sessions", "progress"), INTERVAL)
        healthy = [
            watch(server, name=f"healthy-{number}", intervals=rhythm) for number in range(HEALTHY)
        ]
        hanging = []
        for name, port in ports.items():
            target = watch(stopped, name=name, intervals=rhythm)
            Target.objects.filter(pk=target.pk).update(port=port)
            if name != "stopped":
                target.targetsecret_set.all().delete()
            if name == "middle":  # its log-in must succeed, so that the read falls silent
                target.port = port
                sealed, key_id = secrets.seal_password(
                    server.password, target.host, port, target.user
                )
                target.targetsecret_set.create(login="collector", sealed=sealed, key_id=key_id)
            hanging.append(target)
        leases.make_leases()
        Lease.objects.filter(kind=Lease.Kind.SLOW).delete()
        partitions.make_ahead(timezone.now())
        WorkerBeat.objects.create(name="w", role="snapshots", slot=0, beat_at=timezone.now())
        worker = Worker()
        stack.callback(sessions.SESSIONS.forget, set())
        worker.run(2 * INTERVAL)  # every target is reached once, connections are kept
        assert frozen.child is not None
        for pid in family(frozen.child.process.pid):
            os.kill(pid, signal.SIGSTOP)
        stack.callback(thaw, frozen.child.process.pid)
        began = timezone.now()
        before = (sockets(), threading.active_count())

        worker.run(ROUNDS * INTERVAL)

        ended = timezone.now()
        after = (sockets(), threading.active_count())
        worker.close()

        taken = Snapshot.objects.filter(
            probe="activity", taken_at__gte=began, taken_at__lt=ended
        ).order_by("taken_at")
        for target in healthy:
            rows = list(taken.filter(target_id=target.pk))
            assert {row.state for row in rows} == {"ok"}
            # Each target has its own rhythm; a round may begin 200 ms early.
            first = leases.next_slot(target.pk, INTERVAL, began).timestamp() - 0.2
            slots = [(row.taken_at.timestamp() - first) // INTERVAL for row in rows]
            assert ROUNDS - 1 <= len(set(slots)) <= ROUNDS + 1, target.name
        for target in hanging:
            states = set(taken.filter(target_id=target.pk).values_list("state", flat=True))
            assert "ok" not in states, target.name
            assert worker.seconds[target.pk], target.name
            assert max(worker.seconds[target.pk]) <= BUDGET + 1, target.name
        assert after[0] <= before[0] + 10
        assert after[1] <= before[1] + 10


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_hundreds_that_fall_silent_at_once_cost_the_others_no_turn(watch: Watch) -> None:
    with ExitStack() as stack:
        _, server = stack.enter_context(cluster_of("sound", {"log_statement": "none"}))
        port = stack.enter_context(peers.dropping())
        rhythm = dict.fromkeys(("activity", "sessions", "progress"), INTERVAL)
        sound = [watch(server, name=f"sound-{number}", intervals=rhythm) for number in range(10)]
        silent = [
            watch(server, name=f"silent-{number}", intervals=rhythm, server_version=180000)
            for number in range(SILENT)
        ]
        Target.objects.filter(pk__in=[target.pk for target in silent]).update(port=port)
        TargetSecret.objects.filter(target__in=silent).delete()  # they are for another port
        leases.make_leases()
        Lease.objects.filter(kind=Lease.Kind.SLOW).delete()
        partitions.make_ahead(timezone.now())
        WorkerBeat.objects.create(name="w", role="snapshots", slot=0, beat_at=timezone.now())
        # Until now nobody was silent: those are not due yet.
        Lease.objects.filter(target__in=silent).update(due_at=timezone.now() + LATER)
        worker = Worker()
        stack.callback(sessions.SESSIONS.forget, set())
        worker.run(2 * INTERVAL)
        Lease.objects.filter(target__in=silent).update(due_at=timezone.now())
        began = timezone.now()

        worker.run(8 * INTERVAL)

        ended = timezone.now()
        worker.close()
    taken = Snapshot.objects.filter(probe="activity", taken_at__gte=began).order_by("taken_at")
    for target in sound:
        read = taken.filter(target_id=target.pk, state="ok", taken_at__lt=ended)
        moments = [began, *read.values_list("taken_at", flat=True), ended]
        gap = max(later - earlier for earlier, later in pairwise(moments))
        assert gap < timedelta(seconds=INTERVAL + TO_FIND_OUT), target.name
    # What a thread learns of a target that it had already begun to read is kept by nobody.
    told = taken.filter(target_id__in=[one.pk for one in silent]).exclude(state="superseded")
    assert set(told.values_list("target_id", flat=True)) == {target.pk for target in silent}
    assert set(told.values_list("state", "reason")) == {("unreachable", NO_ANSWER)}
