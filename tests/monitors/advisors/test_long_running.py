"""Statements that run for minutes, and those that may."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.long_running import ADVISOR
from tests.monitors.advisors.rows import advise, ago, backend, waiting

FOUND = {"activity": [backend(query_start=ago(400))]}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [
        (60, None),
        (61, Severity.NOTICE),
        (300, Severity.NOTICE),
        (301, Severity.WARNING),
        (1800, Severity.WARNING),
        (1801, Severity.CRITICAL),
    ],
)
def test_it_is_worse_the_longer_a_statement_runs(seconds, severity):
    found = advise(ADVISOR, activity=[backend(query_start=ago(seconds))])

    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_it_offers_to_cancel_that_very_statement():
    [finding] = advise(ADVISOR, activity=[backend(query_start=ago(301))])

    assert finding.title == "Backend 4321 (billing-api) has run one statement for 5 min 01 s."
    assert finding.action == "cancel_backend"
    assert finding.arguments == {
        "pid": "4321",
        "backend_start": "2026-11-24T08:12:16.123456+00:00",
        "query_start": "2026-11-24T10:37:15.123456+00:00",
    }


@pytest.mark.parametrize(
    "row",
    [
        backend(query_start=ago(9000), state="idle"),
        backend(query_start=ago(9000), backend_type="walsender"),
        backend(query_start=ago(9000), backend_type="parallel worker"),
        backend(query_start=ago(9000), ours=True),
        backend(query_start=ago(9000), application_name="pg_dump"),
        backend(query_start=None),
        waiting(4321, [1], seconds=9000),
    ],
    ids=["idle", "walsender", "parallel", "our own", "a dump", "unseen", "waits for a lock"],
)
def test_it_leaves_others_alone(row):
    assert advise(ADVISOR, activity=[row]) == []


@pytest.mark.parametrize(("command", "found"), [("VACUUM", 0), ("COPY FROM", 1)])
def test_it_leaves_maintenance_with_progress_alone_and_no_transfer(command, found):
    row = backend(query_start=ago(9000))
    running = {"pid": 4321, "datname": "shop", "relid": 1, "command": command}

    assert len(advise(ADVISOR, activity=[row], progress=[running])) == found


@pytest.mark.parametrize(("seconds", "already"), [(61, False), (1800, False), (1801, True)])
def test_it_hurts_once_its_locks_and_snapshot_are_half_an_hour_old(seconds, already):
    [one] = advise(ADVISOR, activity=[backend(query_start=ago(seconds))])

    assert (one.hurts_at, one.hurts_already) == (ago(seconds - 1800), already)
    assert one.hurts == "its locks and its snapshot are 30 min old"
