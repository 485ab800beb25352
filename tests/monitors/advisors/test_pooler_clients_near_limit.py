"""Clients of a pooler against max_client_conn."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.pooler_clients_near_limit import ADVISOR
from tests.monitors.advisors.rows import advise, pool, pool_config

FOUND = {
    "pooler_pools": [pool(cl_active=99)],
    "pooler_config": pool_config(max_client_conn="100"),
}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("clients", "limit", "severity"),
    [
        (80, "100", None),
        (81, "100", Severity.WARNING),
        (95, "100", Severity.WARNING),
        (96, "100", Severity.CRITICAL),
        (100, None, None),
        (100, "0", None),
    ],
)
def test_a_share_of_the_limit(clients, limit, severity):
    pools = [pool(cl_active=clients - 10, cl_waiting=4), pool(user="other", cl_active=6)]

    found = advise(ADVISOR, pooler_pools=pools, pooler_config=pool_config(max_client_conn=limit))

    assert [one.severity for one in found] == ([severity] if severity else [])
    assert [one.hurts_already for one in found] == ([False] if severity else [])


def test_at_the_limit_it_hurts_already():
    [one] = advise(ADVISOR, **{**FOUND, "pooler_pools": [pool(cl_active=100)]})

    assert one.hurts_already
