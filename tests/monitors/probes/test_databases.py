"""Databases with their counters and ages, and the next transaction id without using one up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from monitors.advisors.wraparound import ADVISOR
from monitors.collect.rounds import take_now
from monitors.findings import thresholds
from monitors.findings.samples import samples_of
from monitors.history import xids
from monitors.history.latest import read_latest
from monitors.history.window import Window
from monitors.models import Database, Target
from monitors.rows import fleet, wraparound as wraparound_rows
from monitors.rules import wraparound
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_it_reads_counters_ages_and_the_next_transaction_id(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    take_now(target, ["databases"])
    before = {row["datname"]: row for row in read_latest("databases", target.pk)}
    with server.connect(dbname="shop") as session:
        for _ in range(10):
            session.execute("SELECT pg_current_xact_id()")

    take_now(target, ["databases"])

    after = {row["datname"]: row for row in read_latest("databases", target.pk)}
    assert after["shop"]["next_xid"] - before["shop"]["next_xid"] == 10
    assert after["shop"]["xid_age"] - before["shop"]["xid_age"] == 10
    assert after["shop"]["encoding"] == "UTF8"
    assert (after["template0"]["datistemplate"], after["template0"]["datallowconn"]) == (
        True,
        False,
    )
    assert not Database.objects.filter(target=target, datname__startswith="template").exists()


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


def test_the_oldest_age_is_the_servers_own_and_an_invalid_database_is_none_of_it(
    server: Server, watch: Callable[..., Target], worker_id: str
) -> None:
    closed, invalid = f"closed_{worker_id}", f"invalid_{worker_id}"
    with server.connect() as setup:
        for name in (closed, invalid):
            setup.execute(f"DROP DATABASE IF EXISTS {name}")
            setup.execute(f"CREATE DATABASE {name}")
        setup.execute(f"ALTER DATABASE {closed} ALLOW_CONNECTIONS false")
        # what an interrupted DROP DATABASE leaves
        setup.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", [invalid])
        try:
            setup.execute("UPDATE pg_database SET datfrozenxid = '3' WHERE datname = %s", [invalid])
            target = watch(server, include=["shop"])
            take_now(target, ["databases"])
            oldest = setup.execute(
                "SELECT max(age(datfrozenxid)) FROM pg_database WHERE datconnlimit <> -2"
            ).fetchone()
        finally:
            setup.execute(f"DROP DATABASE {invalid}")
            setup.execute(f"DROP DATABASE {closed}")

    window = Window.last("1h", timezone.now())
    readings = wraparound_rows.readings_of(target, window)
    rows = {row["database"]: row for row in wraparound_rows.databases_of(target, window, readings)}
    assert rows[invalid]["invalid"]
    assert rows[invalid]["drop"] == f"DROP DATABASE {invalid};"
    assert rows[invalid]["xid_age"] is None
    ages = [row["xid_age"] for row in rows.values() if row["xid_age"] is not None]
    assert [max(ages)] == list(oldest or ())
    assert rows[closed]["xid_age"] is not None
    assert fleet.fleet_of([target], window)[0]["xid_age"] == max(ages)
    samples = samples_of([target], thresholds.the_fleet())[target.pk]
    near = replace(samples, settings={"autovacuum_freeze_max_age": "1"})
    told = {one.object_name for one in ADVISOR.advise(near, ADVISOR.defaults)}
    assert "shop" in told
    assert invalid not in told


def test_the_burn_is_exactly_what_was_used_up(server: Server, watch: Callable[..., Target]) -> None:
    target = watch(server)
    take_now(target, ["databases"])
    with server.connect(dbname="shop") as session:
        for _ in range(50):
            session.execute("SELECT pg_current_xact_id()")
    take_now(target, ["databases"])

    now = timezone.now()
    found = xids.points(target.pk, "next_xid", now - timedelta(hours=1), now)
    burn = wraparound.burn_of(found)

    assert burn.mean is not None
    assert round(burn.mean * burn.seconds, 3) == 50
    assert xids.burns([target.pk], now)[target.pk]["xid"].mean == pytest.approx(burn.mean)


def test_it_reads_the_next_multixact_id(
    server: Server, watch: Callable[..., Target], worker_id: str
) -> None:
    """Two that share a row's lock make one."""
    target = watch(server)
    name = f"shared_{worker_id}"
    take_now(target, ["databases"])
    before = read_latest("databases", target.pk, key={"datname": "shop"})[0]["next_mxid"]
    with server.connect(dbname="shop") as setup:
        setup.execute(f"DROP TABLE IF EXISTS {name}")
        setup.execute(f"CREATE TABLE {name} AS SELECT 1 AS id")
        with (
            server.connect(dbname="shop", autocommit=False) as one,
            server.connect(dbname="shop", autocommit=False) as two,
        ):
            for session in (one, two):
                session.execute(f"SELECT id FROM {name} FOR SHARE")
        setup.execute(f"DROP TABLE {name}")

    take_now(target, ["databases"])

    rows = read_latest("databases", target.pk)
    assert {row["next_mxid"] for row in rows} == {before + 1}
    shop = next(row for row in rows if row["datname"] == "shop")
    assert 0 < shop["mxid_age"] <= shop["next_mxid"]
