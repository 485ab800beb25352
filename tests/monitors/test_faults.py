"""Faults of targets and of the broker that need a server to stop, die or dawdle."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
import redis
from django.db import connection
from django.utils import timezone

from dashboard.embedded import processes, valkey
from monitors.acting import ask, sweep
from monitors.collect.rounds import Run, take_now
from monitors.collect.sessions import Session
from monitors.models import HISTORY, Action, ProbeState, Snapshot
from monitors.probes import databases, sessions
from tests import servers

pytestmark = pytest.mark.django_db(transaction=True)

SLOW_SQL = """
SELECT ''::text AS state, ''::text AS wait_event_type, 1 AS backends, 0 AS blocked,
       NULL::timestamptz AS longest_xact_start
  FROM pg_catalog.pg_sleep(20)
"""
SLEEPER = """
SELECT a.pid FROM pg_stat_activity AS a
 WHERE a.query LIKE '%FROM pg_catalog.pg_sleep(20)%' AND a.pid <> pg_backend_pid()
"""


def slow(timeout_ms):
    """The probe of sessions, if it took 20 s."""
    return dataclasses.replace(sessions.PROBE, sql={14: SLOW_SQL}, statement_timeout_ms=timeout_ms)


@pytest.fixture
def target(embedded, watch):
    return watch(embedded, name="shop-1")


def take(target, *probes):
    """Take those probes as a worker does, over connections of its own."""
    session = Session("slow")
    try:
        pass_over = Run(target, session, seconds=30)
        pass_over.take(list(probes), only_due=False)
    finally:
        session.close()
    return {result.probe: result for result in pass_over.results}


def test_a_slow_probe_costs_no_other(target):
    found = take(target, slow(300), databases.PROBE)

    assert found["sessions"].state == Snapshot.State.TIMEOUT
    assert "longer than its time limit" in found["sessions"].error
    assert found["databases"].state == Snapshot.State.OK


def test_a_database_that_is_closed_to_the_login_costs_no_other(embedded, watch, worker_id):
    closed = f"aaa_closed_{worker_id}"  # the first in the alphabet is read first
    target = watch(embedded, name="shop-1", include=["shop", closed])
    with embedded.connect() as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {closed}")
        admin.execute(f"CREATE DATABASE {closed}")
        admin.execute(f"REVOKE CONNECT ON DATABASE {closed} FROM PUBLIC")
        take(target, databases.PROBE)  # finds them

        found = {one.database: one for one in take_now(target, ["tables"])}
        admin.execute(f"DROP DATABASE {closed}")

    assert found[closed].state == Snapshot.State.DENIED
    assert found[closed].error == (
        "The login may not connect to this database:"
        f" GRANT CONNECT ON DATABASE {closed} TO collector;"
    )
    assert found["shop"].state == Snapshot.State.OK


def test_a_server_that_dies_during_a_snapshot_leaves_nothing_half(target, embedded, eventually):
    take(target, sessions.PROBE, databases.PROBE)
    before = list(HISTORY["sessions"].latest._default_manager.values())
    found = {}

    def read():
        try:
            found.update(take(target, slow(20_000), databases.PROBE))
        finally:
            connection.close()  # this thread's, to our own database

    reading = threading.Thread(target=read)
    reading.start()
    with embedded.connect() as admin:
        eventually(lambda: admin.execute(SLEEPER).fetchone())
        admin.execute(SLEEPER.replace("SELECT a.pid", "SELECT pg_terminate_backend(a.pid)"))
    reading.join(timeout=20)

    assert [found[name].state for name in ("sessions", "databases")] == ["unreachable"] * 2
    assert list(HISTORY["sessions"].latest._default_manager.values()) == before
    state = ProbeState.objects.get(target=target, probe="sessions")
    assert (state.state, state.sequence) == ("unreachable", 1)
    assert take(target, sessions.PROBE)["sessions"].state == "ok"


SEND = """
import time, django
django.setup()
from monitors import queue
began = time.monotonic()
taken = queue.send("perform", "x", queue="signals", expires=60)
print(taken, time.monotonic() - began)
"""


def send(url):
    """Send a task from a process of its own; returns whether it was taken, and the seconds."""
    answer = subprocess.run(
        [sys.executable, "-c", SEND],
        env={**os.environ, "REDIS_URL": url},
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    taken, seconds = answer.stdout.split()
    return taken, float(seconds)


def test_a_broker_that_is_down_costs_a_click_two_seconds():
    taken, seconds = send(f"redis://127.0.0.1:{processes.free_port()}/0")

    assert taken == "False"
    assert seconds < 4


def test_a_broker_that_is_stopped_costs_a_click_some_seconds_and_no_more():
    with servers.home() as folder:
        port = processes.free_port()
        child = valkey.start(folder, port, "secret")
        try:
            valkey.wait(child, port, "secret")
            child.process.send_signal(signal.SIGSTOP)
            taken, seconds = send(valkey.url(port, "secret"))
        finally:
            child.process.send_signal(signal.SIGCONT)
            child.stop()

    assert taken == "False"
    assert seconds < 12


def test_what_the_broker_forgot_is_sent_again(target, person, broker_url):
    target.operator_user = "operator"
    target.save()
    arguments = {
        "pid": "4711",
        "backend_start": "2026-01-01 00:00:00.000001+00",
        "query_start": "2026-01-01 00:00:01.000001+00",
    }
    with redis.Redis.from_url(broker_url) as client:
        queue = f"{os.environ['HOWDAH_PREFIX']}:signals"
        client.delete(queue)  # other tests' messages: no worker reads them
        row = ask.ask(person("operator"), target, "cancel_backend", arguments, source="127.0.0.1")
        assert client.llen(queue) == 1
        client.delete(queue)

        sweep.sweep()
        assert client.llen(queue) == 0  # too young to be missed

        Action.objects.filter(pk=row.pk).update(queued_at=timezone.now() - timedelta(seconds=6))
        sweep.sweep()
        assert client.llen(queue) == 1
        client.delete(queue)
