"""A connection for each request: from which pace on, for how long, and whose it is."""

from __future__ import annotations

from typing import Any

import pytest

from monitors.advisor import Severity
from monitors.advisors.connection_churn import ADVISOR
from tests.monitors.advisors.rows import advise


def grown(per_second=4.0, *, each=2.0, lives=2.0, seconds=600.0, **columns):
    sessions = round(per_second * seconds)
    row = {
        "datname": "shop",
        "seconds": seconds,
        "sessions": sessions,
        "xact_commit": each * sessions,
        "xact_rollback": 0,
        "session_time": lives * 1000 * sessions,
        "sessions_abandoned": 0,
        "sessions_fatal": 0,
        "sessions_killed": 0,
    }
    return row | columns


FOUND: dict[str, Any] = {"grown": [grown()]}
"""Facts in which it finds something."""

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
SEEN = {
    "datname": "shop",
    "usename": "web",
    "application_name": "gunicorn",
    "client_addr": "10.0.0.7",
    "sessions": 7,
}


@pytest.mark.parametrize(
    ("row", "severity"),
    [
        (grown(1.0), WARNING),
        (grown(0.99), None),
        (grown(each=4.9, lives=60), WARNING),
        (grown(each=5.0, lives=60), None),
        (grown(each=90, lives=9.9), WARNING),
        (grown(each=90, lives=10.0), None),
        (grown(19.9), WARNING),
        (grown(20.0), CRITICAL),
        (grown(seconds=540.0), WARNING),
        (grown(seconds=539.0), None),
    ],
)
def test_each_threshold_has_two_sides(row, severity):
    found = advise(ADVISOR, grown=[row])

    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("used", "severity"), [(80, WARNING), (81, CRITICAL)])
def test_it_is_critical_where_slots_are_few(used, severity):
    [one] = advise(
        ADVISOR,
        grown=[grown()],
        sessions=[{"state": "idle", "backends": used - 1}],  # and the one that reads
        max_connections=103,
        reserved_connections=3,
    )

    assert one.severity == severity


def test_it_names_the_database_the_application_and_its_frameworks_remedy():
    [one] = advise(ADVISOR, grown=[grown(sessions_killed=2)], newcomers=[SEEN])

    assert one.title == (
        "shop gets 4 new sessions a second, 2 transactions each; all that were seen are of "
        "gunicorn (user web), from 10.0.0.7."
    )
    assert "Django: CONN_MAX_AGE is 0 by default" in one.why
    assert ("Ended killed", 2, "count") in one.evidence


def test_it_blames_nobody_whom_it_did_not_see():
    [one] = advise(ADVISOR, grown=[grown()], newcomers=[SEEN | {"datname": "billing"}])

    assert one.title == "shop gets 4 new sessions a second, 2 transactions each."
