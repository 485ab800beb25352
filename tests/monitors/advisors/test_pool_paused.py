"""A paused database: a notice, and worse the longer its clients wait."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.pool_paused import ADVISOR
from tests.monitors.advisors.rows import advise, pool, pool_config, pool_database

FOUND = {"pooler_databases": [pool_database(paused=True)]}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("paused", "waits", "severity"),
    [
        (False, 100.0, None),
        (True, 0.0, Severity.NOTICE),
        (True, 1.0, Severity.NOTICE),
        (True, 1.001, Severity.WARNING),
        (True, 30.0, Severity.WARNING),
        (True, 30.001, Severity.CRITICAL),
    ],
)
def test_the_longest_wait_of_its_pools_says_how_bad_it_is(paused, waits, severity):
    facts = {
        "pooler_databases": [pool_database(paused=paused)],
        "pooler_pools": [
            pool(cl_waiting=3, maxwait_seconds=waits),
            pool(user="other", cl_waiting=2),
            pool(database="another", maxwait_seconds=500.0),
        ],
        "pooler_config": pool_config(query_wait_timeout="120"),
    }

    found = advise(ADVISOR, **facts)

    assert [one.severity for one in found] == ([severity] if severity else [])
    assert all("5 clients waiting" in one.title for one in found)
    assert all("error after 2 min" in one.hurts for one in found)
