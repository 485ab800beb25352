"""A storm of temporary files, by bytes and by files."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.temp_files import ADVISOR
from tests.monitors.advisors.rows import advise

MB = 1024**2


def grown(pace=0.0, files=0.0, seconds=600.0):
    return {
        "datname": "shop",
        "seconds": seconds,
        "temp_bytes": pace * seconds,
        "temp_files": files * seconds,
    }


FOUND = {"grown": [grown(6 * MB, 1)]}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("row", "severity"),
    [
        (grown(5 * MB), None),
        (grown(5 * MB + 1), Severity.NOTICE),
        (grown(50 * MB + 1), Severity.WARNING),
        (grown(files=2), None),
        (grown(files=2.1), Severity.NOTICE),
        (grown(5 * MB + 1, 20.1), Severity.WARNING),
        (grown(60 * MB, seconds=539.0), None),
    ],
)
def test_either_is_enough_and_the_worse_one_counts(row, severity):
    assert [one.severity for one in advise(ADVISOR, grown=[row])] == (
        [severity] if severity else []
    )


def test_it_says_how_much_a_second():
    [one] = advise(ADVISOR, grown=[grown(6 * MB, 1.5)])

    assert one.title == "shop writes 6 MB a second into temporary files, 1.5 files a second."
