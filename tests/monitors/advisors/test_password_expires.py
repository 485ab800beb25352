"""A password of Howdah's own logins that expires: a week before, a day before, afterwards."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.advisor import Severity
from monitors.advisors.password_expires import ADVISOR
from tests.monitors.advisors.rows import NOW, advise, later

FOUND = {
    "logins": [{"rolname": "watcher", "rolvaliduntil": later(24)}],
    "roles": {"collector": "watcher"},
}
"""Facts in which it finds something."""

ROLES = {"collector": "watcher", "operator": "actor"}
SECOND = timedelta(seconds=1)


def expiring(after, role="watcher"):
    return {"rolname": role, "rolvaliduntil": NOW + after}


@pytest.mark.parametrize(
    ("after", "severity", "title"),
    [
        (timedelta(days=7) + SECOND, None, ""),
        (timedelta(days=7), Severity.WARNING, "expires in 7 d"),
        (timedelta(days=1) + SECOND, Severity.WARNING, "expires in 1 d"),
        (timedelta(days=1), Severity.CRITICAL, "expires in 1 d"),
        (-SECOND, Severity.CRITICAL, "has expired"),
    ],
)
def test_a_week_before_it_is_a_warning_and_on_the_last_day_critical(after, severity, title):
    found = advise(ADVISOR, logins=[expiring(after)], roles=ROLES)

    assert [one.severity for one in found] == ([severity] if severity else [])
    assert all(title in one.title for one in found)


def test_it_hurts_when_it_expires_and_says_what_is_lost():
    [reads] = advise(ADVISOR, logins=[expiring(timedelta(days=2))], roles=ROLES)
    [acts] = advise(ADVISOR, logins=[expiring(timedelta(days=2), "actor")], roles=ROLES)
    [gone] = advise(ADVISOR, logins=[expiring(-SECOND)], roles=ROLES)

    assert (reads.hurts_at, reads.hurts) == (
        NOW + timedelta(days=2), "nothing of this server is read any more",
    )  # fmt: skip
    assert "operator login actor" in acts.title
    assert acts.hurts == "no action can be sent any more"
    assert (reads.hurts_already, gone.hurts_already) == (False, True)


def test_one_role_for_both_is_said_once_and_other_peoples_roles_not_at_all():
    one = {"collector": "watcher", "operator": "watcher"}

    [both] = advise(ADVISOR, logins=[expiring(SECOND)], roles=one)

    assert "collector and operator login watcher" in both.title
    assert advise(ADVISOR, logins=[expiring(SECOND, "somebody")], roles=ROLES) == []
