"""Prepared transactions by their age, and by who waits for them."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.forgotten_prepared_transaction import ADVISOR
from monitors.collect.rounds import take_now
from monitors.findings import judge, thresholds
from tests.monitors.advisors.rows import advise, ago, waiting


def prepared(seconds, **columns):
    row = {
        "kind": "prepared xact",
        "holder": "o'clock",
        "datname": "shop",
        "who": "owner",
        "since": ago(seconds),
        "xmin_age": 9,
    }
    return row | columns


FOUND = {"horizon": [prepared(301)]}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("seconds", "waits", "severity"),
    [
        (300, [], None),
        (301, [], Severity.NOTICE),
        (3601, [], Severity.WARNING),
        (86401, [], Severity.CRITICAL),
        (301, [waiting(7, [0])], Severity.WARNING),
        (300, [waiting(7, [0])], None),
        (86401, [waiting(7, [0])], Severity.CRITICAL),
        (301, [waiting(7, [4])], Severity.NOTICE),  # for somebody else
        (301, [waiting(7, [0], datname="billing")], Severity.NOTICE),
    ],
)
def test_it_is_as_bad_as_it_is_old_or_waited_for(seconds, waits, severity):
    found = advise(ADVISOR, horizon=[prepared(seconds)], activity=waits)

    assert [one.severity for one in found] == ([severity] if severity else [])


def test_it_has_the_statements_to_copy():
    [one] = advise(ADVISOR, horizon=[prepared(7200), prepared(7200, kind="session")])

    assert one.title == "Prepared transaction 'o''clock' in shop was left 2 h ago."
    assert "run ROLLBACK PREPARED 'o''clock'; or COMMIT PREPARED 'o''clock'; in shop." in one.why


@pytest.mark.django_db
def test_a_real_one_is_found_before_it_holds_the_horizon_for_long(embedded, watch, worker_id):
    target, gid = watch(embedded), f"left {worker_id}"
    wanted = {(ADVISOR.name, "notice_seconds"): 0}
    thresholds.change("alice", "test", target, wanted)
    with embedded.connect(user="owner", dbname="shop", autocommit=False) as session:
        session.execute("SELECT pg_current_xact_id()")
        session.execute(f"PREPARE TRANSACTION '{gid}'")
    try:
        take_now(target, ["horizon", "activity"])
        found = [one for one in judge.find(target) if one.advisor == ADVISOR.name]
    finally:
        with embedded.connect(user="owner", dbname="shop") as session:
            session.execute(f"ROLLBACK PREPARED '{gid}'")

    assert [one.object_name for one in found] == [gid]
    assert f"ROLLBACK PREPARED '{gid}';" in found[0].why
