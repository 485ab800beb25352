"""Deadlocks of the last hour."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.deadlocks import ADVISOR
from tests.monitors.advisors.rows import advise


def grown(count, seconds=3600.0):
    return {"datname": "shop", "seconds": seconds, "deadlocks": count}


FOUND = {"grown_hour": [grown(1)]}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("row", "severity"),
    [
        (grown(0), None),
        (grown(1), Severity.NOTICE),
        (grown(10), Severity.NOTICE),
        (grown(11), Severity.WARNING),
        (grown(11, seconds=60.0), Severity.WARNING),  # not 660 an hour
        (grown(101), Severity.CRITICAL),
        (grown(101, seconds=36_000.0), Severity.WARNING),  # after a gap: 10.1 an hour
    ],
)
def test_it_judges_how_many_there_were_in_an_hour(row, severity):
    assert [one.severity for one in advise(ADVISOR, grown_hour=[row])] == (
        [severity] if severity else []
    )


def test_it_names_the_database():
    [one] = advise(ADVISOR, grown_hour=[grown(2)])

    assert one.title == "2 deadlocks in shop within 1 h."
