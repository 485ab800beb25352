"""Counts of client backends by state and wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from tests.servers import Blocked, Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_it_counts_who_waits_and_who_idles_in_a_transaction(
    server: Server,
    watch: Callable[..., Target],
    blocked: Callable[[Server], Blocked],
) -> None:
    target = watch(server)
    blocked(server)

    take_now(target, ["sessions"])

    rows = {(r["state"], r["wait_event_type"]): r for r in read_latest("sessions", target.pk)}
    assert rows["active", "Lock"]["backends"] == rows["active", "Lock"]["blocked"] == 1
    assert rows["idle in transaction", ""]["backends"] == 1
    assert rows["idle in transaction", ""]["longest_xact_start"] is not None
