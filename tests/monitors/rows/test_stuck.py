"""What real servers say of stuck backends, of one target and beside others that are not read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.findings import judge, stuck as definitions
from monitors.models import AuditEntry, ProbeState, StuckDefinition
from monitors.rows.stuck import StuckRow, stuck_of
from tests.servers import Blocked, Server
from tests.typed import assert_typed

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from monitors.models import Target

pytestmark = pytest.mark.django_db
Session = psycopg.Connection[Any]
AT_ONCE = {
    "long_running": {"notice_seconds": 1e6, "warning_seconds": 0.0001},
    "blocked": {"stuck_blocked_seconds": 0.0001, "stuck_blocking_seconds": 0.0001},
    "idle_in_transaction": {"warning_seconds": 0.0001},
}


def test_it_finds_who_runs_waits_blocks_and_idles(
    server: Server,
    watch: Callable[..., Target],
    blocked: Callable[..., Blocked],
    sleeping: Callable[..., Session],
    live: Callable[..., Session],
    person: Callable[..., User],
) -> None:
    target = watch(server, thresholds=AT_ONCE)
    pair = blocked(server)
    runner = sleeping(application_name="nightly").info.backend_pid
    idler = live(server, user="owner", dbname="shop", autocommit=False)
    idler.execute("SELECT 1")
    take_now(target, ["activity"])

    lines = stuck_of([target]).lines

    expected = {
        pair.root_pid: "blocking",
        pair.waiter_pid: "blocked",
        runner: "running",
        idler.info.backend_pid: "idle_in_transaction",
    }
    found = {line.backend.pid: line.found.state for line in lines}
    assert {pid: found.get(pid) for pid in expected} == expected
    assert (lines[0].backend.pid, lines[0].backend.blocking) == (pair.root_pid, 1)
    for line in lines:
        assert_typed(line.row(), StuckRow)

    exception = StuckDefinition(application_name="night*")
    definitions.define(person("admin"), exception, source="test")
    assert runner not in {line.backend.pid for line in stuck_of([target]).lines}
    assert not [one for one in judge.find(target) if one.advisor == "long_running"]
    shorter = StuckDefinition(application_name="night*", running=1)
    definitions.define(person("admin"), shorter, source="test")
    ProbeState.objects.update(target_at=timezone.now() + timedelta(seconds=30))
    [said] = [one for one in judge.find(target) if one.advisor == "long_running"]
    assert (said.pid, said.level) == (runner, "warning")
    [line] = [line for line in stuck_of([target]).lines if line.backend.pid == runner]
    assert line.row()["definition"] == "application night*"
    told = AuditEntry.objects.filter(what="stuck.define").values_list("object_name", flat=True)
    assert list(told) == ["application night*", "application night*"]


def test_of_what_is_not_read_now_nothing_is_claimed(
    embedded: Server,
    watch: Callable[..., Target],
    live: Callable[..., Session],
) -> None:
    good = watch(embedded, name="good", thresholds=AT_ONCE)
    gone = watch(replace(embedded, port=1), name="gone", thresholds=AT_ONCE)
    new = watch(embedded, name="new")
    old = watch(embedded, name="old", thresholds=AT_ONCE)
    idler = live(embedded, user="owner", dbname="shop", autocommit=False)
    idler.execute("SELECT 1")
    for target in (good, gone, old):
        take_now(target, ["activity"])
    ProbeState.objects.filter(target=old).update(taken_at=timezone.now() - timedelta(minutes=9))

    found = stuck_of([good, gone, new, old])

    assert {line.target.name for line in found.lines} == {"good"}
    reasons = {gap.target.name: gap for gap in found.unread}
    assert set(reasons) == {"gone", "new", "old"}
    assert reasons["gone"].reason
    assert reasons["new"].read_at is None
    assert reasons["old"].reason == "Nothing was tried since."
