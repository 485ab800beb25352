"""Resume: what waits goes on; what is not paused, or not there, is told."""

from __future__ import annotations

import pytest

from tests import poolers
from tests.monitors.actions.consoles import is_paused, shown, told

pytestmark = pytest.mark.django_db


def test_clients_that_wait_go_on(  # noqa: PLR0917 - fixtures
    pooler, live, crowd, watch_pooler, person, done, eventually
):
    behind = pooler(pool_mode="transaction", **poolers.CONSOLE)
    live(behind, user="owner", dbname="shop", autocommit=True).execute("SELECT 1")
    target = watch_pooler(behind, operator_user="operator")
    told(behind, "PAUSE shop")
    crowd(behind, 3, "SELECT 1")
    eventually(lambda: [row["cl_waiting"] for row in shown(behind, "POOLS")] == [3])

    row = done(person("dba"), target, "resume_pool")

    assert (row.state, row.sql) == ("succeeded", 'RESUME "shop"')
    assert row.outcome == "Clients waiting: 3 before, 0 after."
    assert not is_paused(behind)


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_what_it_refuses(pooler, live, watch_pooler, person, previewed):
    behind = pooler(**poolers.CONSOLE)
    live(behind, user="owner", dbname="shop", autocommit=True).execute("SELECT 1")
    target = watch_pooler(behind, operator_user="operator")
    reader = watch_pooler(behind, name="pool-2", operator_user="collector")
    user = person("dba")

    said = [
        previewed(user, one, "resume_pool", database=name).preview["refused"]
        for one, name in (
            (target, "shop"),
            (target, 'no "such'),
            (target, "pgbouncer"),
            (reader, "shop"),
        )
    ]

    assert said[0] == "shop is not paused: there is nothing to resume."
    assert said[1].startswith('The pooler has no database "no ""such". It has: ')
    assert said[2].startswith("The pooler has no database pgbouncer.")
    assert "admin_users = collector" in said[3]
