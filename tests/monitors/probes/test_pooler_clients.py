"""Clients with work: those that wait longest come first, and no more than so many are kept."""

from __future__ import annotations

import pytest

from monitors.probes import pooler_clients
from tests import poolers
from tests.monitors.probes.consoles import latest, read_full

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.parametrize("pooler", ["installed"], indirect=True),
]


def test_who_waits_and_who_has_a_server(pooler, crowd, live, watch_pooler, eventually):
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind)
    live(behind, user="owner", dbname="shop", application_name="idler")
    crowd(behind, 6, application_name="till")

    read_full(target, eventually)

    clients = latest("pooler_clients", target)
    assert {row["application_name"] for row in clients} == {"till"}
    waiting = [row for row in clients if row["state"] == "waiting"]
    assert (len(clients), len(waiting)) == (6, 4)
    assert all(row["wait_seconds"] > 0 and not row["link"] for row in waiting)
    assert all(row["wait_seconds"] == 0 for row in clients if row not in waiting)
    assert all(row["connect_time"].endswith("UTC") for row in clients)


def test_of_many_those_that_wait_longest(pooler, crowd, watch_pooler, eventually, monkeypatch):
    monkeypatch.setattr(pooler_clients, "AT_MOST", 3)
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind)
    crowd(behind, 6)

    read_full(target, eventually)

    assert [row["state"] for row in latest("pooler_clients", target)] == ["waiting"] * 3
