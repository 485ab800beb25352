"""Indexes with their scans, and definitions that wait for no lock."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_it_counts_scans_and_keeps_the_definition(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    target = watch(server)
    with server.connect(dbname="shop") as shop:
        shop.execute("DROP TABLE IF EXISTS looked")
        shop.execute("CREATE TABLE looked AS SELECT g AS id FROM generate_series(1, 1000) AS g")
        shop.execute("CREATE UNIQUE INDEX looked_id ON looked (id)")
        shop.execute("SET enable_seqscan = off")
        for number in range(4):
            shop.execute(f"SELECT id FROM looked WHERE id = {number}")
    with server.connect(dbname="shop") as shop:  # 14's collector takes a while
        scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'looked_id'"
        eventually(lambda: shop.execute(scans).fetchone() == (4,))

    take_now(target, ["databases", "indexes"])

    [row] = [r for r in read_latest("indexes", target.pk) if r["indexrelname"] == "looked_id"]
    assert row["idx_scan"] == 4
    assert row["indexdef"] == "CREATE UNIQUE INDEX looked_id ON public.looked USING btree (id)"
    assert (row["indisunique"], row["indisprimary"], row["indisvalid"]) == (True, False, True)
    assert (row["last_idx_scan"] is not None) == (server.major >= 16)


def test_a_locked_table_costs_its_definition_alone(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    with server.connect(dbname="shop") as shop:
        shop.execute("DROP TABLE IF EXISTS held")
        shop.execute("CREATE TABLE held (id int PRIMARY KEY)")
    with server.connect(dbname="shop", autocommit=False) as holder:
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        results = {r.probe: r.state for r in take_now(target, ["databases", "indexes"])}

    assert results == {"databases": "ok", "indexes": "ok"}
    [row] = [r for r in read_latest("indexes", target.pk) if r["indexrelname"] == "held_pkey"]
    assert row["indexdef"] is None

    take_now(target, ["indexes"])
    [row] = [r for r in read_latest("indexes", target.pk) if r["indexrelname"] == "held_pkey"]
    assert row["indexdef"].startswith("CREATE UNIQUE INDEX held_pkey")


def test_an_index_that_is_not_valid_says_so_until_it_is(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    with server.connect(dbname="shop") as shop:
        shop.execute("DROP TABLE IF EXISTS doubled")
        shop.execute("CREATE TABLE doubled AS SELECT 1 AS id FROM generate_series(1, 2)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            shop.execute("CREATE UNIQUE INDEX CONCURRENTLY doubled_id ON doubled (id)")
        take_now(target, ["databases", "indexes"])
        [row] = [r for r in read_latest("indexes", target.pk) if r["indexrelname"] == "doubled_id"]
        assert (row["indisunique"], row["indisvalid"]) == (True, False)

        shop.execute("DELETE FROM doubled WHERE ctid = '(0,1)'")
        shop.execute("REINDEX INDEX doubled_id")
    take_now(target, ["indexes"])

    [row] = [r for r in read_latest("indexes", target.pk) if r["indexrelname"] == "doubled_id"]
    assert row["indisvalid"] is True


def test_a_name_that_changed_brings_a_new_definition(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)
    with server.connect(dbname="shop") as shop:
        shop.execute("DROP TABLE IF EXISTS named_anew")
        shop.execute("CREATE TABLE named_anew (id int NOT NULL)")
        shop.execute("CREATE UNIQUE INDEX draft_of_key ON named_anew (id)")
        take_now(target, ["databases", "indexes"])
        shop.execute(
            "ALTER TABLE named_anew ADD CONSTRAINT final_key PRIMARY KEY USING INDEX draft_of_key"
        )
    take_now(target, ["indexes"])

    rows = {row["indexrelname"]: row for row in read_latest("indexes", target.pk)}
    assert "draft_of_key" not in rows
    assert rows["final_key"]["indisprimary"] is True
    assert rows["final_key"]["indexdef"].startswith("CREATE UNIQUE INDEX final_key ON")
