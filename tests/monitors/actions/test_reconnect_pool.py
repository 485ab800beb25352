"""Reconnect: other backends afterwards, and no statement is cut off."""

from __future__ import annotations

import pytest

from tests import poolers


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_a_client_has_another_backend_afterwards(pooler, live, watch_pooler, person, done):
    behind = pooler(pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind, operator_user="operator")
    client = live(behind, user="owner", dbname="shop", autocommit=True, prepare_threshold=None)
    [(before,)] = client.execute("SELECT pg_backend_pid()").fetchall()

    row = done(person("dba"), target, "reconnect_pool")

    assert (row.state, row.sql) == ("succeeded", 'RECONNECT "shop"')
    [(after,)] = client.execute("SELECT pg_backend_pid()").fetchall()
    assert before != after
