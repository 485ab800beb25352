"""Since when a read fails: a right that is missing and a server that is away are two failures."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.history import store
from monitors.history.reading import Place
from monitors.models import HISTORY, ProbeState, Target
from tests.monitors.history.conftest import START

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("states", "since"),
    [
        (["unreachable", "unreachable"], 0),
        (["denied", "denied"], 0),
        (["denied", "unreachable"], 1),
        (["unreachable", "denied"], 1),
        (["unreachable", "timeout", "unreachable"], 0),  # a server that hangs does both
        (["failed", "denied"], 0),
        (["denied", "timeout", "unreachable"], 1),
    ],
)
def test_another_failure_begins_when_a_server_goes_away_or_comes_back(
    target: Target, states: list[str], since: int
) -> None:
    place = Place(HISTORY["activity"], target.pk, 0)
    for minute, state in enumerate(states):
        moment = START + timedelta(minutes=minute)
        store.record_failure(
            place, state=state, reason="No.", taken_at=moment, interval_seconds=10, next_due=moment
        )

    row = ProbeState.objects.get(target=target, probe="activity")
    assert row.failing_since == START + timedelta(minutes=since)
