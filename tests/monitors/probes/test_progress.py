"""Running maintenance with its phase, and only while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_it_shows_a_vacuum_while_it_runs(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    target = watch(server)
    with server.connect(dbname="shop") as setup:
        setup.execute("DROP TABLE IF EXISTS slowly")
        setup.execute("CREATE TABLE slowly AS SELECT g AS id FROM generate_series(1, 100000) AS g")
        setup.execute("DELETE FROM slowly WHERE id % 2 = 0")
        [(relid,)] = setup.execute("SELECT 'slowly'::regclass::oid::bigint").fetchall()
    vacuuming = server.connect(dbname="shop")
    # One page costs more than the limit, so that it sleeps after each.
    vacuuming.execute("SET vacuum_cost_delay = 50")
    vacuuming.execute("SET vacuum_cost_limit = 1")

    def vacuum() -> None:
        with suppress(psycopg.errors.QueryCanceled):
            vacuuming.execute("VACUUM slowly")

    thread = threading.Thread(target=vacuum)
    thread.start()

    def seen() -> bool:
        take_now(target, ["progress"])
        return any(row["relid"] == relid for row in read_latest("progress", target.pk))

    eventually(seen)
    [row] = read_latest("progress", target.pk)
    vacuuming.cancel()
    thread.join()
    vacuuming.close()
    take_now(target, ["progress"])

    assert (row["command"], row["autovacuum"], row["wraparound"]) == ("VACUUM", False, False)
    assert row["phase"] in {"scanning heap", "vacuuming heap", "initializing"}
    assert row["total"] > 100
    assert row["started_at"] is not None
    assert read_latest("progress", target.pk) == []
