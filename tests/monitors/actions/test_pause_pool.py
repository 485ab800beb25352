"""A pause: its clients wait and go on by themselves; stopped early, and where its worker was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from monitors.acting import ask, perform, sweep
from monitors.models import Action
from tests import poolers
from tests.monitors.actions.consoles import is_paused, told

WORKER = """
import sys
import django
django.setup()
from monitors.acting import perform
perform.perform(sys.argv[1])
"""


@pytest.fixture
def behind(pooler):
    return pooler(pool_mode="transaction", **poolers.CONSOLE)


@pytest.fixture
def target(behind, watch_pooler, live):
    live(behind, user="owner", dbname="shop", autocommit=True).execute("SELECT 1")
    return watch_pooler(behind, operator_user="operator")


@contextmanager
def worker_of(row):
    """Perform a row in a process of its own."""
    found = connection.settings_dict
    login = f"{found['USER']}:{found['PASSWORD']}@{found['HOST']}:{found['PORT']}"
    environment = {**os.environ, "DATABASE_URL": f"postgresql://{login}/{found['NAME']}"}
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(row.pk)], env=environment, start_new_session=True
    ) as worker:
        try:
            yield worker
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)


@pytest.mark.django_db
def test_it_is_resumed_by_itself(behind, target, person, done):
    row = done(person("dba"), target, "pause_pool", seconds="1")

    assert (row.state, row.sql) == ("succeeded", 'PAUSE "shop"')
    assert row.outcome == "Resumed; clients waiting afterwards: 0."
    assert (row.finished_at - row.started_at).total_seconds() >= 1
    assert row.before["clients_count"] == 1
    assert not is_paused(behind)


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_a_transaction_that_does_not_end_is_not_waited_for_longer(
    behind, target, person, done, live
):
    live(behind, user="owner", dbname="shop", autocommit=False).execute("SELECT 1")

    row = done(person("dba"), target, "pause_pool", seconds="1")

    assert row.state == "failed"
    assert "it never held; it is ended again" in row.outcome
    assert not is_paused(behind)


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_what_somebody_else_paused_is_not_paused_nor_resumed(behind, target, person, previewed):
    told(behind, "PAUSE shop")

    preview = previewed(person("dba"), target, "pause_pool").preview

    assert "is paused already" in preview["refused"]
    assert is_paused(behind)


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_the_preview_warns_where_clients_get_an_error(
    pooler, watch_pooler, live, person, previewed
):
    behind = pooler(query_wait_timeout="10", pool_mode="session", **poolers.CONSOLE)
    live(behind, user="owner", dbname="shop", autocommit=True).execute("SELECT 1")
    target = watch_pooler(behind, operator_user="operator")

    said = {
        seconds: " ".join(
            previewed(person("dba"), target, "pause_pool", seconds=seconds).preview["warnings"]
        )
        for seconds in ("9", "10")
    }

    assert "gets an error after 10 s" in said["10"]
    assert "gets an error" not in said["9"]
    assert "In session mode" in said["9"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_it_can_be_ended_early(behind, target, person, requested, live, eventually):
    user = person("dba")
    row = requested(user, target, "pause_pool", seconds="300")
    with worker_of(row) as worker:
        eventually(lambda: is_paused(behind), seconds=30)
        ask.stop(user, Action.objects.get(pk=row.pk), "test")
        eventually(lambda: worker.poll() is not None, seconds=30)
    row.refresh_from_db()

    assert row.state == "succeeded"
    assert row.outcome.startswith(f"Ended early by {user.username}: resumed")
    assert not is_paused(behind)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_the_sweep_resumes_what_a_killed_worker_paused(
    behind, target, person, requested, eventually
):
    row = requested(person("dba"), target, "pause_pool", seconds="300")
    with worker_of(row) as worker:
        eventually(lambda: is_paused(behind), seconds=30)
        os.killpg(worker.pid, signal.SIGKILL)
    rows = Action.objects.filter(pk=row.pk)

    sweep.sweep()  # its last sign of life is young: it may live
    assert is_paused(behind)
    rows.update(beat_at=timezone.now() - timedelta(seconds=16))
    port = target.port
    type(target).objects.update(port=1)  # nobody answers there: it is tried again
    sweep.sweep()
    assert rows.get().state == "running"
    type(target).objects.update(port=port)
    sweep.sweep()
    sweep.sweep()

    found = rows.get()
    assert (found.state, is_paused(behind)) == ("lost", False)
    assert 'RESUME "shop" was sent' in found.outcome
    assert perform.perform(str(row.pk))[1] == frozenset()  # a message that comes late does nothing
    assert not is_paused(behind)
