"""Connections that rest for long, against what may be used."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.too_many_idle import ADVISOR
from tests.monitors.advisors.rows import advise


def held(long_idle, *, idle=None, active=0, application_name="web"):
    rows = [{"state": "active", "backends": active, "long_idle": 0}] if active else []
    rows += [{"state": "idle", "backends": idle or long_idle, "long_idle": long_idle}]
    return [{"application_name": application_name, **row} for row in rows]


FOUND = {"connections": held(60), "max_connections": 103, "reserved_connections": 3}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("rows", "severity"),
    [
        (held(25), None),  # 25 % of 100
        (held(26), Severity.NOTICE),
        (held(50), Severity.NOTICE),
        (held(51), Severity.WARNING),
        (held(60, idle=70, active=29), Severity.WARNING),  # and the one that reads
        (held(60, idle=70, active=30), None),  # too many work
        (held(0, idle=90), None),  # idle, but not for long
    ],
)
def test_it_counts_those_that_rest_for_long(rows, severity):
    found = advise(ADVISOR, connections=rows, max_connections=103, reserved_connections=3)

    assert [one.severity for one in found] == ([severity] if severity else [])


def test_it_names_who_has_most_of_them():
    rows = [*held(40, application_name="cron"), *held(45, application_name="")]

    [one] = advise(ADVISOR, connections=rows, max_connections=100)

    assert one.title == (
        "85 of 100 usable connections have been idle for over 10 minutes; 45 of them are of "
        "clients without an application_name."
    )


def test_it_says_nothing_before_the_limit_is_known():
    assert advise(ADVISOR, connections=held(500), max_connections=None) == []
