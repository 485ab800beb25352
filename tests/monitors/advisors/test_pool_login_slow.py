"""Clients that wait though their pool is not full: it gets no connection to its server."""

from __future__ import annotations

import pytest

from monitors.advisor import Finding, Severity
from monitors.advisors.pool_login_slow import ADVISOR
from monitors.collect.rounds import take_now
from monitors.findings import judge
from tests import poolers
from tests.monitors.advisors.rows import advise, pool, pool_database

LOGS_IN = pool(cl_active=0, cl_waiting=3, sv_active=0, sv_login=1, maxwait_seconds=2.0)
FOUND = {"pooler_pools": [LOGS_IN], "pooler_databases": [pool_database()]}
"""Facts in which it finds something."""


def found(database=None, **columns):
    facts = {
        "pooler_pools": [LOGS_IN | columns],
        "pooler_databases": [database or pool_database()],
    }
    return [one.severity for one in advise(ADVISOR, **facts)]


@pytest.mark.parametrize(
    ("columns", "severity"),
    [
        ({}, Severity.WARNING),
        ({"maxwait_seconds": 1.0}, None),
        ({"maxwait_seconds": 1.001}, Severity.WARNING),
        ({"maxwait_seconds": 5.0}, Severity.WARNING),
        ({"maxwait_seconds": 5.001}, Severity.CRITICAL),
        ({"cl_waiting": 0}, None),
        ({"sv_login": 0}, Severity.WARNING),  # it has none, and tries again later
        ({"sv_login": 0, "sv_active": 1}, None),
        ({"sv_login": 1, "sv_active": 1}, Severity.WARNING),
        ({"sv_active": 2}, None),  # full: pool_saturated says so
    ],
)
def test_who_waits_for_a_login_and_for_how_long(columns, severity):
    assert found(**columns) == ([severity] if severity else [])


def test_a_paused_database_is_told_of_elsewhere():
    assert found(pool_database(paused=True)) == []


@pytest.mark.django_db
def test_a_real_pooler_that_is_paused_as_a_whole_has_no_server(
    pooler, crowd, live, watch_pooler, eventually
):
    behind = pooler(**poolers.CONSOLE)
    target = watch_pooler(behind)
    live(behind, user="owner", dbname="shop", autocommit=True).close()
    with behind.connect(user="operator", dbname="pgbouncer", autocommit=True) as admin:
        admin.execute("PAUSE")
        crowd(behind, 3)
        found: list[Finding] = []

        def said():
            take_now(target)
            found[:] = [one for one in judge.find(target) if one.advisor == "pool_login_slow"]
            return found

        eventually(said)
        admin.execute("RESUME")

    assert "3 clients of the pool shop of owner wait" in found[0].title
    assert "RESUME" in found[0].why
