"""Connections against what ordinary roles may use."""

from __future__ import annotations

import pytest

from monitors.advisor import Rate, Severity
from monitors.advisors.connections_near_limit import ADVISOR, BACKENDS
from tests.monitors.advisors.rows import advise, later, near

FOUND = {
    "sessions": [{"state": "idle", "backends": 90}],
    "max_connections": 100,
}
"""Facts in which it finds something."""


def sessions(idle, active=0):
    """Return so many, of which one reads and is in no row."""
    return [
        {"state": "active", "wait_event_type": "", "backends": active},
        {"state": "idle", "wait_event_type": "", "backends": idle - 1},
    ]


@pytest.mark.parametrize(
    ("used", "severity"),
    [
        (160, None),  # 80 % of 200 usable
        (161, Severity.WARNING),
        (190, Severity.WARNING),
        (191, Severity.CRITICAL),
    ],
)
def test_it_measures_against_what_ordinary_roles_may_use(used, severity):
    found = advise(
        ADVISOR, sessions=sessions(used - 1, 1), max_connections=203, reserved_connections=3
    )

    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_it_says_how_many_are_left_and_which_states_take_them():
    [finding] = advise(
        ADVISOR, sessions=sessions(90, 5), max_connections=103, reserved_connections=3
    )

    assert finding.title == "95 of 100 usable connections are taken (95 %); 5 are left."
    assert finding.evidence[-2:] == (("Idle", 89, "count"), ("Active", 5, "count"))


def test_it_says_nothing_before_the_limit_is_known():
    assert advise(ADVISOR, sessions=sessions(500), max_connections=None) == []


@pytest.mark.parametrize(
    ("per_hour", "hours", "at", "why"),
    [
        (10, 1, 3, "clients are refused, at 10 connections an hour over the last 1 h"),
        (0, 1, None, "clients are refused; no date: connections did not rise steadily in the last"),
        (10, 0.5, None, "clients are refused; no date so far: needs an hour of history"),
    ],
)
def test_it_says_when_the_last_is_taken(per_hour, hours, at, why):
    rates = {BACKENDS: Rate(per_hour / 3600, hours * 3600)}

    [one] = advise(ADVISOR, sessions=sessions(170), max_connections=200, rates=rates)

    assert one.hurts_at == (near(later(at)) if at else None)
    assert one.hurts.startswith(why)


def test_it_hurts_already_where_none_is_left():
    [one] = advise(ADVISOR, sessions=sessions(200), max_connections=200)

    assert (one.hurts_already, one.hurts) == (True, "clients are refused")
