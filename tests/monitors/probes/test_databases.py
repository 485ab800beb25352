"""Databases with their counters and ages, and the next transaction id without using one up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitors.history import series
from monitors.models import Database, Target
from monitors.snapshot import take_now
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_it_reads_counters_ages_and_the_next_transaction_id(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    take_now(target, ["databases"])
    before = {row["datname"]: row for row in series.now("databases", target.pk)}
    with server.connect(dbname="shop") as session:
        for _ in range(10):
            session.execute("SELECT pg_current_xact_id()")

    take_now(target, ["databases"])

    after = {row["datname"]: row for row in series.now("databases", target.pk)}
    assert after["shop"]["next_xid"] - before["shop"]["next_xid"] == 10
    assert after["shop"]["xid_age"] - before["shop"]["xid_age"] == 10
    assert after["shop"]["encoding"] == "UTF8"
    assert "template1" not in after


def test_a_renamed_database_stays_the_same_one(
    server: Server, watch: Callable[..., Target], worker_id: str
) -> None:
    target = watch(server, include=[])
    old, new = f"old_{worker_id}", f"new_{worker_id}"
    with server.connect() as setup:
        for name in (old, new):
            setup.execute(f"DROP DATABASE IF EXISTS {name}")
        setup.execute(f"CREATE DATABASE {old}")
        take_now(target, ["databases"])
        known = Database.objects.get(target=target, datname=old)
        setup.execute(f"ALTER DATABASE {old} RENAME TO {new}")

        take_now(target, ["databases"])
        known.refresh_from_db()
        assert (known.datname, known.gone_at) == (new, None)

        setup.execute(f"DROP DATABASE {new}")
        take_now(target, ["databases"])
        known.refresh_from_db()
        assert known.gone_at is not None
