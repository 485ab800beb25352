"""Who a server is: moments are compared as moments."""

from __future__ import annotations

import pytest

from monitors.pg.identity import is_new_epoch, read_identity
from tests.servers import Server

CLEAN = "2026-11-30T01:00:00+00:00|2026-11-30T01:00:01+00:00"


def test_the_same_moments_in_another_time_zone_are_the_same_epoch(server: Server) -> None:
    with server.connect() as session:
        here = read_identity(session)
        session.execute("SET TimeZone = 'Asia/Kathmandu'")
        there = read_identity(session)

    assert here.checkpointer_start == there.checkpointer_start
    assert here.epoch == there.epoch
    assert not is_new_epoch(here.epoch, there.epoch)


@pytest.mark.parametrize(
    ("after", "is_new"),
    [
        ("2026-11-30T06:45:00+05:45|2026-11-30T06:45:01+05:45", False),  # as it was kept once
        ("2026-11-30T02:00:00+00:00|2026-11-30T01:00:01+00:00", False),  # a reset alone
        ("2026-11-30T01:00:00+00:00|2026-11-30T02:00:01+00:00", False),  # a clean restart
        ("2026-11-30T02:00:00+00:00|2026-11-30T02:00:01+00:00", True),
        ("2026-11-30T03:00:00+01:00|2026-11-30T03:00:01+01:00", True),
        ("2026-11-30T02:00:00+00:00|", False),
        ("", False),
    ],
)
def test_an_epoch_is_over_when_both_moments_changed(after: str, is_new: bool) -> None:
    assert is_new_epoch(CLEAN, after) is is_new
