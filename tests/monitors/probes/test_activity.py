"""Backends by pid and start, with blockers for those that wait on a lock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitors.history import series
from monitors.models import Target
from monitors.snapshot import take_now
from tests.servers import Blocked, Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_a_waiting_backend_names_its_blocker_and_no_other_does(
    server: Server,
    watch: Callable[..., Target],
    blocked: Callable[[Server], Blocked],
) -> None:
    target = watch(server)
    pair = blocked(server)

    take_now(target, ["activity"])

    rows = {row["pid"]: row for row in series.now("activity", target.pk)}
    waiter, root = rows[pair.waiter_pid], rows[pair.root_pid]
    assert (waiter["wait_event_type"], waiter["blocked_by"]) == ("Lock", [pair.root_pid])
    assert (root["state"], root["blocked_by"]) == ("idle in transaction", None)
    assert root["xact_start"] is not None
    assert {waiter["datname"], waiter["usename"]} == {"shop", "postgres"}


def test_a_backend_that_left_is_no_longer_there(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    with server.connect() as session:
        pid = session.info.backend_pid
        take_now(target, ["activity"])
        assert pid in {row["pid"] for row in series.now("activity", target.pk)}

    take_now(target, ["activity"])

    assert pid not in {row["pid"] for row in series.now("activity", target.pk)}
