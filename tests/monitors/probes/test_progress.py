"""Running maintenance with its phase, and only while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg
import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from monitors.rows.backends import Progress, backends_of, note_progress, progress_of
from monitors.rows.running import running_of
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


def test_it_shows_a_copy_from_its_client_in_bytes_and_no_percent(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    target = watch(server)
    with server.connect(dbname="shop") as client:
        client.execute("CREATE TABLE copied (text text)")
        with client.cursor().copy("COPY copied FROM STDIN") as copy:

            def seen() -> bool:
                copy.write(b"x" * 10_000 + b"\n")
                take_now(target, ["activity", "progress"])
                return any(row["done"] for row in read_latest("progress", target.pk))

            eventually(seen)
            [row] = read_latest("progress", target.pk)
            backends = backends_of(read_latest("activity", target.pk), row["started_at"], {})
            note_progress(backends, [row])
            [mine] = [one for one in backends if one.pid == client.info.backend_pid]
            maintained = running_of(target, None, {})

    assert (row["command"], row["relid"], row["phase"]) == ("COPY FROM", None, None)
    assert row["pid"] == mine.pid
    assert mine.progress == Progress("COPY FROM", None, None, row["done"])
    assert maintained == []


def test_it_shows_a_base_backup(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    target = watch(server)
    options = b"(PROGRESS, CHECKPOINT 'fast', MAX_RATE 32)"
    if server.major < 15:
        options = b"PROGRESS FAST MAX_RATE 32"
    with closing(server.connect(replication="true")) as client:
        client.pgconn.send_query(b"BASE_BACKUP " + options)

        def seen() -> bool:
            take_now(target, ["progress"])
            rows = read_latest("progress", target.pk)
            return any(row["phase"] == "streaming database files" for row in rows)

        eventually(seen)
        [row] = read_latest("progress", target.pk)
        with server.connect() as superuser:
            superuser.execute("SELECT pg_terminate_backend(%s)", [row["pid"]])

    assert (row["command"], row["relid"], row["autovacuum"]) == ("BASE BACKUP", None, False)
    pct = progress_of(row).pct
    assert pct is not None
    assert 0 <= pct < 100
