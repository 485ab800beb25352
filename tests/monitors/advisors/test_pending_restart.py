"""Settings that hold only after a restart."""

from __future__ import annotations

from monitors.advisor import Severity
from monitors.advisors.pending_restart import ADVISOR
from tests.monitors.advisors.rows import advise

FOUND = {"settings": {"pending_restart": "wal_level"}}
"""Facts in which it finds something."""


def awaiting(count):
    return {"pending_restart": ",".join(f"setting_{number}" for number in range(count))}


def test_it_says_nothing_without_any():
    assert advise(ADVISOR, settings=awaiting(0)) == []
    assert advise(ADVISOR, settings={}) == []


def test_one_is_named():
    [finding] = advise(ADVISOR, settings=awaiting(1))

    assert finding.severity == Severity.NOTICE
    assert "1 setting changed" in finding.title
    assert finding.title.endswith("setting_0.")


def test_four_are_named_and_the_rest_counted():
    [four], [five] = (advise(ADVISOR, settings=awaiting(count)) for count in (4, 5))

    assert four.title.endswith("setting_2, setting_3.")
    assert five.title.endswith("setting_3 and 1 more.")


def test_nobody_knows_when_it_hurts():
    [one] = advise(ADVISOR, settings=awaiting(1))

    assert (one.hurts_at, one.hurts_already) == (None, False)
    assert one.hurts == "the next restart, planned or not; no date: nobody knows when"
