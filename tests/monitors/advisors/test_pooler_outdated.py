"""The version of a pooler from which on no weakness is known."""

from __future__ import annotations

import pytest

from monitors.advisors.pooler_outdated import ADVISOR
from tests.monitors.advisors.rows import advise

FOUND = {"server_version": 11800}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("version", "said"),
    [(11800, "PgBouncer 1.18.0"), (12600, "PgBouncer 1.26.0"), (12601, None), (None, None)],
)
def test_what_is_older_should_be_updated(version, said):
    found = advise(ADVISOR, server_version=version)

    assert [one.title.split(" has ")[0] for one in found] == ([said] if said else [])
    assert all("update to 1.26.1 or newer" in one.title for one in found)
