"""Counters of a pooler: what was done between two reads, and anew after a restart."""

from __future__ import annotations

import pytest

from monitors.collect.rounds import take_now
from monitors.models import HISTORY
from monitors.models.history import Change
from tests import poolers


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_transactions_are_counted_and_a_restart_counts_from_0(pooler, watch_pooler, eventually):
    first, second = (pooler(pool_mode="transaction", **poolers.CONSOLE) for _ in range(2))
    target = watch_pooler(first)

    def run(behind, transactions):
        with behind.connect(user="owner", dbname="shop", autocommit=True) as client:
            for _ in range(transactions):
                client.execute("SELECT 1")

    def samples():
        take_now(target, ["pooler_stats"])
        rows = HISTORY["pooler_stats"].samples._default_manager.filter(database="shop")
        return list(rows.order_by("taken_at").values_list("change", "xact_count"))

    run(first, 3)
    samples()
    run(first, 5)
    counted = samples()
    target.port = second.port  # a restart, seen from the history: all counters begin anew
    target.save()
    run(second, 2)
    secret = target.targetsecret_set.get()
    from monitors.targets import secrets as boxes  # noqa: PLC0415

    secret.sealed, secret.key_id = boxes.seal_password(
        second.password, target.host, target.port, target.user
    )
    secret.save()
    after = samples()

    assert counted[-1] == (Change.CHANGED, 5)
    assert after[-1] == (Change.RESTARTED, 2)
