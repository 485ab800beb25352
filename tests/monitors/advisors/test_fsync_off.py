"""fsync is off, on, or was not read."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.fsync_off import ADVISOR
from tests.monitors.advisors.rows import advise

FOUND = {"settings": {"fsync": "off"}}
"""Facts in which it finds something."""


def test_off_is_critical():
    [finding] = advise(ADVISOR, settings={"fsync": "off"})

    assert finding.severity == Severity.CRITICAL
    assert finding.object_name == "fsync"


@pytest.mark.parametrize("settings", [{"fsync": "on"}, {}])
def test_on_and_not_read_say_nothing(settings):
    assert advise(ADVISOR, settings=settings) == []


def test_nobody_knows_when_it_hurts():
    [one] = advise(ADVISOR, settings={"fsync": "off"})

    assert (one.hurts_at, one.hurts_already) == (None, False)
    assert one.hurts == "the next crash of the machine; no date: nobody knows when"
